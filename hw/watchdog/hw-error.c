/*
 * Hardware errors: watchdogs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw-error/guest.h"
#include "hw-error/hw-error.h"
#include "system/watchdog.h"

/* The one that has expired, while that is handled; protected by the BQL */
static Object *expired;

void watchdog_perform_action_for(Object *watchdog)
{
    expired = watchdog;
    watchdog_perform_action();
    expired = NULL;
}

bool hw_error_watchdog(WatchdogAction action)
{
    g_autofree char *path = expired ? object_get_canonical_path(expired) : NULL;
    HwErrorInfo e = {
        .source = HW_ERROR_SOURCE_WATCHDOG,
        .severity = HW_ERROR_SEVERITY_RECOVERABLE,
        .u.watchdog.qom_path = path,
        .u.watchdog.action = (char *)WatchdogAction_str(action),
    };

    if (hw_error_contains(hw_error_report(&e))) {
        return true;
    }
    if (action == WATCHDOG_ACTION_POWEROFF) {
        /* The main loop is not entered again */
        hw_error_flush();
    }
    return false;
}
