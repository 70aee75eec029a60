/*
 * Quiesced run state: interface for the parts of QEMU that take part
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_VM_QUIESCE_H
#define SYSTEM_VM_QUIESCE_H

#include "qapi/qapi-types-run-state.h"
#include "qapi/qapi-types-vm-quiesce-common.h"
#include "qemu/notify.h"
#include "qemu/queue.h"

/**
 * VMQuiesceResult: What a participant's poll() found.
 *
 * @VM_QUIESCE_DONE: the participant has done its part of the phase
 * @VM_QUIESCE_BUSY: not yet, but it may come true without help
 * @VM_QUIESCE_ERROR: it will not come true; only another attempt can help
 */
typedef enum VMQuiesceResult {
    VM_QUIESCE_DONE,
    VM_QUIESCE_BUSY,
    VM_QUIESCE_ERROR,
} VMQuiesceResult;

/**
 * VMQuiesceOrder: Order of the participants within a phase.
 *
 * An outgoing migration comes first: what it sends must not be that the VM was
 * stopped, which it is for quiescing only.  vCPUs are next: they stop at once,
 * whatever the others wait for, and devices' back ends are stopped before their
 * work is checked and flushed.  Block nodes come last: they are undone first,
 * and theirs is the only undo() that can fail.
 */
typedef enum VMQuiesceOrder {
    VM_QUIESCE_ORDER_MIGRATION,
    VM_QUIESCE_ORDER_VCPUS,
    VM_QUIESCE_ORDER_BACKENDS,
    VM_QUIESCE_ORDER_BLOCK,
} VMQuiesceOrder;

typedef struct VMQuiesceParticipant VMQuiesceParticipant;

/**
 * VMQuiesceParticipant: A part of QEMU through which something can leave.
 *
 * All callbacks run in the main thread with the BQL held, outside coroutine
 * context, and none of them may wait for a back end.  All but @name and
 * @order may be NULL.
 */
struct VMQuiesceParticipant {
    /** @name: unique name, for QMP; documented there */
    const char *name;
    /** @order: position among the participants */
    VMQuiesceOrder order;

    /** @stop: start to stop; called once, in phase 'stop' */
    void (*stop)(VMQuiesceParticipant *p);

    /**
     * @poll: do what @phase ('stop', 'drain', 'devices' or 'flush') asks for
     *
     * The first call in a phase starts the work, later ones look whether it
     * has ended.  Called until it returns VM_QUIESCE_DONE, and after
     * VM_QUIESCE_ERROR again for the next attempt.
     *
     * Sets @errp, saying what is missing, unless it returns VM_QUIESCE_DONE.
     */
    VMQuiesceResult (*poll)(VMQuiesceParticipant *p, VmQuiescePhase phase,
                            Error **errp);

    /**
     * @requests: describe the requests that poll() waits for
     *
     * Called after poll() has returned VM_QUIESCE_BUSY.  Returns a new list,
     * or NULL.
     */
    VmQuiesceRequestsList *(*requests)(VMQuiesceParticipant *p);

    /**
     * @release: give up what others may take over
     *
     * Called when every participant is drained and flushed; again for the
     * next attempt if it failed, and if undo() failed.  Returns false and sets
     * @errp on failure.
     */
    bool (*release)(VMQuiesceParticipant *p, Error **errp);

    /**
     * @undo: take back release() and stop()
     *
     * Called in reverse order, in any phase after 'drain'.  Returns false and
     * sets @errp on failure; release() is called then.
     */
    bool (*undo)(VMQuiesceParticipant *p, Error **errp);

    /* Private: for the phase machine */
    VmQuiesceParticipantState state;
    char *error;
    bool done;
    QTAILQ_ENTRY(VMQuiesceParticipant) next;
};

/**
 * vm_quiesce_register: Add a participant.
 * @p: the participant, with static storage duration
 *
 * For constructors: before main(), no lock needed.
 */
void vm_quiesce_register(VMQuiesceParticipant *p);

/**
 * vm_quiesce_active: Whether the VM is quiesced, on its way there, or has
 * failed to get there, so that it must not run.
 *
 * Any thread, no lock needed.
 */
bool vm_quiesce_active(void);

/**
 * vm_quiesce_begin: Start to quiesce the VM.
 * @reason: why; 1 to 1024 bytes
 * @deadline_ms: milliseconds after which it is a failure; 0 for the default
 * @errp: says why it cannot be started; nothing has changed then
 *
 * Called from the main thread with the BQL held, outside coroutine context.
 * The work is done by the main loop.  Returns false if there is an error.
 */
bool vm_quiesce_begin(const char *reason, uint32_t deadline_ms, Error **errp);

/**
 * vm_quiesce_add_notifier: Be told what has come of each attempt.
 * @n: called from the main thread with the BQL held, without data, after the
 *     event VM_QUIESCED or VM_QUIESCE_FAILED
 *
 * Called from the main thread with the BQL held.
 */
void vm_quiesce_add_notifier(Notifier *n);

/**
 * vm_quiesce_restored: Whether the VM was quiesced when it was loaded, so that
 * its images have not been active here.
 *
 * Called with the BQL held.
 */
bool vm_quiesce_restored(void);

/**
 * vm_quiesce_may_exit: Whether a request to end the process is to be honoured
 * while vm_quiesce_active().  The host's are, the guest's are not.
 * @request: the request's cause
 *
 * Any thread, no lock needed.
 */
bool vm_quiesce_may_exit(ShutdownCause request);

/**
 * vm_quiesce_cleanup: Clean up at the end of the process without closing
 * images, if the VM is quiesced, or something hangs that quiescing waits for.
 *
 * Called once, from the main thread with the BQL held.  Waits for a moment for
 * what may still end.  Returns false, with nothing done, in all other cases.
 */
bool vm_quiesce_cleanup(void);

/**
 * vm_quiesce_add_transitions: Add the transitions of RUN_STATE_QUIESCED.
 * @valid: table of the valid transitions, from and to
 *
 * Called before any thread is started.
 */
void vm_quiesce_add_transitions(bool valid[][RUN_STATE__MAX]);

/**
 * vm_quiesce_needs_reset: Whether the VM is paused by vm-unquiesce, but was
 * in a state that only a reset can leave when it was quiesced.
 *
 * Called with the BQL held.
 */
bool vm_quiesce_needs_reset(void);

/**
 * vm_quiesce_allows_command: Whether a QMP command may be executed now.
 * @name: the command's name
 * @errp: says why not
 *
 * Any thread, no lock needed.
 */
bool vm_quiesce_allows_command(const char *name, Error **errp);

/**
 * vm_quiesce_allows_qom_set: Whether a QOM property may be set now.
 * @property: the property's name
 * @errp: says why not
 *
 * Any thread, no lock needed.
 */
bool vm_quiesce_allows_qom_set(const char *property, Error **errp);

/**
 * vm_quiesce_allows_hmp: Whether a top-level HMP command may be executed now.
 * @name: the command's name in its table, with alternatives split by '|'
 *
 * Called with the BQL held.
 */
bool vm_quiesce_allows_hmp(const char *name);

/**
 * vm_quiesce_allows_gdb: Whether a packet from gdb may be handled now.
 * @packet: the packet, without framing
 *
 * Called with the BQL held.
 */
bool vm_quiesce_allows_gdb(const char *packet);

#endif
