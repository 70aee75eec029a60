/*
 * Migration convergence: the decision engine
 *
 * Theory of operation.  At the end of each pass, in this order:
 *
 * 1. What remains fits into the downtime limit: switch over, or make
 *    another short pass if that shortens the downtime considerably and costs
 *    next to nothing (polish).
 * 2. The migration is later than was predicted after its third pass, or
 *    cannot end in time whatever the guest does: fall back.
 * 3. Passes still shrink by themselves: continue, perhaps without the pages
 *    that are written all the time (withhold).
 * 4. Solve the model of convergence-model.c for the throttle at which the
 *    guest loses the least, and hold it until another one is clearly better.
 * 5. No throttle will do: fall back, but not before the strongest one was
 *    tried, nor before the third pass.
 *
 * Invariants, whatever the measurements are: a switchover is decided only
 * if the predicted downtime is within the limit and the destination has
 * agreed; no throttle is stronger than max_slowdown; after the third pass
 * there is a prediction, and 1.2 times its time later the migration is over.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "qemu/units.h"
#include "convergence.h"
#include "convergence-model.h"

/* The pass after which the prediction binds. */
#define BINDING_PASS 3

/*
 * Of the promised 1.2 times the predicted time; the rest is for giving up or
 * switching over.
 */
#define OVERDUE 1.15

/* A link that stalls for so long is no reason to give up. */
#define RESERVE_SECONDS 0.5

/* A pass that leaves a fifth less than the one before is progress. */
#define PROGRESS 0.8

/* Of what was sent in the first pass, dirtied again: nearly all. */
#define REWRITTEN 0.9

/* Ten seconds of migration are worth a second that the guest loses. */
#define TIME_COST 0.1

/*
 * Hold a throttle unless another one is cheaper by more than the error of
 * the prediction: without it throttles oscillate.
 */
#define HOLD_FACTOR 1.25
#define HOLD_SECONDS 0.05

/*
 * With a stronger throttle the guest gets hardly anything done between two
 * pauses, and looks as if it were stopped: only if no other one will do.
 */
#define STRONG_THROTTLE 95

/* Polish if it saves 30 %, and more than anybody notices. */
#define POLISH_GAIN 0.3
#define POLISH_GAIN_SECONDS 0.01

/*
 * ... for 1 % of the time and bytes so far.  Each polish pass is at least
 * 30 % shorter than the one before, so that all cost no more than 3 %.
 */
#define POLISH_COST 0.01
#define POLISH_PASSES 4

/*
 * A downtime of 40 % of the limit or more is worth passes that reduce it by
 * 15 %.  Where QEMU without the engine would not stop yet, passes are free
 * that it would make as well, for up to a quarter of the time so far, if they
 * save a hundredth of the time that they take.
 */
#define POLISH_LONG 0.4
#define POLISH_LONG_GAIN 0.15
#define POLISH_FREE 0.25
#define POLISH_FREE_GAIN 0.01

/* Stopped for a second is as bad as two seconds' work lost while running. */
#define POLISH_LOST 2

/* Withheld pages may use up to half of the downtime, and must be worth it. */
#define WITHHOLD_BUDGET 0.5
#define WITHHOLD_WORTH 0.1

/*
 * How long a vCPU is kept from running, and runs between that, at most.  Two
 * pauses look like one where hardly anything can be done between them: together
 * they take less than 100 ms.
 */
#define MAX_SLEEP_SECONDS 0.04
#define MAX_RUN_SECONDS 0.005

typedef struct Engine {
    const ConvergenceLimits *limits;
    const ConvergencePass *passes;
    size_t n;
    size_t decided;     /* of them have a decision */
    const ConvergencePass *last;
    ConvergenceModel model;
    double horizon;     /* seconds that are left */
    ConvergenceDecision *decision;
} Engine;

static uint64_t to_ms(double seconds)
{
    /* Any JSON reader copes with 2^53; also for NaN, which compares false. */
    return seconds > 0 ? ceil(MIN(seconds * 1e3, 9e15)) : 0;
}

static unsigned max_throttle(const ConvergenceLimits *limits)
{
    return MIN(limits->max_slowdown, 99);
}

