/*
 * A simulated guest that is migrated, for tests of the convergence engine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "convergence-sim.h"

#define PAGES_PER_MIB 256
#define STEP 0.001          /* seconds */
#define CATCH_UP 0.05       /* a guest that pauses catches up that much */
#define FIXED 0.010         /* what stopping takes besides memory */
#define SYNC 0.001
#define SYNC_EVERY 0.01     /* no pass is shorter */
#define GIVE_UP 600         /* seconds: upstream may never end */

typedef struct Sim {
    const SimGuest *guest;
    const SimLink *link;
    GRand *rand;
    size_t pages;
    uint8_t *pending;       /* to be sent */
    uint8_t *log;           /* written since the last sync */
    size_t n_pending;
    size_t next;            /* page to be sent */
    size_t sweep;           /* page to be written */
    double now;
    double credit;          /* pages that the guest wants to write */
    double wanted, written;
    double link_credit;
    double link_factor;
    double link_until;
    double low;             /* lower bound of link_factor */
    double sent;            /* pages, and so many of them are not zero */
} Sim;

static size_t pick(Sim *s)
{
    const SimGuest *g = s->guest;
    size_t hot = g->hot_mib * PAGES_PER_MIB;

    switch (g->load) {
    case SIM_SWEEP:
        s->sweep = (s->sweep + 1) % s->pages;
        return s->sweep;
    case SIM_ZIPF:
        return MIN(exp(g_rand_double(s->rand) * log(s->pages)),
                   s->pages - 1);
    default:
        if (hot && g_rand_int_range(s->rand, 0, 100) < 90) {
            return g_rand_int_range(s->rand, 0, hot);
        }
        return g_rand_int_range(s->rand, 0, s->pages);
    }
}

static void guest_step(Sim *s, unsigned throttle)
{
    const SimGuest *g = s->guest;
    double rate = g->phase && s->now >= g->phase ? g->phase_rate : g->rate;
    double can, todo;

    rate *= PAGES_PER_MIB;
    can = (g->capacity ? g->capacity * PAGES_PER_MIB : rate) * STEP *
          (100 - throttle) / 100;
    s->wanted += rate * STEP;
    s->credit = MIN(s->credit + rate * STEP, rate * CATCH_UP);
    todo = MIN(s->credit, can);
    if (!g->capacity) {
        s->credit = todo;
    }
    /* What is less than a page is left for later. */
    for (todo = MIN(s->credit, MAX(can, 1)); todo >= 1; todo--) {
        s->log[pick(s)] = 1;
        s->credit--;
        s->written++;
    }
}

static void link_step(Sim *s)
{
    const SimLink *l = s->link;

    if (s->now >= s->link_until) {
        double sum = 0;

        for (int i = 0; i < 12; i++) {
            sum += g_rand_double(s->rand);
        }
        s->link_factor = MAX(1 + l->noise * (sum - 6), 0.05);
        s->link_until = s->now + 0.1;
    }
    if (l->dies && s->now >= l->dies) {
        return;
    }
    s->link_credit += l->bandwidth * PAGES_PER_MIB * STEP * s->link_factor;
    while (s->link_credit >= 1 && s->n_pending) {
        while (!s->pending[s->next]) {
            s->next = (s->next + 1) % s->pages;
        }
        s->pending[s->next] = 0;
        s->n_pending--;
        s->sent++;
        s->link_credit--;
    }
    if (!s->n_pending) {
        s->link_credit = 0;
    }
}

/* QEMU with a guest up to 1 GiB: the log is cleared as a pass begins. */
static size_t sync_log(Sim *s)
{
    size_t dirtied = 0;

    for (size_t i = 0; i < s->pages; i++) {
        if (s->log[i] && !s->pending[i]) {
            s->pending[i] = 1;
            s->n_pending++;
            dirtied++;
        }
        s->log[i] = 0;
    }
    return dirtied;
}

static double stop_seconds(Sim *s)
{
    return FIXED + SYNC +
           s->n_pending / (s->link->stopped * PAGES_PER_MIB * s->link_factor);
}

/*
 * A pass is over when what is pending is less than upstream's threshold,
 * as it is without the engine.
 */
static bool pass_over(Sim *s, double limit)
{
    return s->n_pending < s->link->bandwidth * PAGES_PER_MIB * limit;
}

static void finish(Sim *s, SimResult *r)
{
    r->downtime = stop_seconds(s);
    r->time = s->now + r->downtime;
    r->mib = (s->sent + s->n_pending) / PAGES_PER_MIB;
    r->lost = s->wanted ? (s->wanted - s->written) / s->wanted * s->now : 0;
    r->lost += r->downtime;
}

/* How long the guest has not run when it is stopped. */
static double pause_seconds(Sim *s, const ConvergenceLimits *limits,
                            unsigned throttle)
{
    double run, pause, at;

    if (!throttle) {
        return 0;
    }
    run = convergence_run_seconds(limits, throttle);
    pause = run * throttle / (100 - throttle);
    at = g_rand_double(s->rand) * (pause + run);
    return at < pause ? at : 0;
}

static void give_up(Sim *s, SimResult *r)
{
    r->time = s->now;
    r->mib = s->sent / PAGES_PER_MIB;
    r->lost = s->wanted ? (s->wanted - s->written) / s->wanted * s->now : 0;
}

