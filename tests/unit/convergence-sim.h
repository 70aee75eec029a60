/*
 * A simulated guest that is migrated, for tests of the convergence engine
 *
 * The guest is a process that writes to pages, the link sends pages, time
 * passes in steps of a millisecond.  Nothing is real: no time, no memory.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_UNIT_CONVERGENCE_SIM_H
#define TESTS_UNIT_CONVERGENCE_SIM_H

#include "../../migration/convergence.h"

typedef enum SimLoad {
    SIM_HOT,        /* 90 % of the writes to hot_mib, the rest anywhere */
    SIM_SWEEP,      /* page after page */
    SIM_ZIPF,       /* page k of n is written in proportion to 1 / k */
} SimLoad;

/**
 * SimGuest: what writes
 *
 * @mib: size of the memory that is written
 * @zero_mib: memory that never was
 * @rate: MiB of pages written per second; 0 is idle
 * @capacity: the same if the guest does not pause, to catch up; 0: it never
 *            pauses
 * @phase: seconds after which it writes at @phase_rate instead; 0: never
 */
typedef struct SimGuest {
    SimLoad load;
    double mib;
    double zero_mib;
    double hot_mib;
    double rate;
    double capacity;
    double phase;
    double phase_rate;
} SimGuest;

/**
 * SimLink: what sends
 *
 * @bandwidth: MiB/s before switchover
 * @stopped: MiB/s while the guest is stopped
 * @noise: relative standard deviation over 100 ms
 * @dies: seconds after which it sends nothing any more; 0: never
 * @agrees: seconds after which the destination agrees to a switchover
 */
typedef struct SimLink {
    double bandwidth;
    double stopped;
    double noise;
    double dies;
    double agrees;
} SimLink;

/**
 * SimResult: what came of it
 *
 * Times in seconds, amounts in MiB.  @pause is how long the guest had not run
 * when it was stopped, because of a throttle.  @predicted and @predicted_at are the
 * time predicted after the third pass, and the end of that pass; both are 0
 * if there were fewer passes.
 */
typedef struct SimResult {
    ConvergenceDecision end;
    size_t passes;
    double time;
    double mib;
    double lost;
    double downtime;
    double pause;
    double predicted;
    double predicted_at;
    unsigned max_throttle;
    unsigned throttle_changes;
} SimResult;

#define SIM_MAX_PASSES 2000

/**
 * sim_run: migrate
 *
 * @limits: the engine's; NULL: do as QEMU does without it, at 300 ms
 * @verbose: print each pass
 */
void sim_run(const SimGuest *guest, const SimLink *link,
             const ConvergenceLimits *limits, unsigned seed, bool verbose,
             SimResult *result);

#endif