static bool is_final(ConvergenceAction action)
{
    return action == CONVERGENCE_SWITCH_OVER ||
           action == CONVERGENCE_POSTCOPY || action == CONVERGENCE_ABORT;
}

static void G_GNUC_PRINTF(3, 4)
decide(Engine *e, ConvergenceAction action, const char *fmt, ...)
{
    va_list ap;

    e->decision->action = action;
    va_start(ap, fmt);
    vsnprintf(e->decision->reason, sizeof(e->decision->reason), fmt, ap);
    va_end(ap);
}

static void predict(Engine *e, double seconds, double downtime)
{
    e->decision->converges = true;
    e->decision->predicted_time = to_ms(seconds);
    e->decision->predicted_downtime = to_ms(downtime);
}

static double pages_mib(const Engine *e, double pages)
{
    /* A reader does not want more digits, and there is no room for them. */
    return MIN(pages * e->limits->page_size / MiB, 1e12);
}

static uint64_t downtime(const Engine *e)
{
    return e->decision->downtime_fixed + e->decision->downtime_copy;
}

static bool fits(const Engine *e)
{
    return downtime(e) <= e->limits->downtime_limit;
}

static void engine_init(Engine *e, const ConvergenceLimits *limits,
                        const ConvergencePass *passes, size_t n,
                        size_t decided, ConvergenceDecision *decision)
{
    *decision = (ConvergenceDecision) {};
    *e = (Engine) {
        .limits = limits,
        .passes = passes,
        .n = n,
        .decided = decided,
        .last = &passes[n - 1],
        .horizon = limits->time_limit / 1e3,
        .decision = decision,
    };
    convergence_model_fit(&e->model, limits, passes, n);
    decision->throttle = MIN(e->last->throttle, max_throttle(limits));
    decision->downtime_fixed = to_ms(e->model.fixed);
    decision->downtime_copy = to_ms(e->model.remaining / e->model.stop_rate);
}

/* Decisions are not carried out: passes follow that were not to follow. */
static bool only_observed(const Engine *e)
{
    for (size_t i = 0; i < e->decided; i++) {
        const ConvergenceDecision *d = &e->passes[i].decided;

        if (is_final(d->action) ||
            (d->throttle && i + 1 < e->n && !e->passes[i + 1].throttle)) {
            return true;
        }
    }
    return false;
}

/*
 * Seconds since the start when the migration must be over; infinite if
 * nothing was promised.
 */
static double deadline(const Engine *e)
{
    const ConvergencePass *binding = &e->passes[BINDING_PASS - 1];
    double limit = e->limits->time_limit / 1e3;
    double promised = limit;

    if (e->n < BINDING_PASS) {
        /* A pass that is predicted to be longer is not begun. */
        return e->last->end / 1e3 + limit * OVERDUE;
    }
    if (only_observed(e)) {
        return INFINITY;
    }
    /* Nothing is promised for the destination. */
    if (binding->decided.converges && binding->can_switch_over &&
        (e->last->can_switch_over || !fits(e))) {
        promised = MIN(binding->decided.predicted_time / 1e3, limit);
    }
    return binding->end / 1e3 + promised * OVERDUE;
}

static void G_GNUC_PRINTF(2, 3)
fall_back(Engine *e, const char *fmt, ...)
{
    g_autofree char *why = NULL;
    va_list ap;
    bool postcopy = e->limits->postcopy && e->last->can_switch_over &&
                    e->decision->downtime_fixed <= e->limits->downtime_limit;

    va_start(ap, fmt);
    why = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    e->decision->throttle = 0;
    if (postcopy) {
        predict(e, 0, e->model.fixed);
    } else {
        e->decision->converges = false;
    }
    decide(e, postcopy ? CONVERGENCE_POSTCOPY : CONVERGENCE_ABORT,
           "%s; remaining %.0f MiB, dirty rate %.0f MiB/s, "
           "bandwidth %.0f MiB/s", why,
           pages_mib(e, e->model.remaining),
           pages_mib(e, e->last->pages_dirtied * 1e3 /
                        MAX(e->last->duration, 1)),
           pages_mib(e, e->model.page_rate));
}

