/*
 * Quiesced run state: human monitor commands
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-vm-quiesce.h"
#include "qobject/qdict.h"

void hmp_quiesce(Monitor *mon, const QDict *qdict)
{
    const char *reason = qdict_get_str(qdict, "reason");
    bool has_deadline = qdict_haskey(qdict, "deadline");
    int64_t deadline = qdict_get_try_int(qdict, "deadline", 0);
    g_autoptr(VmQuiesceToken) token = NULL;
    Error *err = NULL;

    if (deadline < 0 || deadline > UINT32_MAX) {
        error_setg(&err, "Deadline must be positive, and at most %" PRIu32
                   " milliseconds", UINT32_MAX);
    } else {
        token = qmp_vm_quiesce(reason, has_deadline, deadline, &err);
    }
    if (token) {
        monitor_printf(mon, "Token: %s\n", token->token);
    }
    hmp_handle_error(mon, err);
}

void hmp_unquiesce(Monitor *mon, const QDict *qdict)
{
    Error *err = NULL;

    qmp_vm_unquiesce(qdict_get_str(qdict, "token"), &err);
    hmp_handle_error(mon, err);
}

void hmp_info_quiesce(Monitor *mon, const QDict *qdict)
{
    g_autoptr(VmQuiesceInfo) info = qmp_query_vm_quiesce(&error_abort);
    VmQuiesceParticipantList *l;
    JobInfoList *job;
    BlockExportInfoList *export;

    monitor_printf(mon, "Phase: %s\n", VmQuiescePhase_str(info->phase));
    if (info->token) {
        monitor_printf(mon, "Token: %s\n", info->token);
        monitor_printf(mon, "Reason: %s\n", info->reason);
        monitor_printf(mon, "Duration: %" PRIu64 " ms (deadline %" PRIu32
                       " ms)\n", info->duration_ms, info->deadline_ms);
    }
    monitor_printf(mon, "Held requests: %" PRIu64 "\n", info->held_requests);
    for (job = info->cancelled_jobs; job; job = job->next) {
        monitor_printf(mon, "Cancelled job: %s (%s, %s)\n", job->value->id,
                       JobType_str(job->value->type),
                       JobStatus_str(job->value->status));
    }
    for (export = info->closed_exports; export; export = export->next) {
        monitor_printf(mon, "Closed export: %s (%s, node '%s')\n",
                       export->value->id,
                       BlockExportType_str(export->value->type),
                       export->value->node_name);
    }
    for (l = info->participants; l; l = l->next) {
        monitor_printf(mon, "  %s: %s%s%s\n", l->value->name,
                       VmQuiesceParticipantState_str(l->value->state),
                       l->value->error ? ", " : "", l->value->error ?: "");
    }
}
