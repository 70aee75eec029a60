/*
 * Hardware errors: one VFIO device
 *
 * Knows a device by its name only.  The physical device's registers are not
 * read: the host has cleared them, or resets the device, and meanwhile makes
 * whoever reads them wait, for two seconds or longer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw-error/hw-error.h"
#include "hw-error/severity.h"
#include "hw-error.h"

/* By default, the name is the last part of the path in sysfs */
static bool is_pci_address(const char *name)
{
    return g_regex_match_simple("^[[:xdigit:]]{4,8}:[[:xdigit:]]{2}:"
                                "[01][[:xdigit:]]\\.[0-7]$", name, 0, 0);
}

bool vfio_hw_error(VFIODevice *vbasedev, const char *qom_path,
                   const char *guest_address, bool unplug_requested)
{
    /* What the host could correct is not notified */
    const char *word = unplug_requested ? "correctable" : "fatal";
    HwErrorInfo e = {
        .source = HW_ERROR_SOURCE_VFIO,
        .severity = hw_error_severity(HW_ERROR_SCHEME_AER, word),
        .u.vfio.qom_path = (char *)qom_path,
        .u.vfio.guest_address = (char *)guest_address,
        .u.vfio.has_unplug_requested = true,
        .u.vfio.unplug_requested = unplug_requested,
    };

    if (vbasedev->name && is_pci_address(vbasedev->name)) {
        e.u.vfio.host_address = vbasedev->name;
    }
    return hw_error_contains(hw_error_report(&e));
}
