/*
 * Quiesced run state: one VFIO device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_VM_QUIESCE_DEVICE_H
#define HW_VFIO_VM_QUIESCE_DEVICE_H

#include "hw/vfio/vfio-device.h"

/**
 * vfio_quiesce_device: Make sure that a device does no DMA.
 * @vbasedev: a device that was told that the VM has stopped
 * @bus_master: set if bus mastering was switched off, which
 *              vfio_unquiesce_device() takes back
 * @errp: says why the device may still do DMA
 *
 * Any thread; nobody else may change the device's state or its command
 * register meanwhile.  Waits while the host resets the device.  Returns: false
 * and sets @errp on failure.
 */
bool vfio_quiesce_device(VFIODevice *vbasedev, bool *bus_master, Error **errp);

/**
 * vfio_unquiesce_device: Switch bus mastering on again.
 *
 * As above.  Returns: false and sets @errp on failure.
 */
bool vfio_unquiesce_device(VFIODevice *vbasedev, Error **errp);

#endif
