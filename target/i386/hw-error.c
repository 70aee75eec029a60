/*
 * Hardware errors: x86 machine checks
 *
 * Those that the monitor injects; memory errors of the host are reported where
 * the host tells of them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw-error.h"
#include "hw-error/hw-error.h"
#include "hw-error/severity.h"
#include "system/address-spaces.h"
#include "system/ramblock.h"

/* Least significant bit of the address that is valid */
#define MCI_MISC_LSB(misc) ((misc) & 0x3f)

/* In the words of the SDM, "UCR Error Classification" */
static const char *mce_word(uint64_t status)
{
    if (!(status & MCI_STATUS_UC)) {
        return status & MCI_STATUS_DEFERRED ? "deferred" : "corrected";
    }
    if (status & MCI_STATUS_PCC) {
        return "fatal";
    }
    if (!(status & MCI_STATUS_S)) {
        return "UCNA";
    }
    return status & MCI_STATUS_AR ? "SRAR" : "SRAO";
}

bool x86_hw_error_mce(X86CPU *cpu, uint64_t status, uint64_t addr,
                      uint64_t misc)
{
    MemoryRegionSection ram = { };
    bool contained;
    HwErrorInfo e = {
        .source = HW_ERROR_SOURCE_GUEST_MEMORY,
        .severity = hw_error_severity(HW_ERROR_SCHEME_MCE, mce_word(status)),
        .u.guest_memory.has_vcpu = true,
        .u.guest_memory.vcpu = CPU(cpu)->cpu_index,
        .u.guest_memory.has_action_required = true,
        .u.guest_memory.action_required = !!(status & MCI_STATUS_AR),
    };

    if (status & MCI_STATUS_ADDRV) {
        e.u.guest_memory.has_guest_address = true;
        e.u.guest_memory.guest_address = addr;
        ram = memory_region_find(get_system_memory(), addr, 1);
        if (status & MCI_STATUS_MISCV && MCI_MISC_LSB(misc)) {
            e.u.guest_memory.has_page_size = true;
            e.u.guest_memory.page_size = 1ULL << MCI_MISC_LSB(misc);
        }
    }
    if (ram.mr && memory_region_is_ram(ram.mr)) {
        e.u.guest_memory.ram_block = ram.mr->ram_block->idstr;
        e.u.guest_memory.has_ram_offset = true;
        e.u.guest_memory.ram_offset = ram.offset_within_region;
    }
    contained = hw_error_contains(hw_error_report(&e));
    if (ram.mr) {
        memory_region_unref(ram.mr);
    }
    return contained;
}