static bool shrinks(const Engine *e)
{
    return e->n == 1 || e->last->pages_remaining <=
                        e->passes[e->n - 2].pages_remaining * PROGRESS;
}

/* How many polish passes were made just now. */
static unsigned polish_passes(const Engine *e)
{
    unsigned count = 0;

    while (count + 1 < e->n && e->passes[e->n - 2 - count].decided.action ==
                               CONVERGENCE_POLISH) {
        count++;
    }
    return count;
}

static uint64_t bytes_sent(const Engine *e)
{
    double sum = 0;

    for (size_t i = 0; i < e->n; i++) {
        sum += e->passes[i].bytes_sent;
    }
    return MIN(sum, 9e15);
}

/*
 * The model as it would be at its best: as much as was sent really is sent,
 * and shorter passes dirty less in proportion.
 */
static ConvergenceModel optimistic(const Engine *e)
{
    ConvergenceModel model = e->model;

    model.page_rate = model.page_rate_mean;
    model.exponent = 1;
    return model;
}

/*
 * QEMU without the engine switches over when what remains can be sent within
 * the limit at the bandwidth of before switchover.
 */
static bool default_ends(const Engine *e, double remaining)
{
    return remaining / e->model.page_rate_mean <=
           e->limits->downtime_limit / 1e3;
}

/* It would soon do so, but not yet: the passes until then cost nothing. */
static bool default_ends_soon(const Engine *e)
{
    ConvergenceModel model = optimistic(e);
    double remaining = model.remaining, seconds, sum = 0;

    if (default_ends(e, remaining) || !shrinks(e)) {
        return false;
    }
    for (int i = 0; i < POLISH_PASSES && !default_ends(e, remaining); i++) {
        remaining = convergence_model_pass(&model, remaining, 0, true,
                                           &seconds);
        sum += seconds;
    }
    return default_ends(e, remaining) &&
           sum <= e->last->end / 1e3 * POLISH_FREE;
}

/*
 * Decisions need a bound of the downtime; what the guest will notice, and who
 * is told a time wants to know, is what it is likely to be.
 */
static double likely_rate(const Engine *e)
{
    double rate = (double)e->last->switchover_likely /
                  MAX(e->limits->page_size, 1);

    return MAX(rate, e->model.stop_rate);
}

/*
 * Whether another pass shortens the downtime considerably for next to
 * nothing; *now and *after are what it is likely to be in seconds.
 */
static bool polish_pays(const Engine *e, double *now_p, double *after)
{
    const ConvergenceModel *m = &e->model;
    unsigned throttle = e->decision->throttle;
    double rate = likely_rate(e);
    double now = m->fixed + m->remaining / rate;
    bool is_long = now * 1e3 > e->limits->downtime_limit * POLISH_LONG;
    double seconds, remaining, lost, gain;

    remaining = convergence_model_pass(m, m->remaining, throttle,
                                       default_ends(e, m->remaining),
                                       &seconds);
    lost = seconds * (1 - convergence_model_speed(m, throttle));
    *now_p = now;
    *after = m->fixed + remaining / rate;
    gain = now - *after;

    if (polish_passes(e) >= POLISH_PASSES || !(gain > 0) ||
        lost > gain * POLISH_LOST || seconds > e->horizon) {
        return false;
    }
    if (!e->last->throttle && default_ends_soon(e)) {
        return gain >= seconds * POLISH_FREE_GAIN;
    }
    if (gain < MAX(POLISH_GAIN_SECONDS,
                   now * (is_long ? POLISH_LONG_GAIN : POLISH_GAIN))) {
        return false;
    }
    if (!default_ends(e, m->remaining) || (is_long && e->last->throttle)) {
        return true;
    }
    return seconds - gain <= e->last->end / 1e3 * POLISH_COST &&
           remaining * e->limits->page_size <= bytes_sent(e) * POLISH_COST;
}

/* Predicted time, with passes in reserve for what is not known yet. */
static double with_reserve(const Engine *e, double seconds,
                           unsigned throttle)
{
    double pass = e->model.remaining / e->model.page_rate;
    unsigned spare = 1;

    if (throttle && e->model.effect_unknown) {
        spare += 2;
    }
    return MIN(seconds + MAX(spare * pass, RESERVE_SECONDS),
               MAX(seconds, e->limits->time_limit / 1e3));
}

