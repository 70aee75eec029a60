/*
 * Migration convergence: a model of the guest and the link
 *
 * Private to the decision engine.  Pure: no state, any thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_MIGRATION_CONVERGENCE_MODEL_H
#define QEMU_MIGRATION_CONVERGENCE_MODEL_H

#include "convergence.h"

/* Leave some of the limit for noise when predicting, as links vary by 10 %. */
#define CONVERGENCE_BUDGET_SHARE 0.9

/**
 * ConvergenceModel: what is known after some passes
 *
 * Pages that the guest dirties while it runs undisturbed for @anchor_time
 * are @anchor_pages; for another time t they are
 *
 *     anchor_pages * (t / anchor_time) ^ exponent
 *
 * An exponent of 1 is a guest that always writes to other pages, a small
 * one is a guest that writes to the same ones again.
 *
 * @page_rate: pages sent per second before switchover
 * @page_rate_mean: the same, as measured over the last pass
 * @stop_rate: pages sent per second while the guest is stopped
 * @fixed: part of the downtime that does not depend on memory, seconds
 * @budget: part of the downtime limit that predictions may use, seconds
 * @remaining: dirty pages now, withheld ones included
 * @withheld: dirty pages that are not sent until switchover
 * @anchor_time: seconds of guest time, > 0
 * @anchor_pages: pages, > 0
 * @exponent: 0 < exponent <= 1
 * @slack: share of its run time that the guest does without at no loss, as
 *         it is idle or dirties the same pages all the same, 0 <= slack < 1
 * @effect_unknown: no throttle was tried yet, or it had no effect
 */
typedef struct ConvergenceModel {
    double page_rate;
    double page_rate_mean;
    double stop_rate;
    double fixed;
    double budget;
    double remaining;
    double withheld;
    double anchor_time;
    double anchor_pages;
    double exponent;
    double slack;
    bool effect_unknown;
} ConvergenceModel;

/**
 * ConvergencePrediction: what the model says of the passes to come
 *
 * @ends: the downtime comes to fit, in the time given
 * @never: no progress from some pass on
 * @time: seconds until then, or until it was given up
 * @lost: seconds of guest time lost by throttling until then
 * @downtime: seconds of downtime at the end
 */
typedef struct ConvergencePrediction {
    bool ends;
    bool never;
    double time;
    double lost;
    double downtime;
} ConvergencePrediction;

/**
 * convergence_model_fixed: what stopping the guest takes without any memory
 *
 * @n: at least 1
 *
 * Returns: seconds, with fetching the dirty bitmap
 */
double convergence_model_fixed(const ConvergencePass *passes, size_t n);

/**
 * convergence_model_fit: fit the model to the passes made so far
 *
 * @n: at least 1
 */
void convergence_model_fit(ConvergenceModel *model,
                           const ConvergenceLimits *limits,
                           const ConvergencePass *passes, size_t n);

/**
 * convergence_model_left_over: pages that a pass leaves to be sent later
 *
 * @budget: part of the downtime limit for them, seconds
 * @page_rate: pages sent per second before switchover
 * @begin: pages to be sent at the beginning of the pass
 */
double convergence_model_left_over(double budget, double page_rate,
                                   double begin);

/**
 * convergence_model_speed: how fast the guest runs when it is throttled
 *
 * Returns: share of the unthrottled speed, 0 < share <= 1
 */
double convergence_model_speed(const ConvergenceModel *model,
                               unsigned throttle);

/**
 * convergence_model_dirtied: pages dirtied in some seconds at a throttle
 */
double convergence_model_dirtied(const ConvergenceModel *model,
                                 double seconds, unsigned throttle);

/**
 * convergence_model_pass: what remains after a pass
 *
 * @remaining: pages to be sent at its beginning
 * @all: send them all; otherwise as many as usual
 * @seconds: where to put how long it takes
 */
double convergence_model_pass(const ConvergenceModel *model,
                              double remaining, unsigned throttle, bool all,
                              double *seconds);

/**
 * convergence_model_predict: predict the passes at a constant throttle
 *
 * @horizon: seconds after which to give up
 */
void convergence_model_predict(const ConvergenceModel *model,
                               unsigned throttle, double horizon,
                               ConvergencePrediction *prediction);

#endif
