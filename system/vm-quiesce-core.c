/*
 * Quiesced run state: phase machine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/util.h"
#include "vm-quiesce-core.h"

/* The phases are worked through by counting up */
QEMU_BUILD_BUG_ON(VM_QUIESCE_PHASE_STOP + 1 != VM_QUIESCE_PHASE_DRAIN);
QEMU_BUILD_BUG_ON(VM_QUIESCE_PHASE_DRAIN + 1 != VM_QUIESCE_PHASE_FLUSH);
QEMU_BUILD_BUG_ON(VM_QUIESCE_PHASE_FLUSH + 1 != VM_QUIESCE_PHASE_RELEASE);
QEMU_BUILD_BUG_ON(VM_QUIESCE_PHASE_RELEASE + 1 != VM_QUIESCE_PHASE_QUIESCED);

void vm_quiesce_core_add(VMQuiesce *q, VMQuiesceParticipant *p)
{
    VMQuiesceParticipant *other;

    QTAILQ_FOREACH(other, &q->participants, next) {
        assert(strcmp(other->name, p->name));
        if (p->order < other->order ||
            (p->order == other->order && strcmp(p->name, other->name) < 0)) {
            QTAILQ_INSERT_BEFORE(other, p, next);
            return;
        }
    }
    QTAILQ_INSERT_TAIL(&q->participants, p, next);
}

VmQuiescePhase vm_quiesce_core_phase(const VMQuiesce *q)
{
    return q->failed ? VM_QUIESCE_PHASE_FAILED : q->phase;
}

/* Takes ownership of @err, which may be NULL. */
static void participant_set(VMQuiesceParticipant *p,
                            VmQuiesceParticipantState state, Error *err)
{
    g_free(p->error);
    p->error = err ? g_strdup(error_get_pretty(err)) : NULL;
    p->state = state;
    error_free(err);
}

bool vm_quiesce_core_start(VMQuiesce *q, int64_t now_ms, uint32_t deadline_ms,
                           Error **errp)
{
    VMQuiesceParticipant *p;

    if (q->phase == VM_QUIESCE_PHASE_QUIESCED) {
        error_setg(errp, "The VM is quiesced already");
        return false;
    }
    if (q->phase != VM_QUIESCE_PHASE_NONE && !q->failed) {
        error_setg(errp, "The VM is being quiesced already");
        return false;
    }

    q->failed = false;
    q->error = false;
    q->start_ms = now_ms;
    q->deadline_ms = deadline_ms;

    if (q->phase != VM_QUIESCE_PHASE_NONE) {
        return true;
    }

    q->phase = VM_QUIESCE_PHASE_STOP;
    QTAILQ_FOREACH(p, &q->participants, next) {
        p->done = false;
        participant_set(p, VM_QUIESCE_PARTICIPANT_STATE_STOPPING, NULL);
        if (p->stop) {
            p->stop(p);
        }
    }
    return true;
}

/* Returns whether every participant has done its part of the phase. */
static bool poll_participants(VMQuiesce *q)
{
    VMQuiesceParticipant *p;
    bool all_done = true;

    QTAILQ_FOREACH(p, &q->participants, next) {
        VMQuiesceResult result = VM_QUIESCE_DONE;
        Error *err = NULL;

        if (p->done) {
            continue;
        }
        if (p->poll) {
            result = p->poll(p, q->phase, &err);
        }
        assert((result == VM_QUIESCE_DONE) == !err);

        p->done = result == VM_QUIESCE_DONE;
        all_done &= p->done;
        q->error |= result == VM_QUIESCE_ERROR;
        participant_set(p, result == VM_QUIESCE_ERROR
                           ? VM_QUIESCE_PARTICIPANT_STATE_FAILED
                           : VM_QUIESCE_PARTICIPANT_STATE_STOPPING, err);
    }
    return all_done;
}

/* Returns whether every participant has released what it held. */
static bool release_participants(VMQuiesce *q)
{
    VMQuiesceParticipant *p;

    QTAILQ_FOREACH(p, &q->participants, next) {
        Error *err = NULL;

        if (p->done) {
            continue;
        }
        if (p->release && !p->release(p, &err)) {
            participant_set(p, VM_QUIESCE_PARTICIPANT_STATE_FAILED, err);
            q->error = true;
        } else {
            participant_set(p, VM_QUIESCE_PARTICIPANT_STATE_CONTAINED, NULL);
            p->done = true;
        }
    }
    return !q->error;
}

static void next_phase(VMQuiesce *q)
{
    VMQuiesceParticipant *p;

    q->phase++;
    QTAILQ_FOREACH(p, &q->participants, next) {
        p->done = false;
    }
}

