/*
 * Unit tests of the migration convergence engine
 *
 * The rules, one by one; random measurements, whatever they are; and
 * simulated guests, against what QEMU does without the engine.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "convergence-sim.h"
#include "../../migration/convergence-model.h"

#define MIB 1048576ULL
#define PAGES(mib) ((uint64_t)((mib) * 256))

static const ConvergenceLimits default_limits = {
    .downtime_limit = 300,
    .time_limit = 100000,
    .max_slowdown = 95,
    .page_size = 4096,
};

/* What a decision must be whatever the measurements are. */
static void assert_legal(const ConvergenceLimits *limits,
                         const ConvergencePass *passes, size_t n,
                         const ConvergenceDecision *d)
{
    const ConvergencePass *last = &passes[n - 1];
    bool fits = d->downtime_fixed <= limits->downtime_limit &&
                d->downtime_copy <= limits->downtime_limit -
                                    d->downtime_fixed;
    bool final = false;
    size_t len = strnlen(d->reason, sizeof(d->reason));

    g_assert_cmpuint(len, >, 0);
    g_assert_cmpuint(len, <, sizeof(d->reason));
    g_assert_cmpint(d->reason[len - 1], !=, '.');
    g_assert_cmpuint(d->throttle, <=, MIN(limits->max_slowdown, 99));

    switch (d->action) {
    case CONVERGENCE_CONTINUE:
        g_assert_cmpuint(d->throttle, ==, 0);
        break;
    case CONVERGENCE_THROTTLE:
        g_assert_cmpuint(d->throttle, >, 0);
        break;
    case CONVERGENCE_POLISH:
        g_assert_true(fits);
        g_assert_true(d->converges);
        g_assert_cmpuint(d->predicted_downtime, <=,
                         d->downtime_fixed + d->downtime_copy);
        break;
    case CONVERGENCE_WITHHOLD:
        g_assert_true(limits->can_withhold);
        g_assert_cmpuint(d->throttle, ==, 0);
        g_assert_cmpuint(last->throttle, ==, 0);
        g_assert_cmpuint(last->pages_hot, >, 0);
        break;
    case CONVERGENCE_SWITCH_OVER:
        g_assert_true(fits);
        g_assert_true(last->can_switch_over);
        g_assert_true(d->converges);
        final = true;
        break;
    case CONVERGENCE_POSTCOPY:
        g_assert_true(limits->postcopy);
        g_assert_true(last->can_switch_over);
        g_assert_cmpuint(d->throttle, ==, 0);
        final = true;
        break;
    case CONVERGENCE_ABORT:
        g_assert_cmpuint(d->throttle, ==, 0);
        g_assert_false(d->converges);
        final = true;
        break;
    default:
        g_assert_not_reached();
    }
    /* After the third pass there is a prediction. */
    if (n >= 3 && !final) {
        g_assert_true(d->converges);
    }
}

/*
 * A history in few numbers: remaining after each pass in MiB, how long it
 * took, dirtied in it, the throttle in force; 100 MiB/s.
 */
typedef struct Row {
    double remaining;
    unsigned ms;
    double dirtied;
    unsigned throttle;
} Row;

typedef struct Case {
    const char *name;
    Row rows[8];
    ConvergenceAction action;
    const char *reason;
    unsigned stopped;           /* MiB/s, default 100 */
    unsigned likely;            /* MiB/s, default is not to be known */
    unsigned fixed_ms;          /* default 10 */
    unsigned max_slowdown;      /* default 95; 100 stands for 0 */
    unsigned time_limit;        /* ms, default 100 s */
    bool postcopy;
    bool disagrees;
    double hot;                 /* MiB */
    bool can_withhold;
    unsigned min_throttle;
    unsigned max_throttle;      /* default 99 */
} Case;

static size_t fill(const Case *c, ConvergenceLimits *limits,
                   ConvergencePass *passes)
{
    size_t n = 0;
    uint64_t now = 0;

    *limits = default_limits;
    limits->postcopy = c->postcopy;
    limits->can_withhold = c->can_withhold;
    if (c->max_slowdown) {
        limits->max_slowdown = c->max_slowdown == 100 ? 0 : c->max_slowdown;
    }
    if (c->time_limit) {
        limits->time_limit = c->time_limit;
    }
    for (const Row *r = c->rows; r->ms; r++) {
        now += r->ms;
        passes[n] = (ConvergencePass) {
            .end = now,
            .duration = r->ms,
            .bytes_sent = r->ms * MIB / 10,
            .pages_sent = PAGES(r->ms / 10.0),
            .pages_dirtied = PAGES(r->dirtied),
            .pages_remaining = PAGES(r->remaining),
            .pages_hot = PAGES(c->hot),
            .bandwidth_low = 100 * MIB,
            .switchover_bandwidth = (c->stopped ?: 100) * MIB,
            .switchover_likely = c->likely * MIB,
            .fixed_cost = (c->fixed_ms ?: 10) * 1000,
            .throttle = r->throttle,
            .can_switch_over = !c->disagrees,
        };
        n++;
        convergence_decide(limits, passes, n, &passes[n - 1].decided);
        assert_legal(limits, passes, n, &passes[n - 1].decided);
    }
    return n;
}