double convergence_run_seconds(const ConvergenceLimits *limits,
                               unsigned throttle)
{
    double sleep = MIN(MAX(limits->downtime_limit, 1) / 1e3,
                       MAX_SLEEP_SECONDS);

    return MIN(MAX_RUN_SECONDS, sleep * (100 - throttle) / throttle);
}

/*
 * A throttled vCPU that is stopped has mostly not run for a while: on average
 * for half of the time that it is kept from running.  It has just run if
 * fetching the dirty bitmap had to wait for that, as it does with a dirty ring.
 */
static double throttled_seconds(const Engine *e)
{
    unsigned throttle = MIN(e->last->throttle, 99);
    double asleep;

    if (!throttle) {
        return 0;
    }
    asleep = convergence_run_seconds(e->limits, throttle) *
             throttle / (100 - throttle) * throttle / 100 / 2;
    return MAX(asleep - e->last->sync_time / 1e6, 0);
}

/* As the guest sees it. */
static double likely_downtime(const Engine *e)
{
    return throttled_seconds(e) + e->model.fixed +
           e->model.remaining / likely_rate(e);
}

static void decide_fitting(Engine *e)
{
    double now, after;
    double seconds = e->model.remaining / e->model.page_rate;

    if (!e->last->can_switch_over) {
        predict(e, with_reserve(e, seconds, 0), downtime(e) / 1e3);
        decide(e, e->decision->throttle ? CONVERGENCE_THROTTLE :
                                          CONVERGENCE_CONTINUE,
               "another pass needed: the destination has not agreed to the "
               "switchover yet, predicted downtime %" PRIu64 " ms",
               downtime(e));
    } else if (polish_pays(e, &now, &after)) {
        predict(e, with_reserve(e, seconds, e->decision->throttle), after);
        decide(e, CONVERGENCE_POLISH,
               "another pass: it is predicted to reduce the downtime from "
               "%" PRIu64 " to %" PRIu64 " ms",
               to_ms(now), to_ms(after));
    } else {
        predict(e, 0, likely_downtime(e));
        decide(e, CONVERGENCE_SWITCH_OVER,
               "stopping pre-copy: only %" PRIu64 " pages were modified, "
               "predicted downtime %" PRIu64 " ms",
               e->last->pages_remaining, e->decision->predicted_downtime);
    }
}

static const char *needed(const Engine *e, char *buf, size_t size)
{
    if (e->n > 1) {
        snprintf(buf, size, "another pass needed: %" PRIu64 " pages "
                 "modified, last %" PRIu64, e->last->pages_remaining,
                 e->passes[e->n - 2].pages_remaining);
    } else {
        snprintf(buf, size, "another pass needed: %" PRIu64 " pages "
                 "modified", e->last->pages_remaining);
    }
    return buf;
}

static bool can_withhold(const Engine *e)
{
    double hot = e->last->pages_hot;
    double budget = e->limits->downtime_limit / 1e3 - e->model.fixed;

    return e->limits->can_withhold && e->n > 1 && hot > 0 &&
           hot <= e->model.remaining &&
           hot >= e->model.remaining * WITHHOLD_WORTH &&
           hot / e->model.stop_rate <= budget * WITHHOLD_BUDGET;
}

/* Passes shrink by themselves, as far as is known. */
static bool decide_unthrottled(Engine *e)
{
    ConvergencePrediction p;
    ConvergenceModel model = e->model;
    double seconds;
    char buf[128];

    if (e->last->throttle || !shrinks(e)) {
        return false;
    }

    convergence_model_predict(&model, 0, e->horizon, &p);
    seconds = with_reserve(e, p.time, 0);
    if (!p.ends) {
        model = optimistic(e);
        convergence_model_predict(&model, 0, e->horizon, &p);
        /* It may come to be throttled yet. */
        seconds = with_reserve(e, p.time, max_throttle(e->limits));
    }
    if (!p.ends && e->n >= BINDING_PASS) {
        return false;
    }
    if (p.ends) {
        predict(e, seconds, p.downtime);
    }
    if (can_withhold(e)) {
        decide(e, CONVERGENCE_WITHHOLD,
               "%s; without %" PRIu64 " that are written all the time",
               needed(e, buf, sizeof(buf)), e->last->pages_hot);
    } else {
        decide(e, CONVERGENCE_CONTINUE, "%s", needed(e, buf, sizeof(buf)));
    }
    return true;
}

