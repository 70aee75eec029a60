/*
 * Hardware errors: VFIO devices on the PCI bus
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/pci/hw-error.h"
#include "system/vm-quiesce.h"
#include "hw-error.h"
#include "pci.h"

bool vfio_pci_hw_error(VFIOPCIDevice *vdev, bool unplug_requested)
{
    g_autofree char *path = object_get_canonical_path(OBJECT(vdev));
    g_autofree char *address = pci_hw_error_address(PCI_DEVICE(vdev));

    /*
     * Nothing is unplugged from a VM that is quiesced.  The host asks again,
     * every ten seconds.
     */
    return vfio_hw_error(&vdev->vbasedev, path, address, unplug_requested) ||
           vm_quiesce_active();
}
