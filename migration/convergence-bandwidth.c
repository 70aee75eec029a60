/*
 * Migration convergence: estimate of a bandwidth
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "convergence-bandwidth.h"

void convergence_bandwidth_add(ConvergenceBandwidth *b, uint64_t bytes,
                               int64_t ns)
{
    if (bytes && ns > 0) {
        b->last[b->samples++ % CONVERGENCE_BANDWIDTH_SAMPLES] =
            (double)ns / bytes;
    }
}

static int compare_times(const void *a, const void *b)
{
    double ta = *(const double *)a, tb = *(const double *)b;

    return ta < tb ? -1 : ta > tb;
}

/* Bytes/s, by the time that this share of the samples does not exceed */
static uint64_t quantile(const ConvergenceBandwidth *b, double share)
{
    size_t n = MIN(b->samples, CONVERGENCE_BANDWIDTH_SAMPLES);
    double sorted[CONVERGENCE_BANDWIDTH_SAMPLES];

    if (!n) {
        return 0;
    }
    memcpy(sorted, b->last, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), compare_times);
    return NANOSECONDS_PER_SECOND / sorted[(size_t)((n - 1) * share + 0.5)];
}

uint64_t convergence_bandwidth_low(const ConvergenceBandwidth *b)
{
    return quantile(b, 0.75);
}

uint64_t convergence_bandwidth_likely(const ConvergenceBandwidth *b)
{
    return quantile(b, 0.5);
}
