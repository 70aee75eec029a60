/*
 * Migration convergence: estimate of a bandwidth
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "convergence-bandwidth.h"

void convergence_bandwidth_add(ConvergenceBandwidth *b, uint64_t bytes,
                               int64_t ns, int64_t waited_ns)
{
    size_t next = b->samples % CONVERGENCE_BANDWIDTH_SAMPLES;

    if (bytes && ns > 0) {
        if (waited_ns < 0 || waited_ns >= ns) {
            waited_ns = 0;
        }
        b->last[next] = (double)ns / bytes;
        b->last_running[next] = (double)(ns - waited_ns) / bytes;
        b->samples++;
    }
}

int64_t convergence_bandwidth_waited_ns(void)
{
    g_autofree char *text = NULL;
    int64_t waited = 0;

    /* Linux: ns on a CPU, ns waiting for one, how often it got one */
    if (g_file_get_contents("/proc/thread-self/schedstat", &text, NULL, NULL)) {
        sscanf(text, "%*s %" SCNd64, &waited);
    }
    return waited;
}

static int compare_times(const void *a, const void *b)
{
    double ta = *(const double *)a, tb = *(const double *)b;

    return ta < tb ? -1 : ta > tb;
}

/* Bytes/s, by the time that this share of the samples does not exceed */
static uint64_t quantile(const double *last, uint64_t samples, double share)
{
    size_t n = MIN(samples, CONVERGENCE_BANDWIDTH_SAMPLES);
    double sorted[CONVERGENCE_BANDWIDTH_SAMPLES];

    if (!n) {
        return 0;
    }
    memcpy(sorted, last, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), compare_times);
    return NANOSECONDS_PER_SECOND / sorted[(size_t)((n - 1) * share + 0.5)];
}

uint64_t convergence_bandwidth_low(const ConvergenceBandwidth *b)
{
    return quantile(b->last, b->samples, 0.75);
}

uint64_t convergence_bandwidth_likely(const ConvergenceBandwidth *b)
{
    return quantile(b->last_running, b->samples, 0.25);
}
