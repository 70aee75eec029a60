/*
 * Quiesced run state: one VFIO device
 *
 * Knows a device by its operations only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/vfio.h>
#include "hw/pci/pci_regs.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "vfio-migration-internal.h"
#include "vm-quiesce-device.h"

/* In these states a device does no DMA, see <linux/vfio.h> */
static bool is_stopped(VFIODevice *vbasedev)
{
    return vbasedev->migration &&
           (vbasedev->migration->device_state == VFIO_DEVICE_STATE_STOP ||
            vbasedev->migration->device_state == VFIO_DEVICE_STATE_STOP_COPY);
}

static bool read_command(VFIODevice *vbasedev, uint16_t *command, Error **errp)
{
    uint16_t raw;
    int ret = vbasedev->io_ops->region_read(vbasedev,
                                            VFIO_PCI_CONFIG_REGION_INDEX,
                                            PCI_COMMAND, sizeof(raw), &raw);

    /* All ones: it is not there any more */
    if (ret != sizeof(raw) || raw == UINT16_MAX) {
        error_setg(errp, "its command register cannot be read: %s",
                   ret < 0 ? strerror(-ret) : "no answer");
        return false;
    }
    *command = le16_to_cpu(raw);
    return true;
}

/* Sets the bit that enables bus mastering, and reads it back */
static bool set_bus_master(VFIODevice *vbasedev, bool on, bool *was_on,
                           Error **errp)
{
    uint16_t command, raw;
    int ret;

    if (!read_command(vbasedev, &command, errp)) {
        return false;
    }
    *was_on = command & PCI_COMMAND_MASTER;
    if (*was_on == on) {
        return true;
    }

    raw = cpu_to_le16(command ^ PCI_COMMAND_MASTER);
    ret = vbasedev->io_ops->region_write(vbasedev,
                                         VFIO_PCI_CONFIG_REGION_INDEX,
                                         PCI_COMMAND, sizeof(raw), &raw,
                                         false);
    if (ret != sizeof(raw)) {
        error_setg(errp, "its command register cannot be written: %s",
                   ret < 0 ? strerror(-ret) : "no answer");
        return false;
    }
    /* Also waits for writes to memory that the device has begun */
    if (!read_command(vbasedev, &command, errp)) {
        return false;
    }
    if (!(command & PCI_COMMAND_MASTER) == on) {
        error_setg(errp, "bus mastering cannot be switched %s",
                   on ? "on" : "off");
        return false;
    }
    return true;
}

bool vfio_quiesce_device(VFIODevice *vbasedev, bool *bus_master, Error **errp)
{
    *bus_master = false;
    if (is_stopped(vbasedev)) {
        return true;
    }
    if (vbasedev->type != VFIO_DEVICE_TYPE_PCI) {
        error_setg(errp, "it is in no stopped state, and not a PCI device");
        return false;
    }
    return set_bus_master(vbasedev, false, bus_master, errp);
}

bool vfio_unquiesce_device(VFIODevice *vbasedev, Error **errp)
{
    bool was_on;

    return set_bus_master(vbasedev, true, &was_on, errp);
}
