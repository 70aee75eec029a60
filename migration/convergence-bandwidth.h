/*
 * Migration convergence: estimate of a bandwidth
 *
 * Quantiles of the last samples.  A sample is the time that a byte took, for it
 * is the time that counts for a prediction; and quantiles, as a host that is
 * busy for a moment makes a few samples very long.
 *
 * While the guest runs, it and the threads that send compete for the host's
 * CPUs; when it is stopped they do not.
 *
 * No locking; any thread, one at a time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_MIGRATION_CONVERGENCE_BANDWIDTH_H
#define QEMU_MIGRATION_CONVERGENCE_BANDWIDTH_H

/* At ten a second, about the last two seconds */
#define CONVERGENCE_BANDWIDTH_SAMPLES 16

/**
 * ConvergenceBandwidth: all zeroes is one without samples
 *
 * @samples: how many samples there were
 * @last: the last ones, ns a byte; the newest is before @samples modulo size
 * @last_running: the same, without the time that was waited for a CPU
 */
typedef struct ConvergenceBandwidth {
    uint64_t samples;
    double last[CONVERGENCE_BANDWIDTH_SAMPLES];
    double last_running[CONVERGENCE_BANDWIDTH_SAMPLES];
} ConvergenceBandwidth;

/**
 * convergence_bandwidth_add: add a sample
 *
 * @b: the estimate
 * @bytes: bytes sent; nothing happens if it is 0
 * @ns: in how many nanoseconds; nothing happens if it is not positive
 * @waited_ns: for how many of them the thread that sends was ready to run, but
 *             had no CPU of the host; not believed if it is not less than @ns
 */
void convergence_bandwidth_add(ConvergenceBandwidth *b, uint64_t bytes,
                               int64_t ns, int64_t waited_ns);

/**
 * convergence_bandwidth_waited_ns: for how many nanoseconds the calling thread
 *                                  has been ready to run, but had no CPU of
 *                                  the host, since it began; 0 if there is no
 *                                  way to know
 */
int64_t convergence_bandwidth_waited_ns(void);

/**
 * convergence_bandwidth_low: what three of four of the last samples are not
 *                            below, bytes/s; 0 without samples
 */
uint64_t convergence_bandwidth_low(const ConvergenceBandwidth *b);

/**
 * convergence_bandwidth_likely: what one of four of the last samples reaches
 *                               when the guest does not compete for the CPUs,
 *                               bytes/s; 0 without samples
 *
 * One of four, as the thread that receives waits for a CPU as well where both
 * are on the same host, and the network is shared.
 */
uint64_t convergence_bandwidth_likely(const ConvergenceBandwidth *b);

#endif