static const Case cases[] = {
    {
        .name = "fits",
        .rows = { { 1, 5000, 1 } },
        .action = CONVERGENCE_SWITCH_OVER,
        .reason = "stopping pre-copy: only 256 pages were modified, "
                  "predicted downtime 20 ms",
    }, {
        .name = "fits-exactly",
        .rows = { { 200, 5000, 200 }, { 29, 600, 29 } },
        .action = CONVERGENCE_SWITCH_OVER,
    }, {
        .name = "fits-not-by-one-page",
        .rows = { { 200, 5000, 200 }, { 29.004, 2000, 29 } },
        .action = CONVERGENCE_CONTINUE,
        .reason = "another pass needed: 7425 pages modified, last 51200",
    }, {
        .name = "fits-when-stopped",
        .rows = { { 200, 5000, 200 }, { 90, 2000, 90 }, { 89, 900, 80 } },
        .stopped = 2000,
        .action = CONVERGENCE_SWITCH_OVER,
    }, {
        .name = "disagrees",
        .rows = { { 1, 5000, 1 } },
        .disagrees = true,
        .action = CONVERGENCE_CONTINUE,
        .reason = "another pass needed: the destination has not agreed to "
                  "the switchover yet, predicted downtime 20 ms",
    }, {
        .name = "disagrees-throttled",
        .rows = { { 1, 5000, 1, 50 } },
        .disagrees = true,
        .action = CONVERGENCE_THROTTLE,
        .min_throttle = 50,
        .max_throttle = 50,
    }, {
        .name = "first-pass-is-no-evidence",
        .rows = { { 200, 5000, 200 } },
        .action = CONVERGENCE_CONTINUE,
        .reason = "another pass needed: 51200 pages modified",
    }, {
        .name = "first-pass-rewritten",
        .rows = { { 500, 5000, 480 } },
        .action = CONVERGENCE_THROTTLE,
        .min_throttle = 95,
    }, {
        .name = "first-pass-rewritten-no-slowdown",
        .rows = { { 500, 5000, 480 } },
        .max_slowdown = 100,
        .action = CONVERGENCE_CONTINUE,
    }, {
        .name = "first-pass-hopeless",
        .rows = { { 11000, 200000, 100 } },
        .action = CONVERGENCE_ABORT,
        .reason = "predicted 110.0 s of copy at any throttle, limit 100.0 s; "
                  "remaining 11000 MiB, dirty rate 0 MiB/s, "
                  "bandwidth 100 MiB/s",
    }, {
        .name = "first-pass-hopeless-postcopy",
        .rows = { { 11000, 200000, 100 } },
        .postcopy = true,
        .action = CONVERGENCE_POSTCOPY,
    }, {
        .name = "hopeless-postcopy-disagrees",
        .rows = { { 11000, 200000, 100 } },
        .postcopy = true,
        .disagrees = true,
        .action = CONVERGENCE_ABORT,
    }, {
        .name = "shrinks",
        .rows = { { 200, 5000, 200 }, { 110, 2000, 110 }, { 60, 1100, 60 } },
        .action = CONVERGENCE_CONTINUE,
        .reason = "another pass needed: 15360 pages modified, last 28160",
    }, {
        .name = "plateau",
        .rows = { { 200, 5000, 200 }, { 130, 2000, 130 },
                  { 125, 1300, 125 } },
        .action = CONVERGENCE_THROTTLE,
        .min_throttle = 20,
    }, {
        .name = "plateau-no-slowdown",
        .rows = { { 200, 5000, 200 }, { 130, 2000, 130 },
                  { 131, 1300, 131 } },
        .max_slowdown = 100,
        .action = CONVERGENCE_ABORT,
        .reason = "predicted not to converge at 0 % throttle; remaining "
                  "131 MiB, dirty rate 101 MiB/s, bandwidth 100 MiB/s",
    }, {
        .name = "plateau-slowdown-limited",
        .rows = { { 200, 5000, 200 }, { 130, 2000, 130 },
                  { 125, 1300, 125 } },
        .max_slowdown = 30,
        .action = CONVERGENCE_THROTTLE,
        .max_throttle = 30,
    }, {
        .name = "throttle-no-stronger-than-pays",
        .rows = { { 80, 5000, 80 }, { 60, 800, 40 }, { 58, 580, 35 } },
        .max_slowdown = 99,
        .action = CONVERGENCE_THROTTLE,
        .min_throttle = 50,
        .max_throttle = 95,
    }, {
        .name = "throttle-strongest-for-all-rewritten",
        .rows = { { 500, 5000, 480 } },
        .max_slowdown = 99,
        .action = CONVERGENCE_THROTTLE,
        .min_throttle = 99,
    }, {
        .name = "throttle-strongest-if-no-other-will-do",
        .rows = { { 500, 5000, 480 }, { 500, 5000, 500, 95 },
                  { 490, 5000, 490, 95 } },
        .max_slowdown = 99,
        .stopped = 1000,
        .action = CONVERGENCE_THROTTLE,
        .min_throttle = 96,
        .max_throttle = 98,
    }, {
        .name = "throttle-works-hold",
        .rows = { { 300, 5000, 300 }, { 285, 3000, 285 },
                  { 270, 2850, 270 }, { 120, 2700, 120, 50 } },
        .action = CONVERGENCE_THROTTLE,
        .reason = "another pass needed: 30720 pages modified, last 69120; "
                  "still slowed down by 50 %",
        .min_throttle = 50,
        .max_throttle = 50,
    }, {
        .name = "throttle-without-effect",
        .rows = { { 200, 5000, 200 }, { 130, 2000, 130 },
                  { 125, 1300, 125 }, { 120, 1250, 121, 60 } },
        .action = CONVERGENCE_THROTTLE,
        .min_throttle = 80,
    }, {
        .name = "throttle-at-most-and-no-progress",
        .rows = { { 200, 5000, 200 }, { 130, 2000, 130 },
                  { 135, 1300, 135, 95 }, { 150, 1350, 150, 95 } },
        .action = CONVERGENCE_ABORT,
        .reason = "predicted not to converge at 95 % throttle; remaining "
                  "150 MiB, dirty rate 111 MiB/s, bandwidth 100 MiB/s",
    }, {
        .name = "throttle-at-most-and-no-progress-postcopy",
        .rows = { { 200, 5000, 200 }, { 130, 2000, 130 },
                  { 135, 1300, 135, 95 }, { 150, 1350, 150, 95 } },
        .postcopy = true,
        .action = CONVERGENCE_POSTCOPY,
    }, {
        .name = "throttle-may-go-down",
        .rows = { { 900, 10000, 800 }, { 800, 9000, 800 },
                  { 700, 8000, 3, 95 } },
        .action = CONVERGENCE_CONTINUE,
    }, {
        .name = "polish",
        .rows = { { 200, 50000, 200 }, { 20, 2000, 8 } },
        .action = CONVERGENCE_POLISH,
        .reason = "another pass: it is predicted to reduce the downtime from "
                  "211 to 19 ms",
    }, {
        .name = "polish-not-what-is-likely-to-be-short",
        .rows = { { 200, 50000, 200 }, { 20, 2000, 8 } },
        .likely = 2000,
        .action = CONVERGENCE_SWITCH_OVER,
        .reason = "stopping pre-copy: only 5120 pages were modified, "
                  "predicted downtime 20 ms",
    }, {
        .name = "polish-not-for-a-sixth-of-it",
        .rows = { { 270, 5140, 270 }, { 198, 2370, 175 } },
        .stopped = 1000,
        .likely = 2000,
        .action = CONVERGENCE_SWITCH_OVER,
        .reason = "stopping pre-copy: only 50688 pages were modified, "
                  "predicted downtime 109 ms",
    }, {
        .name = "polish-not-for-too-much-time",
        .rows = { { 200, 5000, 200 }, { 29, 600, 29 } },
        .action = CONVERGENCE_SWITCH_OVER,
    }, {
        .name = "polish-not-for-nothing",
        .rows = { { 200, 50000, 200 }, { 4, 2000, 4 } },
        .stopped = 2000,
        .action = CONVERGENCE_SWITCH_OVER,
    }, {
        .name = "polish-as-long-as-without-the-engine",
        .rows = { { 60, 10000, 40 } },
        .stopped = 2000,
        .action = CONVERGENCE_POLISH,
    }, {
        .name = "polish-as-long-as-passes-shrink",
        .rows = { { 90, 10000, 40 }, { 60, 900, 26 } },
        .stopped = 2000,
        .action = CONVERGENCE_POLISH,
    }, {
        .name = "polish-not-if-passes-do-not-shrink",
        .rows = { { 50, 10000, 40 }, { 44, 600, 26 } },
        .stopped = 2000,
        .action = CONVERGENCE_SWITCH_OVER,
    }, {
        .name = "polish-not-for-less-than-a-hundredth",
        .rows = { { 159, 5868, 137 }, { 84, 1241, 75 } },
        .stopped = 1900,
        .likely = 2800,
        .action = CONVERGENCE_SWITCH_OVER,
    }, {
        .name = "throttled-for-the-guest",
        .rows = { { 200, 5000, 200 }, { 100, 2000, 100 },
                  { 1, 1000, 1, 95 } },
        .action = CONVERGENCE_SWITCH_OVER,
        .reason = "stopping pre-copy: only 256 pages were modified, "
                  "predicted downtime 39 ms",
    }, {
        .name = "fixed-cost-over-the-limit",
        .rows = { { 200, 5000, 200 }, { 50, 2000, 50 }, { 20, 500, 20 } },
        .fixed_ms = 301,
        .action = CONVERGENCE_ABORT,
        .reason = "stopping the guest without any memory is predicted to "
                  "take 301 ms, limit 300 ms; remaining 20 MiB, dirty rate "
                  "40 MiB/s, bandwidth 100 MiB/s",
    }, {
        .name = "fixed-cost-over-the-limit-postcopy",
        .rows = { { 200, 5000, 200 }, { 50, 2000, 50 }, { 20, 500, 20 } },
        .fixed_ms = 301,
        .postcopy = true,
        .action = CONVERGENCE_ABORT,
    }, {
        .name = "time-limit",
        .rows = { { 900, 5000, 450 }, { 500, 9000, 500 },
                  { 495, 5000, 495 } },
        .time_limit = 4000,
        .action = CONVERGENCE_ABORT,
        .reason = "predicted 5.0 s of copy at any throttle, limit 4.0 s; "
                  "remaining 495 MiB, dirty rate 99 MiB/s, "
                  "bandwidth 100 MiB/s",
    }, {
        .name = "time-limit-throttled",
        .rows = { { 1000, 100000, 6900 }, { 1000, 10000, 930 },
                  { 1000, 1000, 93, 95 } },
        .action = CONVERGENCE_ABORT,
        .reason = "predicted 124.0 s of copy at 95 % throttle, limit 100.0 s; "
                  "remaining 1000 MiB, dirty rate 93 MiB/s, "
                  "bandwidth 100 MiB/s",
    }, {
        .name = "withhold",
        .rows = { { 200, 5000, 200 }, { 100, 2000, 100 } },
        .hot = 12,
        .can_withhold = true,
        .action = CONVERGENCE_WITHHOLD,
        .reason = "another pass needed: 25600 pages modified, last 51200; "
                  "without 3072 that are written all the time",
    }, {
        .name = "withhold-not-if-it-cannot",
        .rows = { { 200, 5000, 200 }, { 100, 2000, 100 } },
        .hot = 12,
        .action = CONVERGENCE_CONTINUE,
    }, {
        .name = "withhold-not-more-than-half-the-downtime",
        .rows = { { 200, 5000, 200 }, { 100, 2000, 100 } },
        .hot = 15,
        .can_withhold = true,
        .action = CONVERGENCE_CONTINUE,
    }, {
        .name = "withhold-not-few",
        .rows = { { 200, 5000, 200 }, { 100, 2000, 100 } },
        .hot = 5,
        .can_withhold = true,
        .action = CONVERGENCE_CONTINUE,
    }, {
        .name = "withhold-not-throttled",
        .rows = { { 200, 5000, 200 }, { 100, 2000, 100, 50 } },
        .hot = 12,
        .can_withhold = true,
        .action = CONVERGENCE_THROTTLE,
    }, {
        .name = "late",
        .rows = { { 200, 5000, 200 }, { 100, 2000, 100 },
                  { 50, 1000, 50 }, { 40, 9000, 40 } },
        .action = CONVERGENCE_ABORT,
    }, {
        .name = "late-but-fits",
        .rows = { { 200, 5000, 200 }, { 100, 2000, 100 },
                  { 50, 1000, 50 }, { 2, 9000, 2 } },
        .action = CONVERGENCE_SWITCH_OVER,
    },
};

