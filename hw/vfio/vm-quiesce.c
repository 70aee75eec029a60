/*
 * Quiesced run state: VFIO devices
 *
 * A device that can migrate is put into a stopped state, in which it does no
 * DMA, when the run state's handlers run.  Bus mastering of any other is
 * switched off then.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/thread-pool.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "system/vm-quiesce.h"
#include "vm-quiesce-device.h"

/*
 * A device on its way.  The host makes those who access its configuration
 * space wait while it resets the device, which it does when the device has
 * failed: so only threads of a pool do.
 *
 * @switched_off and @err are the thread's while @busy, else the main thread's,
 * as is all else.
 */
typedef struct Containment {
    /* Kept from being freed by a reference to its DeviceState */
    VFIODevice *vbasedev;
    /* A thread is at work */
    bool busy;
    /* It was, when undo() came: what it has done is to be taken back */
    bool abandoned;
    bool done;
    /* Bus mastering; undo() has to switch it on */
    bool switched_off;
    Error *err;
} Containment;

/* From the first poll() in phase 'flush' to undo() */
static GPtrArray *containments;
/* Those which are in the list no more, but not freed */
static unsigned abandoned;

static void containment_free(Containment *c)
{
    object_unref(c->vbasedev->dev);
    error_free(c->err);
    g_free(c);
}

static void give_back(Containment *c)
{
    Error *err = NULL;

    if (c->switched_off && !vfio_unquiesce_device(c->vbasedev, &err)) {
        error_reportf_err(err, "vfio %s: ", c->vbasedev->name);
    }
}

static int give_back_work(void *opaque)
{
    give_back(opaque);
    return 0;
}

static void give_back_done(void *opaque, int ret)
{
    containment_free(opaque);
    abandoned--;
}

static int contain_work(void *opaque)
{
    Containment *c = opaque;
    bool switched_off;

    vfio_quiesce_device(c->vbasedev, &switched_off, &c->err);
    /* Also if it could not be read back, and by an attempt that has failed */
    c->switched_off |= switched_off;
    return 0;
}

static void contain_done(void *opaque, int ret)
{
    Containment *c = opaque;

    c->busy = false;
    c->done = !c->err;
    if (c->abandoned) {
        thread_pool_submit_aio(give_back_work, c, give_back_done, c);
    }
}

static void containments_begin(void)
{
    VFIODevice *vbasedev;
    guint i;

    if (!containments) {
        containments = g_ptr_array_new();
        QLIST_FOREACH(vbasedev, &vfio_device_list, global_next) {
            Containment *c = g_new0(Containment, 1);

            c->vbasedev = vbasedev;
            object_ref(vbasedev->dev);
            g_ptr_array_add(containments, c);
        }
    }
    for (i = 0; i < containments->len; i++) {
        Containment *c = g_ptr_array_index(containments, i);

        if (!c->busy && !c->done && !c->err) {
            c->busy = true;
            thread_pool_submit_aio(contain_work, c, contain_done, c);
        }
    }
}

static VMQuiesceResult vfio_quiesce_poll(VMQuiesceParticipant *p,
                                         VmQuiescePhase phase, Error **errp)
{
    g_autoptr(GString) text = g_string_new(NULL);
    bool busy = false;
    guint i;

    if (phase != VM_QUIESCE_PHASE_FLUSH) {
        return VM_QUIESCE_DONE;
    }
    if (abandoned) {
        error_setg(errp, "a device has not answered to an earlier attempt");
        return VM_QUIESCE_BUSY;
    }

    containments_begin();
    for (i = 0; i < containments->len; i++) {
        Containment *c = g_ptr_array_index(containments, i);

        busy |= c->busy;
        if (!c->done) {
            g_string_append_printf(text, "%sdevice '%s' may still do DMA: %s",
                                   text->len ? "; " : "", c->vbasedev->name,
                                   c->busy ? "it has not answered"
                                           : error_get_pretty(c->err));
        }
    }
    if (!text->len) {
        return VM_QUIESCE_DONE;
    }
    error_setg(errp, "%s", text->str);
    if (busy) {
        return VM_QUIESCE_BUSY;
    }
    for (i = 0; i < containments->len; i++) {
        Containment *c = g_ptr_array_index(containments, i);

        /* For the next attempt */
        error_free(c->err);
        c->err = NULL;
    }
    return VM_QUIESCE_ERROR;
}

/*
 * What is under way cannot be waited for.  What has ended is switched on
 * before this returns, as the VM may run then.
 */
static bool vfio_quiesce_undo(VMQuiesceParticipant *p, Error **errp)
{
    guint i;

    for (i = 0; containments && i < containments->len; i++) {
        Containment *c = g_ptr_array_index(containments, i);

        if (c->busy) {
            c->abandoned = true;
            abandoned++;
        } else {
            give_back(c);
            containment_free(c);
        }
    }
    g_clear_pointer(&containments, g_ptr_array_unref);
    return true;
}

static VMQuiesceParticipant vfio_participant = {
    .name = "vfio",
    .order = VM_QUIESCE_ORDER_BACKENDS,
    .poll = vfio_quiesce_poll,
    .undo = vfio_quiesce_undo,
};

static void __attribute__((__constructor__)) vfio_quiesce_init(void)
{
    vm_quiesce_register(&vfio_participant);
}
