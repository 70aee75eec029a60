/*
 * Migration convergence and history: the human monitor's commands
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration-convergence.h"
#include "qapi/qapi-types-migration.h"
#include "qapi/qapi-visit-migration-convergence.h"
#include "qapi/visitor.h"
#include "convergence-hmp-cmds.h"

void hmp_info_convergence_parameters(Monitor *mon,
                                     const MigrationConvergenceParameters *p)
{
    monitor_printf(mon, "%s: %s\n",
                   MigrationParameter_str(MIGRATION_PARAMETER_CONVERGENCE_MODE),
                   MigrationConvergenceMode_str(p->convergence_mode));
    monitor_printf(mon, "%s: %" PRIu64 " ms\n",
                   MigrationParameter_str(
                       MIGRATION_PARAMETER_CONVERGENCE_TIME_LIMIT),
                   p->convergence_time_limit);
    monitor_printf(mon, "%s: %s\n",
                   MigrationParameter_str(
                       MIGRATION_PARAMETER_CONVERGENCE_FALLBACK),
                   MigrationConvergenceFallback_str(p->convergence_fallback));
    monitor_printf(mon, "%s: %u\n",
                   MigrationParameter_str(
                       MIGRATION_PARAMETER_CONVERGENCE_MAX_SLOWDOWN),
                   p->convergence_max_slowdown);
    monitor_printf(mon, "%s: '%s'\n",
                   MigrationParameter_str(MIGRATION_PARAMETER_MIGRATION_ID),
                   p->migration_id);
}

void hmp_convergence_set_parameter(Visitor *v, const char *param,
                                   MigrationParameter which,
                                   MigrationConvergenceParameters *p,
                                   Error **errp)
{
    switch (which) {
    case MIGRATION_PARAMETER_CONVERGENCE_MODE:
        p->has_convergence_mode = true;
        visit_type_MigrationConvergenceMode(v, param, &p->convergence_mode,
                                            errp);
        break;
    case MIGRATION_PARAMETER_CONVERGENCE_TIME_LIMIT:
        p->has_convergence_time_limit = true;
        visit_type_uint64(v, param, &p->convergence_time_limit, errp);
        break;
    case MIGRATION_PARAMETER_CONVERGENCE_FALLBACK:
        p->has_convergence_fallback = true;
        visit_type_MigrationConvergenceFallback(v, param,
                                                &p->convergence_fallback, errp);
        break;
    case MIGRATION_PARAMETER_CONVERGENCE_MAX_SLOWDOWN:
        p->has_convergence_max_slowdown = true;
        visit_type_uint8(v, param, &p->convergence_max_slowdown, errp);
        break;
    case MIGRATION_PARAMETER_MIGRATION_ID:
        visit_type_str(v, param, &p->migration_id, errp);
        break;
    default:
        g_assert_not_reached();
    }
}

static void print_pass(Monitor *mon, const MigrationPass *p)
{
    g_autofree char *rate = size_to_str(p->dirty_rate);
    g_autofree char *bandwidth = size_to_str(p->bandwidth);

    monitor_printf(mon, "  %8" PRIu64 " ms pass %u: %" PRIu64 " pages sent, %"
                   PRIu64 " modified, %" PRIu64 " left, last ", p->time,
                   p->pass, p->pages_sent, p->pages_dirtied,
                   p->pages_remaining);
    if (p->has_pages_remaining_last) {
        monitor_printf(mon, "%" PRIu64, p->pages_remaining_last);
    } else {
        monitor_printf(mon, "-");
    }
    monitor_printf(mon, "; %s/s modified, %s/s sent, throttle %u %%\n", rate,
                   bandwidth, p->throttle);
    monitor_printf(mon, "              %s: %s\n",
                   MigrationDecision_str(p->decision), p->reason);
}

static void print_record(Monitor *mon, const MigrationRecord *r)
{
    g_autoptr(GDateTime) date = g_date_time_new_from_unix_utc(r->start / 1000);
    g_autofree char *text = g_date_time_format(date, "%Y-%m-%d %H:%M:%S");
    const MigrationPassList *l;

    monitor_printf(mon, "%s.%03u %s: %s%s, %s after %" PRIu64 " ms", text,
                   (unsigned)(r->start % 1000), r->id,
                   MigrationDirection_str(r->direction),
                   r->postcopy ? " with postcopy" : "",
                   MigrationOutcome_str(r->outcome), r->total_time);
    if (r->has_bytes) {
        g_autofree char *bytes = size_to_str(r->bytes);

        monitor_printf(mon, ", %s", bytes);
    }
    if (r->has_downtime) {
        monitor_printf(mon, ", downtime %" PRIu64 " ms", r->downtime);
        if (r->has_predicted_downtime) {
            monitor_printf(mon, " (predicted %" PRIu64 " ms)",
                           r->predicted_downtime);
        }
    }
    monitor_printf(mon, "\n");
    if (r->error) {
        monitor_printf(mon, "  %s\n", r->error);
    }
    for (l = r->passes; l; l = l->next) {
        print_pass(mon, l->value);
    }
    if (r->passes_dropped) {
        monitor_printf(mon, "  %" PRIu64 " passes in the middle are not kept\n",
                       r->passes_dropped);
    }
}

void hmp_info_migrate_history(Monitor *mon, const QDict *qdict)
{
    g_autoptr(MigrationRecordList) list =
        qmp_query_migration_history(&error_abort);
    const MigrationRecordList *l;

    if (!list) {
        monitor_printf(mon, "No migrations\n");
    }
    for (l = list; l; l = l->next) {
        print_record(mon, l->value);
    }
}