static void test_case(const void *opaque)
{
    const Case *c = opaque;
    ConvergenceLimits limits;
    ConvergencePass passes[G_N_ELEMENTS(c->rows)];
    size_t n = fill(c, &limits, passes);
    const ConvergenceDecision *d = &passes[n - 1].decided;

    g_test_message("throttle %u: %s", d->throttle, d->reason);
    if (c->reason) {
        g_assert_cmpstr(d->reason, ==, c->reason);
    }
    g_assert_cmpint(d->action, ==, c->action);
    g_assert_cmpuint(d->throttle, >=, c->min_throttle);
    g_assert_cmpuint(d->throttle, <=, c->max_throttle ?: 99);
}

/* The same arguments give the same decision, and its old value is not read. */
static void test_pure(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        ConvergenceLimits limits;
        ConvergencePass passes[G_N_ELEMENTS(cases[0].rows)];
        size_t n = fill(&cases[i], &limits, passes);
        ConvergenceDecision first = passes[n - 1].decided, again;

        memset(&passes[n - 1].decided, 0xa5, sizeof(again));
        passes[n - 1].decided.action = CONVERGENCE_SWITCH_OVER;
        convergence_decide(&limits, passes, n, &again);
        g_assert_cmpint(again.action, ==, first.action);
        g_assert_cmpuint(again.throttle, ==, first.throttle);
        g_assert_cmpuint(again.predicted_time, ==, first.predicted_time);
        g_assert_cmpstr(again.reason, ==, first.reason);
    }
}

