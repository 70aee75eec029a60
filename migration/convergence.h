/*
 * Migration convergence: the decision engine
 *
 * A pure function: from the measurements of the passes made so far it
 * decides what follows.  It knows nothing of QEMU; the glue that
 * measures and carries out is in convergence-glue.c, and
 * contrib/migration-replay runs it on a recorded history.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_MIGRATION_CONVERGENCE_H
#define QEMU_MIGRATION_CONVERGENCE_H

typedef enum ConvergenceAction {
    CONVERGENCE_CONTINUE,
    CONVERGENCE_THROTTLE,
    CONVERGENCE_POLISH,
    CONVERGENCE_WITHHOLD,
    CONVERGENCE_SWITCH_OVER,
    CONVERGENCE_POSTCOPY,
    CONVERGENCE_ABORT,
} ConvergenceAction;

/**
 * ConvergenceLimits: what was asked for; the same for all passes
 *
 * @downtime_limit: how long the guest may be stopped, ms
 * @time_limit: how long the rest of the copy may be predicted to take, ms
 * @max_slowdown: strongest throttle, per cent of the vCPUs' run time, 0..99
 * @page_size: bytes in a page
 * @postcopy: post-copy, not abort, if it does not converge
 * @can_withhold: pages can be withheld
 */
typedef struct ConvergenceLimits {
    uint64_t downtime_limit;
    uint64_t time_limit;
    uint8_t max_slowdown;
    uint32_t page_size;
    bool postcopy;
    bool can_withhold;
} ConvergenceLimits;

/**
 * ConvergenceDecision: what follows after a pass
 *
 * @action: what to do
 * @throttle: throttle of the next pass, per cent of the vCPUs' run time; at
 *            a switchover the one to keep until the guest is stopped
 * @downtime_fixed: part of the predicted downtime that does not depend on
 *                  the amount of memory, ms
 * @downtime_copy: time to send what remains now while the guest is stopped, ms
 * @converges: whether a switchover is predicted at all
 * @predicted_time: time until then, ms (if @converges)
 * @predicted_downtime: downtime at that switchover, ms (if @converges)
 * @reason: why, one sentence without a full stop
 */
typedef struct ConvergenceDecision {
    ConvergenceAction action;
    uint8_t throttle;
    uint64_t downtime_fixed;
    uint64_t downtime_copy;
    bool converges;
    uint64_t predicted_time;
    uint64_t predicted_downtime;
    char reason[192];
} ConvergenceDecision;

/**
 * ConvergencePass: measurements of one pass
 *
 * @end: end of the pass, ms since the start of the migration
 * @duration: how long it took, ms
 * @sync_time: how long fetching the dirty bitmap took, us
 * @bytes_sent: bytes sent, with all overhead
 * @pages_sent: pages sent, zero pages included
 * @pages_dirtied: pages not dirty before (sent, or clean) and found dirty
 * @pages_hot: dirty pages that were sent in this pass, or withheld, and were
 *             found dirty in the one before as well
 * @pages_withheld: dirty pages that were not sent
 * @pages_remaining: dirty pages at its end, including withheld ones
 * @bandwidth_low: lower bound of what is sent before switchover, bytes/s
 * @switchover_bandwidth: lower bound of what is sent while the guest is
 *                        stopped, bytes/s
 * @switchover_likely: what is likely sent while the guest is stopped, bytes/s;
 *                     0 if nothing better than the bound is known
 * @fixed_cost: estimate of stopping the guest, its devices' state and the
 *              handshake, or of what is still in the socket's send buffer if
 *              that takes longer; without @sync_time, us
 * @throttle: throttle that was in force, per cent
 * @can_switch_over: the destination has agreed to a switchover
 * @decided: what was decided after it; input for later passes
 */
typedef struct ConvergencePass {
    uint64_t end;
    uint64_t duration;
    uint64_t sync_time;
    uint64_t bytes_sent;
    uint64_t pages_sent;
    uint64_t pages_dirtied;
    uint64_t pages_hot;
    uint64_t pages_withheld;
    uint64_t pages_remaining;
    uint64_t bandwidth_low;
    uint64_t switchover_bandwidth;
    uint64_t switchover_likely;
    uint64_t fixed_cost;
    uint8_t throttle;
    bool can_switch_over;
    ConvergenceDecision decided;
} ConvergencePass;

/**
 * convergence_decide: decide what follows after the last pass
 *
 * @limits: what was asked for
 * @passes: all passes, or the first and the last ones, in order
 * @n: how many, at least 1
 * @decision: where to put the decision; that of the last pass is not read
 *
 * A function of its arguments only; any thread.
 */
void convergence_decide(const ConvergenceLimits *limits,
                        const ConvergencePass *passes, size_t n,
                        ConvergenceDecision *decision);

/**
 * convergence_pass_goal: when the running pass is over
 *
 * @limits: what was asked for
 * @passes: all passes that are over, in order
 * @n: how many, may be 0
 * @bandwidth: bytes/s sent now
 *
 * Like QEMU without the engine, it does not wait until everything is sent:
 * the rest may as well be sent while the guest is stopped.
 *
 * A function of its arguments only; any thread.
 *
 * Returns: pages that may be left to be sent, withheld ones not included
 */
uint64_t convergence_pass_goal(const ConvergenceLimits *limits,
                               const ConvergencePass *passes, size_t n,
                               uint64_t bandwidth);

/**
 * convergence_run_seconds: how long a throttled vCPU runs at a time
 *
 * @limits: what was asked for
 * @throttle: per cent of the time in which it does not run, 1 to 99
 *
 * Between that it is kept from running for 40 ms at most, and never for longer
 * than the downtime limit.
 *
 * A function of its arguments only; any thread.
 */
double convergence_run_seconds(const ConvergenceLimits *limits,
                               unsigned throttle);

/**
 * convergence_overdue: whether the running pass takes too long
 *
 * @limits: what was asked for
 * @passes: all passes that are over, in order
 * @n: how many, may be 0
 * @now: ms since the start of the migration
 * @decision: where to put what to do if so: post-copy or abort
 *
 * After its third pass a migration ends within 1.2 times the time that was
 * predicted then.
 *
 * A function of its arguments only; any thread.
 */
bool convergence_overdue(const ConvergenceLimits *limits,
                         const ConvergencePass *passes, size_t n,
                         uint64_t now, ConvergenceDecision *decision);

#endif
