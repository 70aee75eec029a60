/*
 * Hardware errors: bad memory that KVM has met
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "cpu.h"
#include "exec/cpu-common.h"
#include "hw-error/memory.h"
#include "system/kvm.h"
#include "system/kvm_int.h"
#ifdef TARGET_AARCH64
#include "hw/acpi/ghes.h"
#endif

/*
 * Whether kvm_arch_on_sigbus_vcpu() can tell the guest of bad memory that it
 * has read; otherwise QEMU ends.
 */
static bool can_inject(CPUState *cpu)
{
#if defined(TARGET_I386)
    return X86_CPU(cpu)->env.mcg_cap & MCG_SER_P;
#elif defined(TARGET_AARCH64)
    return acpi_ghes_get_state();
#else
    return false;
#endif
}

/* BQL held */
void kvm_hw_error_remember(void *host)
{
    ram_addr_t addr = qemu_ram_addr_from_host(host);

    hw_error_memory_remember(host);
    if (addr != RAM_ADDR_INVALID) {
        kvm_hwpoison_page_add(addr);
    }
}

/* Where nobody has told QEMU how, it ends as by the signal */
static void tell_guest(CPUState *cpu, int code, void *host)
{
#if defined(TARGET_I386) || defined(TARGET_AARCH64)
    kvm_arch_on_sigbus_vcpu(cpu, code, host);
#else
    hw_error_sigbus_die();
#endif
}

/*
 * Bad memory: BUS_MCEERR_AR for what the guest has read in @cpu, from its
 * thread when KVM_RUN has returned; BUS_MCEERR_AO for what nothing has read
 * yet, from the main loop.  BQL held.
 */
void kvm_hw_error_sigbus(CPUState *cpu, int code, void *host)
{
    bool read = code == BUS_MCEERR_AR;
    hwaddr addr;
    bool guest = hw_error_memory_guest_address(host, &addr);
    HwErrorMemoryFound found = {
        .source = guest ? HW_ERROR_SOURCE_GUEST_MEMORY
                        : HW_ERROR_SOURCE_QEMU_MEMORY,
        .host = host,
        .action_required = read,
        .vcpu = read ? cpu->cpu_index : -1,
    };

    if (read && !guest) {
        hw_error_memory_report_exit(&found);
    } else if (hw_error_contains(hw_error_memory_report(&found))) {
        /*
         * Nothing is injected.  The vCPU leaves its loop, because exit_request
         * is set, and does not come back.  When the VM goes on after all, the
         * guest reads the same again, and KVM says so again.
         */
        if (guest) {
            kvm_hw_error_remember(host);
        }
        return;
    } else if (read && !can_inject(cpu)) {
        hw_error_memory_report_exit(&found);
    }

    if (guest) {
        hw_error_memory_remember(host);
    }
    tell_guest(cpu, code, host);
}