/* What it costs in seconds that the guest loses. */
static double cost(const ConvergencePrediction *p)
{
    return p->lost + p->downtime + p->time * TIME_COST;
}

/*
 * The throttle with the least cost among those that converge in time, or
 * the one in force if it is about as good.
 *
 * Returns: whether there is one
 */
static bool solve(const Engine *e, unsigned *throttle,
                  ConvergencePrediction *prediction)
{
    unsigned held = e->decision->throttle;
    ConvergencePrediction p, of_held;
    bool found = false;

    for (unsigned t = 0; t <= max_throttle(e->limits); t++) {
        if (found && t > STRONG_THROTTLE) {
            break;
        }
        convergence_model_predict(&e->model, t, e->horizon, &p);
        if (p.ends && (!found || cost(&p) < cost(prediction))) {
            *throttle = t;
            *prediction = p;
            found = true;
        }
    }
    convergence_model_predict(&e->model, held, e->horizon, &of_held);
    if (of_held.ends &&
        cost(&of_held) <= cost(prediction) * HOLD_FACTOR + HOLD_SECONDS) {
        *throttle = held;
        *prediction = of_held;
    }
    return found;
}

static void decide_throttle(Engine *e, unsigned throttle, double seconds,
                            double downtime)
{
    unsigned held = e->decision->throttle;
    char buf[128];

    e->decision->throttle = throttle;
    if (isfinite(seconds)) {
        predict(e, with_reserve(e, seconds, throttle), downtime);
    }
    needed(e, buf, sizeof(buf));
    if (throttle == 0) {
        decide(e, CONVERGENCE_CONTINUE, "%s", buf);
    } else if (throttle == held) {
        decide(e, CONVERGENCE_THROTTLE, "%s; still slowed down by %u %%",
               buf, throttle);
    } else {
        decide(e, CONVERGENCE_THROTTLE,
               "%s; slowing down by %u %% instead of %u %%",
               buf, throttle, held);
    }
}

static void decide_hopeless(Engine *e, const ConvergencePrediction *p)
{
    unsigned max = max_throttle(e->limits);

    if (e->decision->downtime_fixed > e->limits->downtime_limit) {
        fall_back(e, "stopping the guest without any memory is predicted to "
                  "take %" PRIu64 " ms, limit %" PRIu64 " ms",
                  e->decision->downtime_fixed, e->limits->downtime_limit);
    } else if (p->never) {
        fall_back(e, "predicted not to converge at %u %% throttle", max);
    } else if (e->horizon < e->limits->time_limit / 1e3) {
        fall_back(e, "predicted %.1f s of copy at %u %% throttle, %.1f s "
                  "are left of what was predicted after pass %d",
                  p->time, max, e->horizon, BINDING_PASS);
    } else {
        fall_back(e, "predicted %.1f s of copy at %u %% throttle, "
                  "limit %.1f s", p->time, max, e->horizon);
    }
}

/*
 * In the first pass the guest wrote to nearly all that was sent.  How often
 * it did so is not seen; but then the strongest throttle loses the least:
 * what is lost per second grows in proportion, what remains after each pass
 * falls in proportion.
 */
static bool rewrites_all(const Engine *e)
{
    double copied = (double)e->last->bytes_sent /
                    MAX(e->limits->page_size, 1);

    return e->n == 1 && max_throttle(e->limits) > 0 &&
           e->last->pages_dirtied >= copied * REWRITTEN;
}

static void decide_strongest(Engine *e)
{
    unsigned throttle = max_throttle(e->limits);
    ConvergenceModel model = optimistic(e);
    ConvergencePrediction p;

    if (!rewrites_all(e) && throttle > STRONG_THROTTLE) {
        convergence_model_predict(&model, STRONG_THROTTLE, e->horizon, &p);
        if (p.ends && e->last->throttle <= STRONG_THROTTLE) {
            throttle = STRONG_THROTTLE;
        }
    }
    convergence_model_predict(&model, throttle, e->horizon, &p);
    decide_throttle(e, throttle, p.ends ? p.time : INFINITY, p.downtime);
}