static void fit(const Case *c, ConvergenceModel *model)
{
    ConvergenceLimits limits;
    ConvergencePass passes[G_N_ELEMENTS(c->rows)];
    size_t n = fill(c, &limits, passes);

    passes[n - 1].sync_time = 2000;
    convergence_model_fit(model, &limits, passes, n);
}

/* What throttles did, and what shorter passes would do. */
static void test_model(void)
{
    /* The same rate whatever the time: a sweep; halved by 50 %. */
    Case sweep = { .rows = { { 300, 5000, 300 }, { 270, 3000, 270 },
                             { 90, 1000, 90 }, { 45, 1000, 45, 50 } } };
    /* 75 % is as if it were 50 %: half of the time was not needed */
    Case half = { .rows = { { 300, 5000, 300 }, { 270, 3000, 270 },
                            { 90, 1000, 90 }, { 45, 1000, 45, 75 } } };
    /* The same pages whatever the time; the throttle does nothing. */
    Case set = { .rows = { { 200, 5000, 200 }, { 90, 3000, 90 },
                           { 90, 1000, 90 }, { 90, 1000, 90, 80 } } };
    Case none = { .rows = { { 0, 5000, 0 } }, .stopped = 1000 };
    ConvergenceModel m;
    ConvergencePass pass;

    fit(&sweep, &m);
    g_assert_cmpfloat(m.exponent, >, 0.9);
    g_assert_cmpfloat(m.slack, <, 0.1);
    g_assert_false(m.effect_unknown);
    g_assert_cmpfloat(fabs(convergence_model_speed(&m, 50) - 0.5), <, 0.06);
    /* PAGES(90) in a second at full speed */
    g_assert_cmpfloat(fabs(convergence_model_dirtied(&m, 1, 0) / PAGES(90) -
                           1), <, 0.1);

    fit(&half, &m);
    g_assert_cmpfloat(fabs(m.slack - 0.5), <, 0.1);
    g_assert_false(m.effect_unknown);
    g_assert_cmpfloat(convergence_model_speed(&m, 30), ==, 1);
    g_assert_cmpfloat(convergence_model_speed(&m, 255), >, 0);
    g_assert_cmpfloat(convergence_model_speed(&m, 255), <, 0.05);

    fit(&set, &m);
    g_assert_cmpfloat(m.exponent, <, 0.5);
    g_assert_cmpfloat(fabs(m.slack - 0.8), <, 0.01);
    g_assert_true(m.effect_unknown);

    fit(&none, &m);
    g_assert_cmpfloat(fabs(m.page_rate / PAGES(100) - 1), <, 0.01);
    g_assert_cmpfloat(fabs(m.stop_rate / PAGES(1000) - 1), <, 0.01);
    g_assert_cmpfloat(fabs(m.fixed - 0.012), <, 0.00001);
    g_assert_true(m.effect_unknown);

    pass = (ConvergencePass) { .bytes_sent = 1 };
    convergence_model_fit(&m, &default_limits, &pass, 1);
    g_assert_true(isfinite(m.page_rate_mean));
    g_assert_cmpfloat(m.page_rate, >, 0);
    g_assert_cmpfloat(m.stop_rate, >, 0);
    g_assert_cmpfloat(m.anchor_time, >, 0);
    g_assert_cmpfloat(m.anchor_pages, >, 0);
}

/* To wait for a throttled vCPU is no part of stopping it. */
static void test_model_fixed(void)
{
    ConvergencePass passes[] = {
        { .sync_time = 90000, .fixed_cost = 8000 },
        { .sync_time = 2000, .fixed_cost = 8000 },
        { .sync_time = 41000, .fixed_cost = 8000, .throttle = 95 },
        { .sync_time = 42000, .fixed_cost = 9000, .throttle = 95 },
        { .sync_time = 1000, .fixed_cost = 8000, .throttle = 95 },
    };

    g_assert_cmpfloat(convergence_model_fixed(passes, 1), ==, 0.098);
    g_assert_cmpfloat(convergence_model_fixed(passes, 2), ==, 0.010);
    g_assert_cmpfloat(convergence_model_fixed(passes, 3), ==, 0.010);
    g_assert_cmpfloat(convergence_model_fixed(passes, 4), ==, 0.011);
    g_assert_cmpfloat(convergence_model_fixed(passes, 5), ==, 0.009);
    /* Nothing else is known */
    g_assert_cmpfloat(convergence_model_fixed(&passes[2], 1), ==, 0.049);
}

