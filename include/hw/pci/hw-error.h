/*
 * Hardware errors: PCI devices
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_PCI_HW_ERROR_H
#define HW_PCI_HW_ERROR_H

#include "hw/pci/pci_device.h"

/**
 * pci_hw_error_address: A device's address in the guest, in the words of a
 * record: "domain:bus:slot.function".
 *
 * Called with the BQL held.  Returns: a string, to be freed.
 */
char *pci_hw_error_address(PCIDevice *dev);

/**
 * pcie_aer_hw_error: An emulated device is about to signal an error.
 * @dev: the device
 * @err: the error, with one valid bit of its status set
 * @is_fatal: whether it is an uncorrectable one that the guest, or else the
 *            specification, calls fatal
 *
 * It counts for the policy whether or not the guest has masked it.
 *
 * Called with the BQL held.  Returns: true if the VM is stopped or quiesced
 * instead; then no register may change, and no message be sent.
 */
bool pcie_aer_hw_error(PCIDevice *dev, const PCIEAERErr *err, bool is_fatal);

#endif
