/*
 * Hardware errors
 *
 * Binds the policy (policy.c) and the records (journal.c) to whoever finds
 * errors, to the main loop, to the run state, and to QMP.
 *
 * Theory of operation: hw_error_report() may be called anywhere.  Under
 * @hw_error_lock it finds the rule and notes the error, and it tells its
 * caller what was chosen.  A bottom half does the rest: it quiesces the VM for
 * what waits for that, and sends what is ready.  It belongs to the main loop's
 * own context, so it does not run in a nested event loop, in the middle of
 * something else.
 *
 * Locks: @hw_error_send_lock is held while records are sent, so that they are
 * sent in the order of their numbers, and are not freed meanwhile.
 * @hw_error_lock protects the rules and the journal; it is taken inside of it,
 * and nothing is called with it held that takes another lock.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/aio.h"
#include "hw-error/hw-error.h"
#include "hw/core/cpu.h"
#include "internal.h"
#include "journal.h"
#include "policy.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-hw-error.h"
#include "qapi/qapi-commands-vm-quiesce.h"
#include "qapi/qapi-events-hw-error.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "record.h"
#include "system/cpus.h"
#include "system/runstate.h"
#include "system/vm-quiesce.h"
#include "trace.h"

/* How often stalls are looked for: a quarter of the limit, within these */
#define SCAN_MIN_MS 10
#define SCAN_MAX_MS 250

static QemuMutex hw_error_lock;
static QemuMutex hw_error_send_lock;

/* Protected by @hw_error_lock */
static HwErrorJournal hw_error_journal;
static HwErrorRules hw_error_rules = QTAILQ_HEAD_INITIALIZER(hw_error_rules);
static bool hw_error_bh_scheduled;
/* Since the bottom half has run: it stops or quiesces the VM for a record */
static bool hw_error_containing;

/* For the main thread, with the BQL held */
static NotifierList hw_error_policy_notifiers =
    NOTIFIER_LIST_INITIALIZER(hw_error_policy_notifiers);
static QEMUTimer *hw_error_timer;

static int64_t hw_error_now_ns(void)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
}

/* Sending; any thread */

/* In which state the VM is stopped: as if there was no rule, where it would */
static RunState hw_error_run_state(HwErrorSource source)
{
    switch (source) {
    case HW_ERROR_SOURCE_KVM:
    case HW_ERROR_SOURCE_VFIO:
        return RUN_STATE_INTERNAL_ERROR;
    case HW_ERROR_SOURCE_BLOCK_IO:
        return RUN_STATE_IO_ERROR;
    case HW_ERROR_SOURCE_GUEST_PANIC:
        return RUN_STATE_GUEST_PANICKED;
    case HW_ERROR_SOURCE_WATCHDOG:
        return RUN_STATE_WATCHDOG;
    default:
        return RUN_STATE_PAUSED;
    }
}

static HwError *hw_error_take(void)
{
    QEMU_LOCK_GUARD(&hw_error_lock);
    HwError *record = hw_error_journal_take(&hw_error_journal);

    if (record && record->action == HW_ERROR_ACTION_STOP &&
        record->outcome == HW_ERROR_OUTCOME_NONE && runstate_is_running()) {
        record->outcome = HW_ERROR_OUTCOME_STOPPING;
    }
    return record;
}

static void hw_error_send(void)
{
    QEMU_LOCK_GUARD(&hw_error_send_lock);
    HwError *record;

    while ((record = hw_error_take())) {
        bool stop = record->outcome == HW_ERROR_OUTCOME_STOPPING;

        /* STOP follows, also if somebody continues the VM because of this */
        if (stop) {
            qemu_system_vmstop_request_prepare();
        }
        trace_hw_error_send(record->id,
                            HwErrorSource_str(record->info->source),
                            HwErrorSeverity_str(record->info->severity),
                            HwErrorAction_str(record->action),
                            HwErrorOutcome_str(record->outcome));
        qapi_event_send_hardware_error(record);
        if (stop) {
            qemu_system_vmstop_request(
                hw_error_run_state(record->info->source));
        }
    }
}

/* The main loop */

static void hw_error_settle(HwErrorOutcome outcome, const VmQuiesceInfo *info,
                            const char *error)
{
    QEMU_LOCK_GUARD(&hw_error_lock);

    hw_error_journal_settle(&hw_error_journal, outcome, info, error);
}

/* Tell those records that wait what has come of quiescing, if that is known */
static void hw_error_settle_quiesce(void)
{
    g_autoptr(VmQuiesceInfo) info = qmp_query_vm_quiesce(&error_abort);

    switch (info->phase) {
    case VM_QUIESCE_PHASE_QUIESCED:
        hw_error_settle(HW_ERROR_OUTCOME_QUIESCED, info, NULL);
        break;
    case VM_QUIESCE_PHASE_FAILED:
        hw_error_settle(HW_ERROR_OUTCOME_QUIESCE_FAILED, info,
                        "Not every part of the VM is contained");
        break;
    default:
        break;
    }
}