/* What is withheld remains, or is sent and written again. */
static void test_model_withheld(void)
{
    Case c = { .rows = { { 200, 5000, 200 }, { 50, 1000, 30 } } };
    ConvergenceLimits limits;
    ConvergencePass passes[G_N_ELEMENTS(c.rows)];
    ConvergenceModel m;
    size_t n = fill(&c, &limits, passes);
    double seconds, time;

    passes[n - 1].pages_withheld = PAGES(10);
    convergence_model_fit(&m, &limits, passes, n);
    time = m.anchor_time;
    g_assert_cmpfloat(fabs(convergence_model_dirtied(&m, time, 0) / PAGES(30) -
                           1), <, 0.01);
    g_assert_cmpfloat(fabs(convergence_model_dirtied(&m, time, 1) / PAGES(40) -
                           1), <, 0.02);
    /* All of 50 MiB is sent, and no more than a tenth is written again */
    g_assert_cmpfloat(convergence_model_pass(&m, m.remaining, 99, true,
                                             &seconds), <, PAGES(5));
    g_assert_cmpfloat(convergence_model_pass(&m, m.remaining, 0, true,
                                             &seconds), >, PAGES(10));
}

/* Pauses of 40 ms and of the downtime limit at most. */
static void test_slices(void)
{
    const uint64_t downtimes[] = { 0, 1, 20, 50, 300, UINT64_MAX };

    for (size_t i = 0; i < G_N_ELEMENTS(downtimes); i++) {
        ConvergenceLimits limits = { .downtime_limit = downtimes[i] };
        double longest = MAX(MIN(downtimes[i], 40), 1) / 1e3;

        for (unsigned throttle = 1; throttle <= 99; throttle++) {
            double run = convergence_run_seconds(&limits, throttle);

            g_assert_cmpfloat(run, >, 0);
            g_assert_cmpfloat(run, <=, 0.005);
            g_assert_cmpfloat(run * throttle / (100 - throttle), <=,
                              longest * 1.000001);
        }
    }
}

/* A polish pass follows a polish pass four times, and no more. */
static void test_polish_ends(void)
{
    ConvergencePass passes[8] = {};
    Case c = { .rows = { { 200, 50000, 200 }, { 20, 2000, 8 } } };
    ConvergenceLimits limits;
    size_t n = fill(&c, &limits, passes);

    while (passes[n - 1].decided.action == CONVERGENCE_POLISH) {
        g_assert_cmpuint(n, <, G_N_ELEMENTS(passes));
        passes[n] = passes[n - 1];
        passes[n].duration = 10;
        passes[n].pages_dirtied = PAGES(0.04);
        passes[n].end += 10;
        n++;
        convergence_decide(&limits, passes, n, &passes[n - 1].decided);
    }
    g_assert_cmpint(passes[n - 1].decided.action, ==,
                    CONVERGENCE_SWITCH_OVER);
    g_assert_cmpuint(n, ==, 2 + 4);
}

static void test_goal(void)
{
    ConvergencePass passes[8];
    Case big = { .rows = { { 200, 5000, 200 } } };
    Case small = { .rows = { { 40, 5000, 40 } } };
    Case polish = { .rows = { { 200, 50000, 200 }, { 20, 2000, 8 } } };
    ConvergenceLimits limits = default_limits;
    size_t n;

    /* 90 % of the limit, and then less what is fixed */
    g_assert_cmpuint(convergence_pass_goal(&limits, NULL, 0, 100 * MIB), ==,
                     PAGES(27));
    n = fill(&big, &limits, passes);
    g_assert_cmpuint(convergence_pass_goal(&limits, passes, n, 100 * MIB),
                     ==, PAGES(26));
    /* Half of it at least is sent. */
    n = fill(&small, &limits, passes);
    g_assert_cmpuint(convergence_pass_goal(&limits, passes, n, 100 * MIB),
                     ==, PAGES(20));
    n = fill(&polish, &limits, passes);
    g_assert_cmpint(passes[n - 1].decided.action, ==, CONVERGENCE_POLISH);
    g_assert_cmpuint(convergence_pass_goal(&limits, passes, n, 100 * MIB),
                     ==, 0);
    g_assert_cmpuint(convergence_pass_goal(&limits, passes, n, 0), ==, 0);
}

static void test_overdue(void)
{
    ConvergencePass passes[8];
    Case c = { .rows = { { 200, 5000, 200 }, { 110, 2000, 110 },
                         { 60, 1100, 60 } } };
    ConvergenceLimits limits;
    size_t n = fill(&c, &limits, passes);
    uint64_t end = passes[2].end, time = passes[2].decided.predicted_time;
    ConvergenceDecision d;

    g_assert_true(passes[2].decided.converges);
    g_assert_false(convergence_overdue(&limits, NULL, 0, UINT64_MAX, &d));
    g_assert_false(convergence_overdue(&limits, passes, n, end, &d));
    g_assert_false(convergence_overdue(&limits, passes, n, end + time, &d));
    g_assert_true(convergence_overdue(&limits, passes, n,
                                      end + time * 12 / 10, &d));
    g_assert_cmpint(d.action, ==, CONVERGENCE_ABORT);
    limits.postcopy = true;
    g_assert_true(convergence_overdue(&limits, passes, n,
                                      end + time * 12 / 10, &d));
    g_assert_cmpint(d.action, ==, CONVERGENCE_POSTCOPY);
    passes[3] = passes[2];
    passes[3].can_switch_over = false;
    g_assert_true(convergence_overdue(&limits, passes, n + 1,
                                      end + time * 12 / 10, &d));
    g_assert_cmpint(d.action, ==, CONVERGENCE_ABORT);

    /* Before the third pass ends, the limit is all there is. */
    g_assert_false(convergence_overdue(&limits, passes, 1,
                                       passes[0].end + 100000, &d));
    g_assert_true(convergence_overdue(&limits, passes, 1,
                                      passes[0].end + 120000, &d));

    /* Nobody carries out what is decided: nothing was promised. */
    passes[1].decided.action = CONVERGENCE_SWITCH_OVER;
    g_assert_false(convergence_overdue(&limits, passes, n, UINT64_MAX, &d));
}

