/*
 * Migration convergence: a model of the guest and the link
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "convergence-model.h"

/* The guest's behaviour changes: passes before the last four say nothing. */
#define FIT_PASSES 4

/*
 * Prior of the exponent: between a sweep, which has 1, and a small working
 * set, which tends to 0.  Its weight is that of passes whose times differ
 * by a factor of about 1.6, so that noise between equal passes counts little.
 */
#define EXPONENT_PRIOR 0.6
#define EXPONENT_PRIOR_WEIGHT 0.05

/*
 * The local exponent of a working set is underestimated by longer passes,
 * and 0 would mean that shorter passes are of no use at all.
 */
#define EXPONENT_MIN 0.3

/*
 * A page written before it is sent does not count, which halves the time of
 * the first pass, unless it is found dirty since QEMU clears its bit in the
 * log up to 1 GiB ahead.  Between both.
 */
#define FIRST_PASS_EXPOSURE 0.75

/* A guest that runs at this share of its speed or more did not notice. */
#define NO_EFFECT 0.85

/* Fewer pages than this share must be left after a pass, or it never ends. */
#define PROGRESS 0.99

/* So slow that any prediction is beyond all limits, but finite. */
#define MIN_RATE 0.000001

/* More than any limit, and finite: a prediction needs no more. */
#define MAX_SECONDS 1e9

static double pass_seconds(const ConvergencePass *pass)
{
    /* Milliseconds; a pass of none at all took some of one. */
    return MAX(pass->duration, 1) / 1e3;
}

static double pass_dirtied(const ConvergencePass *pass)
{
    return MAX(pass->pages_dirtied, 1);
}

static double running_share(unsigned throttle)
{
    return (100 - MIN(throttle, 99)) / 100.0;
}

/*
 * Bytes on the wire for a page.  The first pass is full of zero pages, and
 * pages that are sent again may be compressed.
 */
static double bytes_per_page(const ConvergenceLimits *limits,
                             const ConvergencePass *passes, size_t n)
{
    double size = MAX(limits->page_size, 1), seen;
    const ConvergencePass *last = &passes[n - 1];

    if (n < 2 || !last->pages_sent) {
        return size;
    }
    seen = (double)last->bytes_sent / last->pages_sent;
    return MAX(MIN(seen, size), size / 16);
}

static void fit_rates(ConvergenceModel *model,
                      const ConvergenceLimits *limits,
                      const ConvergencePass *passes, size_t n)
{
    const ConvergencePass *last = &passes[n - 1];
    double mean = last->bytes_sent / pass_seconds(last);
    double low = last->bandwidth_low ?: mean;
    double stopped = last->switchover_bandwidth ?: low;
    double bytes = bytes_per_page(limits, passes, n);

    model->page_rate = MAX(low / bytes, MIN_RATE);
    model->page_rate_mean = MAX(MAX(mean, low) / bytes, MIN_RATE);
    /* Compression may be over by then: what remains is sent as it is. */
    model->stop_rate = MAX(stopped / MAX(limits->page_size, 1), MIN_RATE);
}

/*
 * Slope of log(pages dirtied) over log(guest time): least squares, the
 * weight halves with each pass back.
 */
static double fit_exponent(const ConvergencePass *passes, size_t n,
                           const double *time, const double *weight)
{
    double sum = 0, x = 0, y = 0;
    double xx = EXPONENT_PRIOR_WEIGHT;
    double xy = EXPONENT_PRIOR_WEIGHT * EXPONENT_PRIOR;

    for (size_t i = 0; i < n; i++) {
        sum += weight[i];
        x += weight[i] * log(time[i]);
        y += weight[i] * log(pass_dirtied(&passes[i]));
    }
    if (sum == 0) {
        return EXPONENT_PRIOR;
    }
    x /= sum;
    y /= sum;
    for (size_t i = 0; i < n; i++) {
        double dx = log(time[i]) - x;

        xx += weight[i] * dx * dx;
        xy += weight[i] * dx * (log(pass_dirtied(&passes[i])) - y);
    }
    return MIN(MAX(xy / xx, EXPONENT_MIN), 1);
}

/*
 * What the throttle does is measured, as a guest may have slack: compare
 * the last throttled pass with the unthrottled one before it.
 */
static void fit_slack(ConvergenceModel *model, double exponent,
                      const ConvergencePass *passes, size_t n,
                      const double *time)
{
    const ConvergencePass *slow = NULL, *full = NULL;
    double full_time = 0, slow_time = 0, speed;

    for (size_t i = n; i-- > 0; ) {
        if (!slow && passes[i].throttle) {
            slow = &passes[i];
            slow_time = time[i];
        } else if (slow && !passes[i].throttle) {
            full = &passes[i];
            full_time = time[i];
            break;
        }
    }
    model->slack = 0;
    model->effect_unknown = true;
    if (!slow || !full) {
        return;
    }

    speed = pow(pass_dirtied(slow) / pass_dirtied(full), 1 / exponent) *
            full_time / slow_time;
    if (speed >= NO_EFFECT) {
        model->slack = 1 - running_share(slow->throttle);
    } else {
        model->slack = 1 - running_share(slow->throttle) / MAX(speed, 0.01);
        model->slack = MAX(model->slack, 0);
        model->effect_unknown = false;
    }
}

