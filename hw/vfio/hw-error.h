/*
 * Hardware errors: VFIO devices
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_HW_ERROR_H
#define HW_VFIO_HW_ERROR_H

#include "hw/vfio/vfio-device.h"

typedef struct VFIOPCIDevice VFIOPCIDevice;

/**
 * vfio_hw_error: The host says something about a device.
 * @vbasedev: the device
 * @qom_path: its QOM path
 * @guest_address: its address in the guest
 * @unplug_requested: the host wants it back; else it has failed
 *
 * Main thread, with the BQL held.  Returns: true if the VM is stopped or
 * quiesced for it, so that nothing else is to be done.
 */
bool vfio_hw_error(VFIODevice *vbasedev, const char *qom_path,
                   const char *guest_address, bool unplug_requested);

/** vfio_pci_hw_error: The same, for a PCI device. */
bool vfio_pci_hw_error(VFIOPCIDevice *vdev, bool unplug_requested);

#endif