/* Nobody throttles the guest: nothing was promised, but it is decided. */
static void test_observed(void)
{
    ConvergencePass passes[8] = {};
    Case c = { .rows = { { 500, 5000, 480 }, { 500, 5000, 500 },
                         { 500, 5000, 500 }, { 500, 900000, 500 } } };
    ConvergenceLimits limits;
    size_t n = fill(&c, &limits, passes);
    ConvergenceDecision d;

    g_assert_cmpint(passes[0].decided.action, ==, CONVERGENCE_THROTTLE);
    g_assert_cmpint(passes[3].decided.action, ==, CONVERGENCE_THROTTLE);
    g_assert_false(convergence_overdue(&limits, passes, n, UINT64_MAX, &d));
    /* The same, carried out: it is late. */
    c.rows[1].throttle = 95;
    c.rows[2].throttle = 95;
    c.rows[3].throttle = 95;
    c.rows[1].remaining = c.rows[1].dirtied = 400;
    c.rows[2].remaining = c.rows[2].dirtied = 300;
    fill(&c, &limits, passes);
    g_assert_cmpint(passes[3].decided.action, ==, CONVERGENCE_ABORT);
}

/*
 * The destination agrees late, when what remains does not fit any more:
 * nothing was promised for that, and the passes begin to count then.
 */
static void test_agrees_late(void)
{
    ConvergencePass passes[8] = {};
    Case c = { .rows = { { 1, 5000, 1 }, { 1, 10, 1 }, { 1, 10, 1 },
                         { 1, 9000, 1 } }, .disagrees = true };
    ConvergenceLimits limits;
    size_t n = fill(&c, &limits, passes);

    passes[n] = passes[n - 1];
    passes[n].can_switch_over = true;
    passes[n].pages_remaining = PAGES(40);
    passes[n].pages_dirtied = PAGES(40);
    n++;
    convergence_decide(&limits, passes, n, &passes[n - 1].decided);
    assert_legal(&limits, passes, n, &passes[n - 1].decided);
    g_assert_cmpint(passes[n - 1].decided.action, !=, CONVERGENCE_ABORT);
}

/*
 * What a throttle does is not known before it was tried: time to try more
 * than one is part of what is predicted.
 */
static void test_reserve(void)
{
    ConvergencePass passes[8] = {};
    Case c = { .rows = { { 200, 5000, 200 }, { 130, 2000, 130 },
                         { 125, 1300, 125 } } };
    ConvergenceLimits limits;
    size_t n = fill(&c, &limits, passes);

    g_assert_cmpint(passes[n - 1].decided.action, ==, CONVERGENCE_THROTTLE);
    g_assert_cmpuint(passes[n - 1].decided.predicted_time, >, 3 * 1250);
}

/* The destination does not agree: wait for it, but not for ever. */
static void test_never_agrees(void)
{
    g_autofree ConvergencePass *passes = g_new0(ConvergencePass, 2000);
    Case c = { .rows = { { 1, 5000, 1 } }, .disagrees = true };
    ConvergenceLimits limits;
    size_t n = fill(&c, &limits, passes);

    while (passes[n - 1].decided.action == CONVERGENCE_CONTINUE) {
        g_assert_cmpuint(n, <, 2000);
        passes[n] = passes[n - 1];
        passes[n].duration = 100;
        passes[n].end += 100;
        n++;
        convergence_decide(&limits, passes, n, &passes[n - 1].decided);
    }
    g_assert_cmpint(passes[n - 1].decided.action, ==, CONVERGENCE_ABORT);
    g_assert_cmpuint(passes[n - 1].end, >, 100000);
    g_assert_cmpuint(passes[n - 1].end, <, 130000);
}

/* Random measurements, absurd ones as well. */

static uint64_t absurd(GRand *rand, uint64_t usual)
{
    switch (g_rand_int_range(rand, 0, 8)) {
    case 0:
        return 0;
    case 1:
        return 1;
    case 2:
        return UINT64_MAX - g_rand_int_range(rand, 0, 2);
    case 3:
        return (uint64_t)g_rand_int(rand) << g_rand_int_range(rand, 0, 33);
    default:
        return g_rand_double(rand) * 2 * usual;
    }
}

static void test_absurd(void)
{
    GRand *rand = g_rand_new_with_seed(5);
    size_t seen[CONVERGENCE_ABORT + 1] = {};
    ConvergencePass passes[12];
    ConvergenceDecision d;

    for (int i = 0; i < 20000; i++) {
        ConvergenceLimits limits = {
            .downtime_limit = absurd(rand, 300),
            .time_limit = absurd(rand, 100000),
            .max_slowdown = absurd(rand, 64),
            .page_size = absurd(rand, 4096),
            .postcopy = g_rand_boolean(rand),
            .can_withhold = g_rand_boolean(rand),
        };
        size_t n = g_rand_int_range(rand, 1, G_N_ELEMENTS(passes) + 1);

        for (size_t k = 0; k < n; k++) {
            passes[k] = (ConvergencePass) {
                .end = absurd(rand, 5000 + k * 1000),
                .duration = absurd(rand, 1000),
                .sync_time = absurd(rand, 1000),
                .bytes_sent = absurd(rand, 100 * MIB),
                .pages_sent = absurd(rand, 25600),
                .pages_dirtied = absurd(rand, 20000),
                .pages_hot = absurd(rand, 2000),
                .pages_withheld = absurd(rand, 2000),
                .pages_remaining = absurd(rand, 20000),
                .bandwidth_low = absurd(rand, 100 * MIB),
                .switchover_bandwidth = absurd(rand, 500 * MIB),
                .switchover_likely = absurd(rand, 1000 * MIB),
                .fixed_cost = absurd(rand, 10000),
                .throttle = absurd(rand, 50),
                .can_switch_over = g_rand_int_range(rand, 0, 4) > 0,
            };
            convergence_decide(&limits, passes, k + 1, &passes[k].decided);
            assert_legal(&limits, passes, k + 1, &passes[k].decided);
            seen[passes[k].decided.action]++;
            if (convergence_overdue(&limits, passes, k + 1,
                                    absurd(rand, 10000), &d)) {
                g_assert_true(d.action == CONVERGENCE_POSTCOPY ||
                              d.action == CONVERGENCE_ABORT);
            }
            convergence_pass_goal(&limits, passes, k + 1,
                                  absurd(rand, 100 * MIB));
        }
    }
    /* All decisions are reached. */
    for (size_t a = 0; a < G_N_ELEMENTS(seen); a++) {
        g_test_message("decision %zu: %zu times", a, seen[a]);
        g_assert_cmpuint(seen[a], >, 0);
    }
    g_rand_free(rand);
}