static void measure(Sim *s, ConvergencePass *pass, double begin, double sent,
                    size_t dirtied, unsigned throttle)
{
    *pass = (ConvergencePass) {
        .end = s->now * 1e3,
        .duration = (s->now - begin) * 1e3,
        .sync_time = SYNC * 1e6,
        .bytes_sent = (s->sent - sent) * 4096 * 1.002,
        .pages_sent = s->sent - sent,
        .pages_dirtied = dirtied,
        .pages_remaining = s->n_pending,
        .bandwidth_low = s->link->bandwidth * 1048576 *
                         (1 - s->link->noise),
        .switchover_bandwidth = s->link->stopped * 1048576 *
                                (1 - s->link->noise),
        .fixed_cost = FIXED * 1e6,
        .throttle = throttle,
        .can_switch_over = s->now >= s->link->agrees,
    };
}

static void run_upstream(Sim *s, SimResult *r)
{
    while (s->now < GIVE_UP) {
        r->passes++;
        while (!pass_over(s, 0.3)) {
            guest_step(s, 0);
            link_step(s);
            s->now += STEP;
            if (s->now >= GIVE_UP) {
                give_up(s, r);
                return;
            }
        }
        sync_log(s);
        if (pass_over(s, 0.3)) {
            r->end.action = CONVERGENCE_SWITCH_OVER;
            finish(s, r);
            return;
        }
    }
}

static bool ends(Sim *s, const ConvergenceDecision *decision, SimResult *r)
{
    switch (decision->action) {
    case CONVERGENCE_SWITCH_OVER:
        finish(s, r);
        break;
    case CONVERGENCE_POSTCOPY:
    case CONVERGENCE_ABORT:
        give_up(s, r);
        break;
    default:
        return false;
    }
    r->end = *decision;
    return true;
}

static void run_engine(Sim *s, const ConvergenceLimits *limits, bool verbose,
                       SimResult *r)
{
    g_autofree ConvergencePass *passes =
        g_new0(ConvergencePass, SIM_MAX_PASSES);
    ConvergenceDecision late;
    unsigned throttle = 0;

    while (r->passes < SIM_MAX_PASSES) {
        ConvergencePass *pass = &passes[r->passes];
        double begin = s->now, sent = s->sent;

        do {
            guest_step(s, throttle);
            link_step(s);
            s->now += STEP;
            if (convergence_overdue(limits, passes, r->passes, s->now * 1e3,
                                    &late)) {
                if (verbose) {
                    printf("# overdue at %.1f s: %s\n", s->now, late.reason);
                }
                g_assert_true(ends(s, &late, r));
                return;
            }
            /* The first pass over a dead link is not the engine's to end. */
            g_assert_cmpfloat(s->now, <, 100000);
        } while (s->now < begin + SYNC_EVERY ||
                 s->n_pending >
                 convergence_pass_goal(limits, passes, r->passes,
                                       s->link->bandwidth * 1048576));
        measure(s, pass, begin, sent, sync_log(s), throttle);
        convergence_decide(limits, passes, ++r->passes, &pass->decided);
        if (verbose) {
            printf("# %2zu %7.2f s, %4" PRIu64 " ms at %2u %%: dirtied %4.0f "
                   "remaining %4.0f MiB, downtime %" PRIu64 "+%" PRIu64
                   ", predicted %" PRIu64 " ms/%" PRIu64 " ms: %s\n",
                   r->passes, s->now, pass->duration, throttle,
                   (double)pass->pages_dirtied / PAGES_PER_MIB,
                   (double)pass->pages_remaining / PAGES_PER_MIB,
                   pass->decided.downtime_fixed, pass->decided.downtime_copy,
                   pass->decided.converges ? pass->decided.predicted_time : 0,
                   pass->decided.predicted_downtime, pass->decided.reason);
        }
        if (r->passes == 3) {
            r->predicted = pass->decided.converges ?
                           pass->decided.predicted_time / 1e3 : 0;
            r->predicted_at = s->now;
        }
        if (ends(s, &pass->decided, r)) {
            r->pause = pause_seconds(s, limits, throttle);
            return;
        }
        r->throttle_changes += pass->decided.throttle != throttle;
        throttle = pass->decided.throttle;
        r->max_throttle = MAX(r->max_throttle, throttle);
    }
    give_up(s, r);
}

void sim_run(const SimGuest *guest, const SimLink *link,
             const ConvergenceLimits *limits, unsigned seed, bool verbose,
             SimResult *result)
{
    size_t pages = guest->mib * PAGES_PER_MIB;
    g_autofree uint8_t *pending = g_malloc(pages);
    g_autofree uint8_t *log = g_malloc0(pages);
    Sim s = {
        .guest = guest,
        .link = link,
        .rand = g_rand_new_with_seed(seed),
        .pages = pages,
        .pending = pending,
        .log = log,
        .n_pending = pages,
        .link_factor = 1,
    };

    memset(pending, 1, pages);
    *result = (SimResult) {};
    /* Zero pages: a few bytes each, but they want to be read. */
    s.now = guest->zero_mib * 0.0003;
    if (limits) {
        run_engine(&s, limits, verbose, result);
    } else {
        run_upstream(&s, result);
    }
    g_rand_free(s.rand);
}
