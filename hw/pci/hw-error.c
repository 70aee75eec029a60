/*
 * Hardware errors: emulated PCI Express devices
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw-error/hw-error.h"
#include "hw-error/severity.h"
#include "hw/pci/hw-error.h"
#include "hw/pci/pcie_regs.h"

char *pci_hw_error_address(PCIDevice *dev)
{
    /* As in query-pci, all is in one domain */
    return g_strdup_printf("0000:%02x:%02x.%x", pci_dev_bus_num(dev),
                           PCI_SLOT(dev->devfn), PCI_FUNC(dev->devfn));
}

/* How the device signals it, in AER's words */
static const char *aer_word(const PCIEAERErr *err, bool is_fatal)
{
    if (is_fatal) {
        return "fatal";
    }
    /* An advisory one is uncorrected, but signalled as a correctable one */
    return err->flags & (PCIE_AER_ERR_IS_CORRECTABLE |
                         PCIE_AER_ERR_MAYBE_ADVISORY) ? "correctable"
                                                      : "nonfatal";
}

bool pcie_aer_hw_error(PCIDevice *dev, const PCIEAERErr *err, bool is_fatal)
{
    const char *word = aer_word(err, is_fatal);
    bool uncorrectable = !(err->flags & PCIE_AER_ERR_IS_CORRECTABLE);
    bool correctable = g_str_equal(word, "correctable");
    g_autofree char *path = object_get_canonical_path(OBJECT(dev));
    g_autofree char *address = pci_hw_error_address(dev);
    g_autoptr(uint32List) header = NULL;
    HwErrorInfo e = {
        .source = HW_ERROR_SOURCE_PCIE_AER,
        .severity = hw_error_severity(HW_ERROR_SCHEME_AER, word),
        .u.pcie_aer.qom_path = path,
        .u.pcie_aer.guest_address = address,
        .u.pcie_aer.has_uncorrectable_status = uncorrectable,
        .u.pcie_aer.uncorrectable_status = err->status & PCI_ERR_UNC_SUPPORTED,
        .u.pcie_aer.has_correctable_status = correctable,
        .u.pcie_aer.correctable_status =
            uncorrectable ? PCI_ERR_COR_ADV_NONFATAL
                          : err->status & PCI_ERR_COR_SUPPORTED,
    };
    int i;

    if (err->flags & PCIE_AER_ERR_HEADER_VALID) {
        for (i = ARRAY_SIZE(err->header) - 1; i >= 0; i--) {
            QAPI_LIST_PREPEND(header, err->header[i]);
        }
        e.u.pcie_aer.has_tlp_header = true;
        e.u.pcie_aer.tlp_header = header;
    }
    return hw_error_contains(hw_error_report(&e));
}