/* Simulated guests */

#define FAST { 100, 2000, 0.05 }
#define SLOW { 100, 100, 0.05 }
#define HOT(r) { SIM_HOT, 512, 512, 64, r, 2048 }
#define IDLE { SIM_HOT, 512, 512, 64, 0 }

/*
 * What it may cost: s, MiB, seconds lost, longest gap in ms; the first two
 * may be ratios to what QEMU does without the engine.
 */
typedef struct SimCase {
    const char *name;
    SimGuest guest;
    SimLink link;
    double seconds, mib, lost, gap;
    double seconds_ratio, mib_ratio, gap_ratio;
} SimCase;

static const SimCase sim_cases[] = {
    /* Loads that converge anyway: 1.03 of the default, downtime no longer */
    { "idle", IDLE, FAST, .seconds_ratio = 1.03, .mib_ratio = 1.03,
      .gap_ratio = 1.1 },
    { "hot-20", HOT(20), FAST, .seconds_ratio = 1.03, .mib_ratio = 1.03,
      .gap_ratio = 1.1 },
    { "hot-80", HOT(80), FAST, .seconds_ratio = 1.03, .mib_ratio = 1.03,
      .gap_ratio = 1.2 },
    { "zipf-100", { SIM_ZIPF, 1024, 0, 0, 100, 2048 }, FAST,
      .seconds_ratio = 1.03, .mib_ratio = 1.03, .gap_ratio = 1.2 },
    { "idle-slow", IDLE, SLOW, .seconds_ratio = 1.03, .mib_ratio = 1.03,
      .gap_ratio = 0.2 },
    { "hot-20-slow", HOT(20), SLOW, .seconds_ratio = 1.03,
      .mib_ratio = 1.03, .gap_ratio = 0.5 },
    { "hot-80-slow", HOT(80), SLOW, .seconds_ratio = 1.03,
      .mib_ratio = 1.03, .gap_ratio = 1.1 },
    /* Loads that the default never ends */
    { "hot-150", HOT(150), FAST, 9, 900, 0.35, 100 },
    { "hot-400", HOT(400), FAST, 9, 900, 1.9, 100 },
    { "hot-150-slow", HOT(150), SLOW, 9.5, 940, 0.9, 300 },
    { "hot-400-slow", HOT(400), SLOW, 12, 1150, 2.5, 300 },
    { "sweep", { SIM_SWEEP, 1024, 0, 0, 1000, 0 }, FAST, 22, 2600, 11, 300 },
    { "sweep-slow", { SIM_SWEEP, 1024, 0, 0, 1000, 0 }, SLOW,
      32, 3200, 22, 300 },
    { "zipf-400-slow", { SIM_ZIPF, 1024, 0, 0, 400, 2048 }, SLOW,
      30, 3000, 6, 300 },
    { "phase-up-slow", { SIM_HOT, 512, 512, 64, 20, 2048, 5.4, 400 }, SLOW,
      10, 1000, 5, 300 },
    { "phase-down-slow", { SIM_HOT, 512, 512, 64, 400, 2048, 8, 20 }, SLOW,
      10, 1000, 1, 300 },
};

/* Milliseconds in which the guest does not run */
static double prediction_error(const SimResult *r)
{
    return ABS((r->pause + r->downtime) * 1e3 - r->end.predicted_downtime);
}

static void test_sim(const void *opaque)
{
    const SimCase *c = opaque;
    SimResult r, base;

    sim_run(&c->guest, &c->link, &default_limits, 1, g_test_verbose(), &r);
    g_test_message("%.2f s, %.0f MiB, %.2f s lost, downtime %.0f ms, "
                   "%zu passes", r.time, r.mib, r.lost, r.downtime * 1e3,
                   r.passes);
    g_assert_cmpint(r.end.action, ==, CONVERGENCE_SWITCH_OVER);
    g_assert_cmpfloat(prediction_error(&r), <, 50);
    if (c->seconds) {
        g_assert_cmpfloat(r.time, <=, c->seconds);
        g_assert_cmpfloat(r.mib, <=, c->mib);
        g_assert_cmpfloat(r.lost, <=, c->lost);
        g_assert_cmpfloat(r.downtime * 1e3, <=, c->gap);
    } else {
        sim_run(&c->guest, &c->link, NULL, 1, false, &base);
        g_test_message("default: %.2f s, %.0f MiB, downtime %.0f ms",
                       base.time, base.mib, base.downtime * 1e3);
        g_assert_cmpint(base.end.action, ==, CONVERGENCE_SWITCH_OVER);
        g_assert_cmpfloat(r.time, <=, base.time * c->seconds_ratio);
        g_assert_cmpfloat(r.mib, <=, base.mib * c->mib_ratio);
        g_assert_cmpfloat(r.downtime, <=, base.downtime * c->gap_ratio);
        g_assert_cmpuint(r.max_throttle, ==, 0);
    }
}