/* Solve for a throttle, or give up. */
static void decide_throttled(Engine *e)
{
    unsigned throttle = 0, max = max_throttle(e->limits);
    ConvergencePrediction p = {};
    ConvergenceModel model;

    if (solve(e, &throttle, &p)) {
        decide_throttle(e, throttle, p.time, p.downtime);
        return;
    }

    model = optimistic(e);
    convergence_model_predict(&model, max, e->horizon, &p);
    if (p.ends || (e->n == BINDING_PASS - 1 && e->last->throttle < max)) {
        decide_strongest(e);
    } else if (e->n < BINDING_PASS) {
        decide_throttle(e, e->decision->throttle, INFINITY, 0);
    } else {
        convergence_model_predict(&e->model, max, INFINITY, &p);
        decide_hopeless(e, &p);
    }
}

static void fall_back_late(Engine *e, uint64_t now)
{
    const ConvergencePass *since =
        &e->passes[MIN(e->n, BINDING_PASS) - 1];
    double seconds = (now - MIN(now, since->end)) / 1e3;

    if (fits(e) && !e->last->can_switch_over) {
        fall_back(e, "the destination has not agreed to the switchover "
                  "within %.1f s", seconds);
    } else if (since->decided.converges && e->n >= BINDING_PASS) {
        fall_back(e, "not converged in %.1f s, predicted %.1f s", seconds,
                  since->decided.predicted_time / 1e3);
    } else {
        fall_back(e, "not converged in %.1f s, limit %.1f s", seconds,
                  e->limits->time_limit / 1e3);
    }
}

void convergence_decide(const ConvergenceLimits *limits,
                        const ConvergencePass *passes, size_t n,
                        ConvergenceDecision *decision)
{
    Engine e;
    double end, least;

    engine_init(&e, limits, passes, n, n - 1, decision);
    end = n > BINDING_PASS ? deadline(&e) : INFINITY;
    e.horizon = MIN(e.horizon, end - e.last->end / 1e3);
    if (fits(&e) && (e.last->can_switch_over || e.horizon > 0)) {
        decide_fitting(&e);
        return;
    }
    if (e.horizon <= 0) {
        fall_back_late(&e, e.last->end);
        return;
    }
    /* Even if nothing were dirtied again. */
    least = e.model.remaining / e.model.page_rate_mean;
    if (least > limits->time_limit / 1e3) {
        fall_back(&e, "predicted %.1f s of copy at any throttle, "
                  "limit %.1f s", least, limits->time_limit / 1e3);
        return;
    }
    if (rewrites_all(&e)) {
        decide_strongest(&e);
    } else if (!decide_unthrottled(&e)) {
        decide_throttled(&e);
    }
}

uint64_t convergence_pass_goal(const ConvergenceLimits *limits,
                               const ConvergencePass *passes, size_t n,
                               uint64_t bandwidth)
{
    const ConvergencePass *last = n ? &passes[n - 1] : NULL;
    double rate = (double)bandwidth / MAX(limits->page_size, 1);
    double budget = limits->downtime_limit / 1e3 * CONVERGENCE_BUDGET_SHARE;
    double begin = INFINITY;

    if (last) {
        if (last->decided.action == CONVERGENCE_POLISH &&
            last->pages_remaining <= rate * limits->downtime_limit / 1e3) {
            return 0;
        }
        budget -= convergence_model_fixed(passes, n);
        begin = last->pages_remaining;
    }
    return MIN(convergence_model_left_over(budget, rate, begin), 9e15);
}

bool convergence_overdue(const ConvergenceLimits *limits,
                         const ConvergencePass *passes, size_t n,
                         uint64_t now, ConvergenceDecision *decision)
{
    Engine e;

    if (n == 0) {
        return false;
    }
    engine_init(&e, limits, passes, n, n, decision);
    if (now / 1e3 <= deadline(&e)) {
        return false;
    }
    fall_back_late(&e, now);
    return true;
}
