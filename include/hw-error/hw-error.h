/*
 * Hardware errors: interface for who finds them
 *
 * An error is described by a HwErrorInfo (qapi/hw-error.json), usually on the
 * stack of who has found it:
 *
 *     HwErrorInfo e = {
 *         .source = HW_ERROR_SOURCE_WATCHDOG,
 *         .severity = HW_ERROR_SEVERITY_RECOVERABLE,
 *         .u.watchdog.qom_path = path,
 *     };
 *
 *     if (hw_error_contains(hw_error_report(&e))) {
 *         return;
 *     }
 *     ...what upstream does...
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_ERROR_HW_ERROR_H
#define HW_ERROR_HW_ERROR_H

#include "qapi/qapi-types-hw-error.h"
#include "qemu/notify.h"

/**
 * hw_error_report: Something has found an error.
 * @info: describes it; copied.  Members that say where it is may be missing.
 *
 * Any thread, with or without the BQL; takes no lock that is held while
 * something is waited for, and never waits.  Not for signal handlers.
 *
 * What the action asks of the VM as a whole (stop, quiesce), and the event,
 * follow from the main loop.  When a vCPU thread reports what is to be
 * stopped or quiesced, that vCPU does not enter the guest again: the caller
 * has to leave its loop as after cpu_stop_current().
 *
 * Returns the action that was chosen, for hw_error_contains() and
 * hw_error_injects().
 */
HwErrorAction hw_error_report(const HwErrorInfo *info);

/**
 * hw_error_report_exit: An error after which QEMU is about to end.
 * @info: describes it
 *
 * As hw_error_report(), but the event has been sent, as far as the monitors'
 * clients accept it without waiting, when this returns; its outcome is
 * 'exiting', whatever the action.
 */
void hw_error_report_exit(const HwErrorInfo *info);

/**
 * hw_error_flush: Send what is ready, before QEMU ends by itself.
 *
 * Any thread, with or without the BQL; never waits.
 */
void hw_error_flush(void);

/**
 * hw_error_contains: Whether the VM is stopped or quiesced for an error: then
 * the guest must not be told of it, and nothing else be done about it.
 */
static inline bool hw_error_contains(HwErrorAction action)
{
    return action == HW_ERROR_ACTION_STOP || action == HW_ERROR_ACTION_QUIESCE;
}

/**
 * hw_error_injects: Whether the guest is to be told of an error, even where
 * the VM would be stopped without a rule.
 */
static inline bool hw_error_injects(HwErrorAction action)
{
    return action == HW_ERROR_ACTION_INJECT;
}

/**
 * hw_error_stall_limit_ms: After how many milliseconds it is an error, by the
 * rules, that a request is in flight, or that a back end does not get on.
 * @source: 'block-stall' or 'backend'
 * @component: QOM path of the device, or name of the node; NULL for the lowest
 *     limit that any component has
 *
 * Returns 0 if never.  Any thread, no lock needed.
 */
uint32_t hw_error_stall_limit_ms(HwErrorSource source, const char *component);

/**
 * hw_error_stall_scan_ms: Every how many milliseconds to look for that.
 * @source: as above
 *
 * Returns 0 if no component has a limit, else a number that is not more than
 * the lowest one.  Any thread, no lock needed.
 */
uint32_t hw_error_stall_scan_ms(HwErrorSource source);

/**
 * hw_error_add_policy_notifier: Be told when rules have come or gone.
 * @n: called from the main thread with the BQL held, without data
 *
 * Called from the main thread with the BQL held.
 */
void hw_error_add_policy_notifier(Notifier *n);

#endif
