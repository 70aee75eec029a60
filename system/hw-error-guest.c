/*
 * Hardware errors: guests that have crashed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw-error/guest.h"
#include "hw-error/hw-error.h"
#include "hw/core/cpu.h"
#include "system/runstate-action.h"

/* What QEMU does by itself: see qemu_system_guest_panicked() */
static GuestPanicAction panic_default(void)
{
    switch (panic_action) {
    case PANIC_ACTION_PAUSE:
        return GUEST_PANIC_ACTION_PAUSE;
    case PANIC_ACTION_SHUTDOWN:
        return shutdown_action == SHUTDOWN_ACTION_PAUSE
               ? GUEST_PANIC_ACTION_PAUSE : GUEST_PANIC_ACTION_POWEROFF;
    case PANIC_ACTION_EXIT_FAILURE:
        return GUEST_PANIC_ACTION_POWEROFF;
    default:
        return GUEST_PANIC_ACTION_RUN;
    }
}

static bool report(const GuestPanicInformation *info, bool kdump,
                   GuestPanicAction action)
{
    /* It is a vCPU that gives details; who says no more is not known here */
    g_autofree char *path = info && current_cpu
        ? object_get_canonical_path(OBJECT(current_cpu)) : NULL;
    HwErrorInfo e = {
        .source = HW_ERROR_SOURCE_GUEST_PANIC,
        .severity = HW_ERROR_SEVERITY_FATAL,
        .u.guest_panic.qom_path = path,
        .u.guest_panic.has_kdump = true,
        .u.guest_panic.kdump = kdump,
        .u.guest_panic.action = (char *)GuestPanicAction_str(action),
    };

    return hw_error_contains(hw_error_report(&e));
}

bool hw_error_guest_panicked(const GuestPanicInformation *info)
{
    return report(info, false, panic_default());
}

void hw_error_guest_crashloaded(const GuestPanicInformation *info)
{
    report(info, true, GUEST_PANIC_ACTION_RUN);
}
