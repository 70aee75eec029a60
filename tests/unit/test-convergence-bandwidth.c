/*
 * Unit tests for the bandwidth estimate of migration convergence
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "../../migration/convergence-bandwidth.h"

#define MS 1000000LL

static void test_none(void)
{
    ConvergenceBandwidth b = { 0 };

    g_assert_cmpuint(convergence_bandwidth_low(&b), ==, 0);
    convergence_bandwidth_add(&b, 0, 100 * MS, 0);
    convergence_bandwidth_add(&b, MiB, 0, 0);
    convergence_bandwidth_add(&b, MiB, -1, 0);
    g_assert_cmpuint(convergence_bandwidth_low(&b), ==, 0);
}

static void test_steady(void)
{
    ConvergenceBandwidth b = { 0 };

    for (int i = 0; i < 10; i++) {
        convergence_bandwidth_add(&b, 10 * MiB, 100 * MS, 0);
        g_assert_cmpfloat_with_epsilon(convergence_bandwidth_low(&b),
                                       100.0 * MiB, 1.0);
    }
}

/* A prediction from it must hold for most of the samples */
static void test_scatter(void)
{
    ConvergenceBandwidth b = { 0 };
    uint64_t low;
    int below = 0;

    for (int i = 0; i < 1000; i++) {
        uint64_t mib = g_test_rand_int_range(50, 150);

        convergence_bandwidth_add(&b, mib * MiB, 1000 * MS, 0);
        low = convergence_bandwidth_low(&b);
        if (i >= 20 && mib * MiB < low) {
            below++;
        }
    }
    g_assert_cmpint(below, <, 350);
    g_assert_cmpint(low, >, 50 * MiB);
}

/* A link that became slow is not taken for a fast one for long */
static void test_drop(void)
{
    ConvergenceBandwidth b = { 0 };

    for (int i = 0; i < 100; i++) {
        convergence_bandwidth_add(&b, 100 * MiB, 100 * MS, 0);
    }
    for (int i = 0; i < 20; i++) {
        convergence_bandwidth_add(&b, 10 * MiB, 100 * MS, 0);
    }
    g_assert_cmpuint(convergence_bandwidth_low(&b), <, 110 * MiB);
}

/* A stopped guest does not keep the sender from the CPUs, but a slow link does */
static void test_likely(void)
{
    ConvergenceBandwidth b = { 0 };

    for (int i = 0; i < CONVERGENCE_BANDWIDTH_SAMPLES; i++) {
        convergence_bandwidth_add(&b, 10 * MiB, 100 * MS, 80 * MS);
    }
    g_assert_cmpfloat_with_epsilon(convergence_bandwidth_low(&b),
                                   100.0 * MiB, 1.0);
    g_assert_cmpfloat_with_epsilon(convergence_bandwidth_likely(&b),
                                   500.0 * MiB, 1.0);

    for (int i = 0; i < CONVERGENCE_BANDWIDTH_SAMPLES; i++) {
        convergence_bandwidth_add(&b, 10 * MiB, 100 * MS, 0);
    }
    g_assert_cmpfloat_with_epsilon(convergence_bandwidth_likely(&b),
                                   100.0 * MiB, 1.0);
}

/* A few samples that are too good are not what is expected */
static void test_likely_scatter(void)
{
    ConvergenceBandwidth b = { 0 };

    for (int i = 0; i < CONVERGENCE_BANDWIDTH_SAMPLES; i++) {
        convergence_bandwidth_add(&b, 10 * MiB,
                                  i % 8 ? (10 + i) * MS : 1 * MS, 0);
    }
    g_assert_cmpuint(convergence_bandwidth_likely(&b), <, 1000 * MiB);
    g_assert_cmpuint(convergence_bandwidth_likely(&b), >,
                     convergence_bandwidth_low(&b));
}

/* What the host says of waiting may be wrong; the likely one stays finite */
static void test_waited_wrong(void)
{
    static const int64_t waited[] = { -1, INT64_MIN, 100 * MS, INT64_MAX };

    for (size_t i = 0; i < ARRAY_SIZE(waited); i++) {
        ConvergenceBandwidth b = { 0 };

        convergence_bandwidth_add(&b, 10 * MiB, 100 * MS, waited[i]);
        g_assert_cmpfloat_with_epsilon(convergence_bandwidth_likely(&b),
                                       100.0 * MiB, 1.0);
    }
}

#ifdef CONFIG_LINUX
static void *spin(void *opaque)
{
    bool *end = opaque;

    while (!qatomic_read(end)) {
        /* Only to be in the way */
    }
    return NULL;
}

/*
 * Three threads that never sleep share a CPU: this one has waited whenever it
 * has not run, which is longer than it has run
 */
static void test_waited(void)
{
    cpu_set_t before, one;
    int64_t start, cpu, waited, ns, idle;
    struct timespec ts;
    bool end = false;
    GThread *others[2];
    size_t i;

    if (!g_file_test("/proc/thread-self/schedstat", G_FILE_TEST_EXISTS)) {
        g_test_skip("this kernel does not say how long a thread has waited");
        return;
    }
    g_assert_cmpint(sched_getaffinity(0, sizeof(before), &before), ==, 0);
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    if (sched_setaffinity(0, sizeof(one), &one)) {
        g_test_skip("threads cannot be bound to a CPU");
        return;
    }
    for (i = 0; i < ARRAY_SIZE(others); i++) {
        others[i] = g_thread_new("spin", spin, &end);
    }

    start = get_clock();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    cpu = ts.tv_sec * NANOSECONDS_PER_SECOND + ts.tv_nsec;
    waited = convergence_bandwidth_waited_ns();
    do {
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
        ns = get_clock() - start;
        idle = ns - (ts.tv_sec * NANOSECONDS_PER_SECOND + ts.tv_nsec - cpu);
    } while (idle < 50 * MS && ns < 10000 * MS);
    waited = convergence_bandwidth_waited_ns() - waited;

    qatomic_set(&end, true);
    for (i = 0; i < ARRAY_SIZE(others); i++) {
        g_thread_join(others[i]);
    }
    g_assert_cmpint(sched_setaffinity(0, sizeof(before), &before), ==, 0);
    g_assert_cmpint(idle, >=, 50 * MS);
    g_assert_cmpint(waited, >, idle * 6 / 10);
    g_assert_cmpint(waited, <, idle * 14 / 10);
}
#endif

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/convergence/bandwidth/none", test_none);
    g_test_add_func("/convergence/bandwidth/steady", test_steady);
    g_test_add_func("/convergence/bandwidth/scatter", test_scatter);
    g_test_add_func("/convergence/bandwidth/drop", test_drop);
    g_test_add_func("/convergence/bandwidth/likely", test_likely);
    g_test_add_func("/convergence/bandwidth/likely-scatter",
                    test_likely_scatter);
#ifdef CONFIG_LINUX
    g_test_add_func("/convergence/bandwidth/waited", test_waited);
#endif
    g_test_add_func("/convergence/bandwidth/waited-wrong", test_waited_wrong);
    return g_test_run();
}
