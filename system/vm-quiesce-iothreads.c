/*
 * Quiesced run state: iothreads
 *
 * Devices wait for their iothread when they are drained and when they are
 * stopped.  One that hangs would hang the main loop, so all are asked to
 * answer first.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "qapi/error.h"
#include "qom/object_interfaces.h"
#include "system/iothread.h"
#include "system/vm-quiesce.h"
#include "vm-quiesce-internal.h"

/* A question to an iothread, freed by the main thread when @answered */
typedef struct Question {
    IOThread *iothread;
    /* Set in the iothread */
    bool answered;
} Question;

/* Main thread only; NULL if nobody is being asked */
static GPtrArray *questions;

static void question_free(void *opaque)
{
    Question *q = opaque;

    object_unref(OBJECT(q->iothread));
    g_free(q);
}

static void question_answer_bh(void *opaque)
{
    Question *q = opaque;

    qatomic_store_release(&q->answered, true);
    aio_wait_kick();
}

static int ask_iothread(Object *obj, void *opaque)
{
    IOThread *iothread = (IOThread *)object_dynamic_cast(obj, TYPE_IOTHREAD);
    Question *q;

    if (iothread) {
        q = g_new0(Question, 1);
        q->iothread = iothread;
        object_ref(obj);
        g_ptr_array_add(questions, q);
        aio_bh_schedule_oneshot(iothread_get_aio_context(iothread),
                                question_answer_bh, q);
    }
    return 0;
}

bool iothreads_quiesce_answer(Error **errp)
{
    g_autoptr(GString) silent = g_string_new(NULL);
    guint i;

    if (!questions) {
        questions = g_ptr_array_new_with_free_func(question_free);
        object_child_foreach(object_get_objects_root(), ask_iothread, NULL);
    }

    for (i = 0; i < questions->len; i++) {
        Question *q = g_ptr_array_index(questions, i);

        if (!qatomic_load_acquire(&q->answered)) {
            g_autofree char *id = iothread_get_id(q->iothread);

            g_string_append_printf(silent, "%siothread '%s' does not answer",
                                   silent->len ? "; " : "", id);
        }
    }
    if (silent->len) {
        error_setg(errp, "%s", silent->str);
        return false;
    }

    g_clear_pointer(&questions, g_ptr_array_unref);
    return true;
}

static VMQuiesceResult iothreads_quiesce_poll(VMQuiesceParticipant *p,
                                              VmQuiescePhase phase,
                                              Error **errp)
{
    if (phase == VM_QUIESCE_PHASE_STOP && !iothreads_quiesce_answer(errp)) {
        return VM_QUIESCE_BUSY;
    }
    return VM_QUIESCE_DONE;
}

static VMQuiesceParticipant iothreads_participant = {
    .name = "iothreads",
    .order = VM_QUIESCE_ORDER_BACKENDS,
    .poll = iothreads_quiesce_poll,
};

static void __attribute__((__constructor__)) iothreads_quiesce_init(void)
{
    vm_quiesce_register(&iothreads_participant);
}
