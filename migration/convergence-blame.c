/*
 * Migration convergence: which vCPUs to slow down
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/rcu.h"
#include "hw/boards.h"
#include "system/kvm.h"
#include "convergence-blame.h"

/*
 * A vCPU is spared if it wrote less than a twentieth of what the busiest one
 * did: a kernel that does nothing but housekeeping writes some pages, too.
 */
#define SPARED_SHARE 20

/*
 * CPUState::dirty_pages_distinct at the last synchronization, by cpu_index.
 * CPUState::dirty_pages will not do: whenever KVM itself writes to the guest's
 * memory, as for the steal time, the page is added to the ring once more, and
 * a vCPU that often waits would look as busy as one that writes.
 */
static uint64_t *written_before;
/* Set and tested atomically */
static unsigned long *spared;

void convergence_blame_start(void)
{
    CPUState *cpu;

    if (!written_before) {
        written_before = g_new0(uint64_t, current_machine->smp.max_cpus);
        spared = bitmap_new(current_machine->smp.max_cpus);
    }
    CPU_FOREACH(cpu) {
        written_before[cpu->cpu_index] = cpu->dirty_pages_distinct;
    }
}

void convergence_blame_end(void)
{
    CPUState *cpu;

    WITH_RCU_READ_LOCK_GUARD() {
        CPU_FOREACH(cpu) {
            clear_bit_atomic(cpu->cpu_index, spared);
        }
    }
}

static uint64_t written(const CPUState *cpu)
{
    return cpu->dirty_pages_distinct - written_before[cpu->cpu_index];
}

void convergence_blame_update(void)
{
    uint64_t most = 0;
    CPUState *cpu;

    if (!kvm_enabled() || !kvm_dirty_ring_enabled()) {
        return;
    }
    CPU_FOREACH(cpu) {
        most = MAX(most, written(cpu));
    }
    CPU_FOREACH(cpu) {
        if (written(cpu) < most / SPARED_SHARE) {
            set_bit_atomic(cpu->cpu_index, spared);
        } else {
            clear_bit_atomic(cpu->cpu_index, spared);
        }
        written_before[cpu->cpu_index] = cpu->dirty_pages_distinct;
    }
}

bool convergence_blame_spares(CPUState *cpu)
{
    return spared && test_bit(cpu->cpu_index, spared);
}