VMQuiesceOutcome vm_quiesce_core_step(VMQuiesce *q, int64_t now_ms)
{
    bool going = q->phase != VM_QUIESCE_PHASE_NONE &&
                 q->phase != VM_QUIESCE_PHASE_QUIESCED && !q->error;

    while (going && q->phase != VM_QUIESCE_PHASE_QUIESCED) {
        going = q->phase == VM_QUIESCE_PHASE_RELEASE ? release_participants(q)
                                                     : poll_participants(q);
        if (going) {
            next_phase(q);
        }
    }
    if (going) {
        q->failed = false;
        q->end_ms = now_ms;
        return VM_QUIESCE_OUTCOME_QUIESCED;
    }

    if (!q->failed && q->phase != VM_QUIESCE_PHASE_NONE &&
        q->phase != VM_QUIESCE_PHASE_QUIESCED &&
        (q->error || now_ms - q->start_ms >= q->deadline_ms)) {
        q->failed = true;
        return VM_QUIESCE_OUTCOME_FAILED;
    }
    return VM_QUIESCE_OUTCOME_NONE;
}

static bool undo_possible(const VMQuiesce *q, Error **errp)
{
    if (q->phase == VM_QUIESCE_PHASE_NONE) {
        error_setg(errp, "The VM is not quiesced");
        return false;
    }
    if (q->phase != VM_QUIESCE_PHASE_QUIESCED && !q->failed) {
        error_setg(errp, "The VM is still being quiesced");
        return false;
    }
    if (q->phase < VM_QUIESCE_PHASE_FLUSH) {
        VMQuiesceParticipant *p;

        QTAILQ_FOREACH(p, &q->participants, next) {
            if (p->error) {
                error_setg(errp, "Quiescing cannot be undone yet: %s: %s",
                           p->name, p->error);
                return false;
            }
        }
        error_setg(errp, "Quiescing cannot be undone yet");
        return false;
    }
    return true;
}

/* Contain @p, whose undo() failed half-way, if it was contained before. */
static void release_again(VMQuiesce *q, VMQuiesceParticipant *p)
{
    Error *err = NULL;

    if (!p->release || p->state != VM_QUIESCE_PARTICIPANT_STATE_CONTAINED) {
        return;
    }
    if (!p->release(p, &err)) {
        participant_set(p, VM_QUIESCE_PARTICIPANT_STATE_FAILED, err);
        p->done = false;
        q->phase = VM_QUIESCE_PHASE_RELEASE;
        q->error = true;
        q->failed = true;
    }
}

bool vm_quiesce_core_undo(VMQuiesce *q, Error **errp)
{
    VMQuiesceParticipant *p;

    if (!undo_possible(q, errp)) {
        return false;
    }

    QTAILQ_FOREACH_REVERSE(p, &q->participants, next) {
        if (p->undo && !p->undo(p, errp)) {
            /* Only the first one that is undone may fail, see VMQuiesceOrder */
            assert(!QTAILQ_NEXT(p, next));
            release_again(q, p);
            return false;
        }
    }

    QTAILQ_FOREACH(p, &q->participants, next) {
        participant_set(p, VM_QUIESCE_PARTICIPANT_STATE_IDLE, NULL);
    }
    q->phase = VM_QUIESCE_PHASE_NONE;
    q->failed = false;
    q->error = false;
    return true;
}

bool vm_quiesce_core_busy(const VMQuiesce *q)
{
    VMQuiesceParticipant *p;

    if (q->phase == VM_QUIESCE_PHASE_STOP && !q->error) {
        /* Participants may not have been polled yet */
        return true;
    }
    QTAILQ_FOREACH(p, &q->participants, next) {
        if (p->error && p->state == VM_QUIESCE_PARTICIPANT_STATE_STOPPING) {
            return true;
        }
    }
    return false;
}

VmQuiesceParticipantList *vm_quiesce_core_query(const VMQuiesce *q,
                                                bool only_open)
{
    VmQuiesceParticipantList *head = NULL, **tail = &head;
    VMQuiesceParticipant *p;

    QTAILQ_FOREACH(p, &q->participants, next) {
        VmQuiesceParticipant *info;

        if (only_open && !p->error) {
            continue;
        }
        info = g_new0(VmQuiesceParticipant, 1);
        info->name = g_strdup(p->name);
        info->state = p->state;
        info->error = g_strdup(p->error);
        if (p->requests && p->error &&
            p->state == VM_QUIESCE_PARTICIPANT_STATE_STOPPING) {
            info->requests = p->requests(p);
            info->has_requests = info->requests;
        }
        QAPI_LIST_APPEND(tail, info);
    }
    return head;
}