/* The reason to quiesce for, to be freed; NULL if there is none */
static char *hw_error_quiesce_reason(void)
{
    QEMU_LOCK_GUARD(&hw_error_lock);
    const HwError *record = hw_error_journal_waiting(&hw_error_journal);
    const char *component;

    if (!record) {
        return NULL;
    }
    component = hw_error_component(record->info);
    return g_strdup_printf("Hardware error (%s, %s%s%s), rule '%s'",
                           HwErrorSource_str(record->info->source),
                           HwErrorSeverity_str(record->info->severity),
                           component ? ", " : "", component ?: "",
                           record->rule);
}

static void hw_error_quiesce(void)
{
    g_autofree char *reason = hw_error_quiesce_reason();
    Error *err = NULL;

    if (!reason) {
        return;
    }
    if (!vm_quiesce_active() && !vm_quiesce_begin(reason, 0, &err)) {
        /* A vCPU that has reported this does not run on */
        if (runstate_is_running()) {
            qemu_system_vmstop_request_prepare();
            qemu_system_vmstop_request(RUN_STATE_PAUSED);
        }
        hw_error_settle(HW_ERROR_OUTCOME_QUIESCE_FAILED, NULL,
                        error_get_pretty(err));
        error_free(err);
        return;
    }
    hw_error_settle_quiesce();
}

static void hw_error_quiesce_notify(Notifier *n, void *data)
{
    hw_error_settle_quiesce();
    hw_error_send();
}

static Notifier hw_error_quiesce_notifier = {
    .notify = hw_error_quiesce_notify,
};

static int64_t hw_error_expire(void)
{
    QEMU_LOCK_GUARD(&hw_error_lock);

    hw_error_bh_scheduled = false;
    hw_error_containing = false;
    return hw_error_journal_expire(&hw_error_journal, hw_error_now_ns());
}

static void hw_error_process(void *opaque)
{
    int64_t next = hw_error_expire();

    if (!hw_error_timer) {
        hw_error_timer = timer_new_ns(QEMU_CLOCK_REALTIME, hw_error_process,
                                      NULL);
        vm_quiesce_add_notifier(&hw_error_quiesce_notifier);
    }
    if (next >= 0) {
        timer_mod(hw_error_timer, next);
    }
    hw_error_quiesce();
    hw_error_send();
}

static void hw_error_schedule(void)
{
    if (!hw_error_bh_scheduled) {
        hw_error_bh_scheduled = true;
        aio_bh_schedule_oneshot(iohandler_get_aio_context(), hw_error_process,
                                NULL);
    }
}

/* Reporting; any thread */

/* Whether an error is reported only because it has ended */
static bool hw_error_is_over(const HwErrorInfo *info)
{
    switch (info->source) {
    case HW_ERROR_SOURCE_BLOCK_STALL:
        return info->u.block_stall.has_ended && info->u.block_stall.ended;
    case HW_ERROR_SOURCE_BACKEND:
        return info->u.backend.state == HW_ERROR_BACKEND_STATE_BACK;
    default:
        return false;
    }
}

/* The action for an error, by its rule, which may not be NULL then */
static HwErrorAction hw_error_effective(const HwErrorInfo *info,
                                        const HwErrorPolicyRule *rule)
{
    HwErrorAction action = rule ? rule->match->action : HW_ERROR_ACTION_REPORT;

    switch (action) {
    case HW_ERROR_ACTION_INJECT:
        if (info->agent || !hw_error_can_inject(info->source)) {
            return HW_ERROR_ACTION_REPORT;
        }
        break;
    case HW_ERROR_ACTION_STOP:
    case HW_ERROR_ACTION_QUIESCE:
        if (hw_error_is_over(info)) {
            return HW_ERROR_ACTION_REPORT;
        }
        /* The guest saves the evidence itself, if it may run on */
        if (info->source == HW_ERROR_SOURCE_GUEST_PANIC &&
            info->u.guest_panic.kdump) {
            return HW_ERROR_ACTION_REPORT;
        }
        break;
    default:
        break;
    }
    return action;
}

/* Called with @hw_error_lock held */
static HwErrorAction hw_error_choose(const HwErrorInfo *info, int64_t now_ns,
                                     const HwErrorPolicyRule **rule)
{
    *rule = hw_error_policy_choose(&hw_error_rules, info->source,
                                   info->severity, hw_error_component(info),
                                   hw_error_count(info), now_ns);
    return hw_error_effective(info, *rule);
}

