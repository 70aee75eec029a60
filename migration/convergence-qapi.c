/*
 * Migration convergence: from what was reported back to what was measured
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "convergence-qapi.h"

/* One can be cast to the other. */
QEMU_BUILD_BUG_ON((int)CONVERGENCE_CONTINUE !=
                  (int)MIGRATION_DECISION_CONTINUE);
QEMU_BUILD_BUG_ON((int)CONVERGENCE_THROTTLE !=
                  (int)MIGRATION_DECISION_THROTTLE);
QEMU_BUILD_BUG_ON((int)CONVERGENCE_POLISH != (int)MIGRATION_DECISION_POLISH);
QEMU_BUILD_BUG_ON((int)CONVERGENCE_WITHHOLD !=
                  (int)MIGRATION_DECISION_WITHHOLD);
QEMU_BUILD_BUG_ON((int)CONVERGENCE_SWITCH_OVER !=
                  (int)MIGRATION_DECISION_SWITCH_OVER);
QEMU_BUILD_BUG_ON((int)CONVERGENCE_POSTCOPY !=
                  (int)MIGRATION_DECISION_POSTCOPY);
QEMU_BUILD_BUG_ON((int)CONVERGENCE_ABORT != (int)MIGRATION_DECISION_ABORT);
QEMU_BUILD_BUG_ON((int)CONVERGENCE_ABORT + 1 !=
                  (int)MIGRATION_DECISION__MAX);

void convergence_pass_from_qapi(ConvergencePass *pass,
                                const MigrationPass *reported)
{
    *pass = (ConvergencePass) {
        .end = reported->time,
        .duration = reported->duration,
        .sync_time = reported->sync_time,
        .bytes_sent = reported->bytes_sent,
        .pages_sent = reported->pages_sent,
        .pages_dirtied = reported->pages_dirtied,
        .pages_hot = reported->pages_hot,
        .pages_withheld = reported->pages_withheld,
        .pages_remaining = reported->pages_remaining,
        .bandwidth_low = reported->bandwidth_low,
        .switchover_bandwidth = reported->switchover_bandwidth,
        .switchover_likely = reported->switchover_likely,
        .fixed_cost = reported->fixed_cost,
        .throttle = reported->throttle,
        .can_switch_over = reported->can_switch_over,
        .decided = {
            .action = (ConvergenceAction)reported->decision,
            .throttle = reported->next_throttle,
            .downtime_fixed = reported->downtime_fixed,
            .downtime_copy = reported->downtime_copy,
            .converges = reported->has_predicted_time,
            .predicted_time = reported->predicted_time,
            .predicted_downtime = reported->predicted_downtime,
        },
    };
    pstrcpy(pass->decided.reason, sizeof(pass->decided.reason),
            reported->reason);
}

void convergence_limits_from_qapi(ConvergenceLimits *limits,
                                  const MigrationRecord *record)
{
    *limits = (ConvergenceLimits) {
        .downtime_limit = record->downtime_limit,
        .time_limit = record->time_limit,
        .max_slowdown = record->max_slowdown,
        .page_size = record->passes ? record->passes->value->page_size : 0,
        .postcopy = record->fallback == MIGRATION_CONVERGENCE_FALLBACK_POSTCOPY,
    };
    for (MigrationPassList *p = record->passes; p; p = p->next) {
        limits->can_withhold |=
            p->value->decision == MIGRATION_DECISION_WITHHOLD;
    }
}