/* A guest that even the strongest throttle leaves too fast for the link. */
static void test_sim_fallback(void)
{
    SimGuest guest = { SIM_SWEEP, 512, 0, 0, 1000, 4000 };
    SimLink link = SLOW;
    ConvergenceLimits limits = default_limits;
    SimResult r;

    sim_run(&guest, &link, &limits, 1, g_test_verbose(), &r);
    g_assert_cmpint(r.end.action, ==, CONVERGENCE_ABORT);
    g_assert_cmpuint(r.passes, >=, 3);
    g_assert_cmpuint(r.max_throttle, ==, 95);
    g_test_message("%s", r.end.reason);
    limits.postcopy = true;
    sim_run(&guest, &link, &limits, 1, g_test_verbose(), &r);
    g_assert_cmpint(r.end.action, ==, CONVERGENCE_POSTCOPY);
}

static void test_sim_dead_link(void)
{
    SimGuest guest = HOT(80);
    SimLink link = SLOW;
    SimResult r;

    link.dies = 6;
    sim_run(&guest, &link, &default_limits, 1, g_test_verbose(), &r);
    g_assert_cmpint(r.end.action, ==, CONVERGENCE_ABORT);
    g_assert_cmpfloat(r.time, <, 6 + 120);
}

static double between(GRand *rand, double low, double high)
{
    return low * pow(high / low, g_rand_double(rand));
}

/*
 * Any guest on any link: it ends, within 1.2 times what was predicted after
 * the third pass, with the downtime that was predicted.
 */
static void test_sim_random(void)
{
    int rounds = g_test_slow() ? 2000 : 150, ended[CONVERGENCE_ABORT + 1] = {};
    int late = 0, exact = 0;

    for (int i = 0; i < rounds; i++) {
        GRand *rand = g_rand_new_with_seed(i);
        double mib = between(rand, 4, 256), rate = between(rand, 1, 1000);
        double bandwidth = between(rand, 10, 200);
        SimGuest guest = {
            .load = g_rand_int_range(rand, 0, 3),
            .mib = mib,
            .hot_mib = mib * g_rand_double(rand),
            .rate = rate,
            .capacity = g_rand_boolean(rand) ?
                        rate * between(rand, 1, 30) : 0,
            .phase = g_rand_boolean(rand) ? between(rand, 0.1, 20) : 0,
            .phase_rate = between(rand, 1, 1000),
        };
        SimLink link = {
            .bandwidth = bandwidth,
            .stopped = bandwidth * between(rand, 1, 20),
            .noise = g_rand_double(rand) * 0.2,
            .dies = g_rand_int_range(rand, 0, 10) ? 0 : between(rand, 5, 50),
            .agrees = g_rand_int_range(rand, 0, 4) ? 0 :
                      between(rand, 0.1, 20),
        };
        ConvergenceLimits limits = {
            .downtime_limit = between(rand, 20, 2000),
            .time_limit = between(rand, 1000, 100000),
            .max_slowdown = g_rand_int_range(rand, 0, 100),
            .page_size = 4096,
            .postcopy = g_rand_boolean(rand),
            .can_withhold = false,
        };
        SimResult r;

        if (link.dies * bandwidth < mib * 2) {
            /* The first pass may take as long as it likes. */
            link.dies = 0;
        }
        sim_run(&guest, &link, &limits, i, g_test_verbose(), &r);
        g_test_message("%d: action %d after %zu passes, %.2f s: %s", i,
                       r.end.action, r.passes, r.time, r.end.reason);
        ended[r.end.action]++;
        if (r.end.action == CONVERGENCE_SWITCH_OVER) {
            exact += prediction_error(&r) <= 50;
        } else if (strstr(r.end.reason, "not finished") ||
                   strstr(r.end.reason, "not converged")) {
            late++;
        }
        if (r.predicted && !link.agrees) {
            g_assert_cmpfloat(r.time - r.downtime - r.predicted_at, <=,
                              r.predicted * 1.2 + 0.002);
        }
        g_rand_free(rand);
    }
    g_test_message("%d switched over, %d of them within 50 ms of the "
                   "prediction; %d fell back, %d of them as they were late",
                   ended[CONVERGENCE_SWITCH_OVER], exact,
                   ended[CONVERGENCE_POSTCOPY] + ended[CONVERGENCE_ABORT],
                   late);
    g_assert_cmpint(ended[CONVERGENCE_SWITCH_OVER] +
                    ended[CONVERGENCE_POSTCOPY] + ended[CONVERGENCE_ABORT],
                    ==, rounds);
    g_assert_cmpint(exact, >=, ended[CONVERGENCE_SWITCH_OVER] * 0.9);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *path = g_strdup_printf("/convergence/rule/%s",
                                                cases[i].name);

        g_test_add_data_func(path, &cases[i], test_case);
    }
    g_test_add_func("/convergence/pure", test_pure);
    g_test_add_func("/convergence/model", test_model);
    g_test_add_func("/convergence/model-fixed", test_model_fixed);
    g_test_add_func("/convergence/model-withheld", test_model_withheld);
    g_test_add_func("/convergence/slices", test_slices);
    g_test_add_func("/convergence/polish-ends", test_polish_ends);
    g_test_add_func("/convergence/goal", test_goal);
    g_test_add_func("/convergence/overdue", test_overdue);
    g_test_add_func("/convergence/observed", test_observed);
    g_test_add_func("/convergence/agrees-late", test_agrees_late);
    g_test_add_func("/convergence/reserve", test_reserve);
    g_test_add_func("/convergence/never-agrees", test_never_agrees);
    g_test_add_func("/convergence/absurd", test_absurd);
    for (size_t i = 0; i < G_N_ELEMENTS(sim_cases); i++) {
        g_autofree char *path = g_strdup_printf("/convergence/sim/%s",
                                                sim_cases[i].name);

        g_test_add_data_func(path, &sim_cases[i], test_sim);
    }
    g_test_add_func("/convergence/sim/fallback", test_sim_fallback);
    g_test_add_func("/convergence/sim/dead-link", test_sim_dead_link);
    g_test_add_func("/convergence/sim/random", test_sim_random);

    return g_test_run();
}