double convergence_model_speed(const ConvergenceModel *model,
                               unsigned throttle)
{
    return MIN(running_share(throttle) / (1 - model->slack), 1);
}

double convergence_model_fixed(const ConvergencePass *passes, size_t n)
{
    const ConvergencePass *last = &passes[n - 1];
    uint64_t sync_time = last->sync_time;

    /*
     * With a dirty ring, fetching it waits for vCPUs that are kept from
     * running.  It does not when they are stopped.
     */
    if (last->throttle) {
        for (size_t i = n - 1; i-- > 0; ) {
            if (!passes[i].throttle) {
                sync_time = MIN(sync_time, passes[i].sync_time);
                break;
            }
        }
    }
    return ((double)sync_time + last->fixed_cost) / 1e6;
}

void convergence_model_fit(ConvergenceModel *model,
                           const ConvergenceLimits *limits,
                           const ConvergencePass *passes, size_t n)
{
    const ConvergencePass *last = &passes[n - 1];
    size_t kept = MIN(n, FIT_PASSES);
    const ConvergencePass *recent = last + 1 - kept;
    double time[FIT_PASSES] = {}, weight[FIT_PASSES] = {};
    double unthrottled[FIT_PASSES] = {};

    fit_rates(model, limits, passes, n);
    model->fixed = convergence_model_fixed(passes, n);
    model->budget = limits->downtime_limit / 1e3 * CONVERGENCE_BUDGET_SHARE;
    model->remaining = last->pages_remaining;
    model->withheld = MIN(last->pages_withheld, last->pages_remaining);

    for (size_t i = 0; i < kept; i++) {
        bool first = &recent[i] == passes;

        time[i] = pass_seconds(&recent[i]) *
                  (first ? FIRST_PASS_EXPOSURE : 1);
        weight[i] = 1.0 / (1 << (kept - 1 - i)) / (first ? 2 : 1);
        unthrottled[i] = recent[i].throttle ? 0 : weight[i];
    }
    fit_slack(model, fit_exponent(recent, kept, time, unthrottled), recent,
              kept, time);
    for (size_t i = 0; i < kept; i++) {
        time[i] *= convergence_model_speed(model, recent[i].throttle);
    }
    model->exponent = fit_exponent(recent, kept, time, weight);
    model->anchor_time = time[kept - 1];
    model->anchor_pages = pass_dirtied(last);
}

double convergence_model_dirtied(const ConvergenceModel *model,
                                 double seconds, unsigned throttle)
{
    double time = seconds * convergence_model_speed(model, throttle);
    /*
     * What is withheld is released when the throttle engages: it is sent, and
     * written again, like the rest.
     */
    double pages = model->anchor_pages + (throttle ? model->withheld : 0);

    return pages *
           pow(time / model->anchor_time, model->exponent);
}

double convergence_model_left_over(double budget, double page_rate,
                                   double begin)
{
    /*
     * As many as could be sent within the limit at the bandwidth of now, as
     * QEMU does without the engine.  But a pass that sends less than half
     * is none: the guest's next writes would not be seen.
     */
    return MIN(MAX(budget, 0) * page_rate, begin / 2);
}

double convergence_model_pass(const ConvergenceModel *model,
                              double remaining, unsigned throttle, bool all,
                              double *seconds)
{
    double later = 0;

    if (!all) {
        later = convergence_model_left_over(model->budget - model->fixed,
                                            model->page_rate, remaining);
    }
    *seconds = (remaining - later) / model->page_rate;
    return later + (throttle ? 0 : model->withheld) +
           convergence_model_dirtied(model, *seconds, throttle);
}

void convergence_model_predict(const ConvergenceModel *model,
                               unsigned throttle, double horizon,
                               ConvergencePrediction *prediction)
{
    double lost_share = 1 - convergence_model_speed(model, throttle);
    double remaining = model->remaining;

    *prediction = (ConvergencePrediction) {};
    if (model->fixed >= model->budget) {
        prediction->downtime = model->fixed;
        prediction->never = true;
        return;
    }
    for (;;) {
        double seconds, left;

        prediction->downtime = MIN(model->fixed +
                                   remaining / model->stop_rate, MAX_SECONDS);
        if (prediction->downtime <= model->budget) {
            prediction->ends = true;
            return;
        }
        left = convergence_model_pass(model, remaining, throttle, false,
                                      &seconds);
        prediction->time = MIN(prediction->time + seconds, MAX_SECONDS);
        prediction->lost = prediction->time * lost_share;
        /* Also for NaN, which compares false. */
        if (!(left <= remaining * PROGRESS)) {
            prediction->never = true;
            return;
        }
        if (prediction->time > horizon) {
            return;
        }
        remaining = left;
    }
}
