/*
 * Quiesced run state: phase machine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef VM_QUIESCE_CORE_H
#define VM_QUIESCE_CORE_H

#include "system/vm-quiesce.h"

/**
 * VMQuiesce: The phase machine.
 *
 * Knows no clock, no event loop, no device and no global of QEMU's.  The
 * caller serializes all calls.
 *
 *                  +------------------- vm_quiesce_core_undo() --------------+
 *                  v                                                         |
 *   NONE -----> STOP -> DRAIN -> FLUSH -> RELEASE -> QUIESCED ---------------+
 *        start   |        |        |         |                               |
 *                +--------+---+----+---------+  deadline or error            |
 *                             v                                              |
 *                          failed  ---- from FLUSH and RELEASE --------------+
 *
 * Invariants:
 * - A phase begins when every participant has done its part of the one before.
 * - @failed by the deadline does not stop the work: what ends late takes the
 *   machine on, up to QUIESCED.  After an error it rests until
 *   vm_quiesce_core_start() is called for the next attempt, which goes on in
 *   the phase that failed.
 * - QUIESCED is entered once an attempt, and left by undo only.
 */
typedef struct VMQuiesce {
    /** @phase: where the work is; never VM_QUIESCE_PHASE_FAILED */
    VmQuiescePhase phase;
    /** @failed: a failure was reported, and QUIESCED not reached since */
    bool failed;
    /** @error: a participant returned an error */
    bool error;
    /** @start_ms: when the attempt started, on the caller's clock */
    int64_t start_ms;
    /** @end_ms: when QUIESCED was reached */
    int64_t end_ms;
    /** @deadline_ms: milliseconds after @start_ms */
    uint32_t deadline_ms;
    QTAILQ_HEAD(, VMQuiesceParticipant) participants;
    /** @active: see vm_quiesce_active(); set by the caller, atomic */
    bool active;
    /** @restored: see vm_quiesce_restored(); set by the caller */
    bool restored;
} VMQuiesce;

/** vm_quiesce: The phase machine of this VM; main thread, BQL held. */
extern VMQuiesce vm_quiesce;

/** VMQuiesceOutcome: What a step brought that has to be told. */
typedef enum VMQuiesceOutcome {
    VM_QUIESCE_OUTCOME_NONE,
    VM_QUIESCE_OUTCOME_QUIESCED,
    VM_QUIESCE_OUTCOME_FAILED,
} VMQuiesceOutcome;

/**
 * vm_quiesce_core_add: Add participant @p to @q, by order, then by name.
 */
void vm_quiesce_core_add(VMQuiesce *q, VMQuiesceParticipant *p);

/**
 * vm_quiesce_core_phase: The phase to report: @q->phase, or 'failed'.
 */
VmQuiescePhase vm_quiesce_core_phase(const VMQuiesce *q);

/**
 * vm_quiesce_core_start: Begin an attempt.
 * @q: in phase NONE, or failed
 * @now_ms: current time, in milliseconds, from any monotonic clock
 * @deadline_ms: when to give up, in milliseconds from now
 *
 * Participants are asked to stop, but not polled.
 *
 * Returns: false, with @errp set and nothing changed, in any other phase.
 */
bool vm_quiesce_core_start(VMQuiesce *q, int64_t now_ms, uint32_t deadline_ms,
                           Error **errp);

/**
 * vm_quiesce_core_step: Go as far as possible without waiting.
 * @q: in any phase
 * @now_ms: current time, on the clock of vm_quiesce_core_start()
 *
 * Returns: what there is to tell.  Each outcome is returned once an attempt.
 */
VMQuiesceOutcome vm_quiesce_core_step(VMQuiesce *q, int64_t now_ms);

/**
 * vm_quiesce_core_undo: Go back to phase NONE.
 * @q: in phase QUIESCED, or failed in phase FLUSH or RELEASE
 *
 * Returns: false with @errp set if that is not possible.  @q stays as it was,
 * unless a participant cannot be contained any more: then it has failed.
 */
bool vm_quiesce_core_undo(VMQuiesce *q, Error **errp);

/**
 * vm_quiesce_core_busy: Whether something that @q waits for has not ended.
 */
bool vm_quiesce_core_busy(const VMQuiesce *q);

/**
 * vm_quiesce_core_query: Describe the participants, for QMP.
 * @q: in any phase
 * @only_open: leave out those that nothing keeps from being contained
 */
VmQuiesceParticipantList *vm_quiesce_core_query(const VMQuiesce *q,
                                                bool only_open);

#endif
