/*
 * Hardware errors: the human monitor's commands
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-hw-error.h"
#include "record.h"

static void print_time(Monitor *mon, const HwErrorTimestamp *t)
{
    g_autoptr(GDateTime) date = g_date_time_new_from_unix_utc(t->seconds);
    g_autofree char *text = g_date_time_format(date, "%Y-%m-%d %H:%M:%S");

    monitor_printf(mon, "%s.%06" PRId64, text, t->microseconds);
}

void hmp_info_hw_errors(Monitor *mon, const QDict *qdict)
{
    g_autoptr(HwErrorLog) log = qmp_query_hardware_errors(false, 0,
                                                          &error_abort);
    HwErrorList *l;

    monitor_printf(mon, "Last: %" PRIu64 ", dropped: %" PRIu64 ", pending: %"
                   PRIu64 "\n", log->last_id, log->dropped, log->pending);
    for (l = log->errors; l; l = l->next) {
        const HwError *e = l->value;
        const char *component = hw_error_component(e->info);

        monitor_printf(mon, "#%" PRIu64 " ", e->id);
        print_time(mon, e->time);
        monitor_printf(mon, " %s, %s", HwErrorSource_str(e->info->source),
                       HwErrorSeverity_str(e->info->severity));
        if (component) {
            monitor_printf(mon, ", %s", component);
        }
        if (hw_error_count(e->info) > 1) {
            monitor_printf(mon, ", %" PRIu64 " times",
                           hw_error_count(e->info));
        }
        monitor_printf(mon, ": %s", HwErrorAction_str(e->action));
        if (e->rule) {
            monitor_printf(mon, " (%s)", e->rule);
        }
        monitor_printf(mon, ", %s\n", HwErrorOutcome_str(e->outcome));
        if (e->error) {
            monitor_printf(mon, "  %s\n", e->error);
        }
        if (e->info->description) {
            monitor_printf(mon, "  %s\n", e->info->description);
        }
    }
}
