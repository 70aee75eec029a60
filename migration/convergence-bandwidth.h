/*
 * Migration convergence: estimate of a bandwidth
 *
 * Mean and mean deviation of the time that a byte takes, smoothed as RFC 6298
 * does it for round trips.  It is the time that counts for a prediction: the
 * mean of the bandwidths would forget the slow samples.
 *
 * No locking; any thread, one at a time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_MIGRATION_CONVERGENCE_BANDWIDTH_H
#define QEMU_MIGRATION_CONVERGENCE_BANDWIDTH_H

/**
 * ConvergenceBandwidth: all zeroes is one without samples
 *
 * @samples: how many samples there were
 * @mean: smoothed mean, ns a byte
 * @deviation: smoothed mean deviation, ns a byte
 */
typedef struct ConvergenceBandwidth {
    uint64_t samples;
    double mean;
    double deviation;
} ConvergenceBandwidth;

/**
 * convergence_bandwidth_add: add a sample
 *
 * @b: the estimate
 * @bytes: bytes sent; nothing happens if it is 0
 * @ns: in how many nanoseconds; nothing happens if it is not positive
 */
void convergence_bandwidth_add(ConvergenceBandwidth *b, uint64_t bytes,
                               int64_t ns);

/**
 * convergence_bandwidth_low: what most samples are above, bytes/s
 *
 * That is, if a byte takes the deviation longer than the mean.  0 without
 * samples.
 */
uint64_t convergence_bandwidth_low(const ConvergenceBandwidth *b);

#endif
