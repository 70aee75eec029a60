/*
 * Migration convergence: estimate of a bandwidth
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "qemu/timer.h"
#include "convergence-bandwidth.h"

/* RFC 6298, section 2.3 */
#define GAIN_MEAN       0.125
#define GAIN_DEVIATION  0.25

void convergence_bandwidth_add(ConvergenceBandwidth *b, uint64_t bytes,
                               int64_t ns)
{
    double sample;

    if (!bytes || ns <= 0) {
        return;
    }
    sample = (double)ns / bytes;
    if (b->samples++ == 0) {
        b->mean = sample;
        return;
    }
    b->deviation += GAIN_DEVIATION * (fabs(sample - b->mean) - b->deviation);
    b->mean += GAIN_MEAN * (sample - b->mean);
}

uint64_t convergence_bandwidth_low(const ConvergenceBandwidth *b)
{
    return b->samples ? NANOSECONDS_PER_SECOND / (b->mean + b->deviation) : 0;
}