HwErrorAction hw_error_report(const HwErrorInfo *info)
{
    const HwErrorPolicyRule *rule;
    HwErrorAction action;

    WITH_QEMU_LOCK_GUARD(&hw_error_lock) {
        int64_t now_ns = hw_error_now_ns();

        action = hw_error_choose(info, now_ns, &rule);
        trace_hw_error_report(HwErrorSource_str(info->source),
                              HwErrorSeverity_str(info->severity),
                              hw_error_component(info) ?: "",
                              HwErrorAction_str(action), rule ? rule->id : "");
        if (action != HW_ERROR_ACTION_IGNORE) {
            /* A VM that was continued a moment ago must not run on */
            bool urgent = hw_error_contains(action) && !hw_error_containing &&
                          runstate_is_running();

            hw_error_containing |= urgent;
            hw_error_journal_add(&hw_error_journal, info, action,
                                 rule ? rule->id : NULL, urgent, now_ns,
                                 g_get_real_time());
            hw_error_schedule();
        }
    }

    if (hw_error_contains(action)) {
        cpu_stop_current();
    }
    return action;
}

void hw_error_report_exit(const HwErrorInfo *info)
{
    WITH_QEMU_LOCK_GUARD(&hw_error_lock) {
        const HwErrorPolicyRule *rule;
        HwErrorAction action = hw_error_choose(info, hw_error_now_ns(), &rule);

        hw_error_journal_add_last(&hw_error_journal, info, action,
                                  rule ? rule->id : NULL, g_get_real_time());
    }
    hw_error_send();
}

void hw_error_flush(void)
{
    hw_error_send();
}

/* The policy; called from the main thread with the BQL held */

HwErrorPolicyRule *hw_error_rule_add(const char *id,
                                     const HwErrorRuleProperties *match,
                                     Error **errp)
{
    HwErrorPolicyRule *rule;

    WITH_QEMU_LOCK_GUARD(&hw_error_lock) {
        rule = hw_error_policy_add(&hw_error_rules, id, match, errp);
    }
    if (rule) {
        notifier_list_notify(&hw_error_policy_notifiers, NULL);
    }
    return rule;
}

void hw_error_rule_remove(HwErrorPolicyRule *rule)
{
    WITH_QEMU_LOCK_GUARD(&hw_error_lock) {
        hw_error_policy_remove(&hw_error_rules, rule);
    }
    notifier_list_notify(&hw_error_policy_notifiers, NULL);
}

uint32_t hw_error_stall_limit_ms(HwErrorSource source, const char *component)
{
    QEMU_LOCK_GUARD(&hw_error_lock);

    return hw_error_policy_stall_limit(&hw_error_rules, source, component);
}

uint32_t hw_error_stall_scan_ms(HwErrorSource source)
{
    uint32_t shortest_ms = hw_error_stall_limit_ms(source, NULL);

    return shortest_ms ? MAX(SCAN_MIN_MS, MIN(shortest_ms / 4, SCAN_MAX_MS))
                       : 0;
}

void hw_error_add_policy_notifier(Notifier *n)
{
    notifier_list_add(&hw_error_policy_notifiers, n);
}

/* QMP */

void qmp_hw_error_report(HwErrorInfo *info, Error **errp)
{
    if (!info->agent) {
        error_setg(errp, "Parameter 'agent' is missing");
        return;
    }
    if (hw_error_check(info, errp)) {
        hw_error_report(info);
    }
}

HwErrorLog *qmp_query_hardware_errors(bool has_since_id, uint64_t since_id,
                                      Error **errp)
{
    QEMU_LOCK_GUARD(&hw_error_lock);

    return hw_error_journal_query(&hw_error_journal,
                                  has_since_id ? since_id : 0);
}

void qmp_hw_error_clear(bool has_up_to_id, uint64_t up_to_id, Error **errp)
{
    QEMU_LOCK_GUARD(&hw_error_send_lock);
    QEMU_LOCK_GUARD(&hw_error_lock);

    if (has_up_to_id && up_to_id > hw_error_journal.last_id) {
        error_setg(errp, "There is no hardware error %" PRIu64 " yet",
                   up_to_id);
        return;
    }
    hw_error_journal_clear(&hw_error_journal,
                           has_up_to_id ? up_to_id : hw_error_journal.last_id);
    hw_error_policy_reset(&hw_error_rules);
}

HwErrorPolicy *qmp_query_hw_error_policy(HwErrorInfo *error, Error **errp)
{
    QEMU_LOCK_GUARD(&hw_error_lock);
    int64_t now_ns = hw_error_now_ns();
    HwErrorPolicy *policy;

    if (error && !hw_error_check(error, errp)) {
        return NULL;
    }
    policy = g_new0(HwErrorPolicy, 1);
    policy->rules = hw_error_policy_query(&hw_error_rules, now_ns);
    if (error) {
        const HwErrorPolicyRule *rule = hw_error_policy_peek(
            &hw_error_rules, error->source, error->severity,
            hw_error_component(error), hw_error_count(error), now_ns);

        policy->has_action = true;
        policy->action = hw_error_effective(error, rule);
        policy->rule = rule ? g_strdup(rule->id) : NULL;
    }
    return policy;
}

static void __attribute__((__constructor__)) hw_error_init(void)
{
    qemu_mutex_init(&hw_error_lock);
    qemu_mutex_init(&hw_error_send_lock);
    hw_error_journal_init(&hw_error_journal);
}
