/*
 * Hardware errors: memory that cannot be read
 *
 * What is known of an address in this process goes into the record: where the
 * guest has it, the RAM block, the NUMA node.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "exec/cpu-common.h"
#include "hw-error/memory.h"
#include "hw-error/severity.h"
#include "hw/boards.h"
#include "hw/mem/memory-device.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "system/address-spaces.h"
#include "system/hostmem.h"
#include "system/kvm.h"
#include "system/memory.h"
#include "system/numa.h"
#include "system/reset.h"
#include "system/system.h"
#include "trace.h"

/*
 * Pages that are known to be bad are not reported again when QEMU reads them.
 * When there are more than this, not even new ones are.
 */
#define KNOWN_MAX (1 << 20)

static QemuMutex known_lock;
/* Start of the host's page; protected by known_lock */
static GHashTable *known;

typedef struct FindGuestAddress {
    const RAMBlock *rb;
    ram_addr_t offset;
    hwaddr addr;
} FindGuestAddress;

static void *page_start(void *host)
{
    return (void *)ROUND_DOWN((uintptr_t)host, qemu_real_host_page_size());
}

static bool find_guest_address(Int128 start, Int128 len,
                               const MemoryRegion *mr, hwaddr offset,
                               void *opaque)
{
    FindGuestAddress *f = opaque;

    if (mr->ram_block != f->rb || f->offset < offset ||
        f->offset - offset >= int128_get64(len)) {
        return false;
    }
    f->addr = int128_get64(start) + (f->offset - offset);
    return true;
}

/* RCU critical section */
static bool guest_address(const RAMBlock *rb, ram_addr_t offset, hwaddr *addr)
{
    FindGuestAddress f = { .rb = rb, .offset = offset, .addr = HWADDR_MAX };

    flatview_for_each_range(address_space_to_flatview(&address_space_memory),
                            find_guest_address, &f);
    *addr = f.addr;
    return f.addr != HWADDR_MAX;
}

bool hw_error_memory_guest_address(void *host, hwaddr *addr)
{
    RAMBlock *rb;
    ram_addr_t offset;

    RCU_READ_LOCK_GUARD();
    rb = qemu_ram_block_from_host(host, false, &offset);
    return rb && guest_address(rb, offset, addr);
}

/* Called with the BQL held */
static bool device_numa_node(hwaddr addr, uint32_t *node)
{
    g_autoptr(MemoryDeviceInfoList) list = qmp_memory_device_list();
    MemoryDeviceInfoList *l;

    for (l = list; l; l = l->next) {
        PCDIMMDeviceInfo *dimm;

        switch (l->value->type) {
        case MEMORY_DEVICE_INFO_KIND_DIMM:
            dimm = l->value->u.dimm.data;
            break;
        case MEMORY_DEVICE_INFO_KIND_NVDIMM:
            dimm = l->value->u.nvdimm.data;
            break;
        default:
            continue;
        }
        if (addr >= dimm->addr && addr - dimm->addr < dimm->size) {
            *node = dimm->node;
            return true;
        }
    }
    return false;
}

/* Called with the BQL held */
static bool numa_node(RAMBlock *rb, hwaddr addr, uint32_t *node)
{
    MachineState *ms = current_machine;
    int i;

    if (!ms->numa_state || !ms->numa_state->num_nodes) {
        return false;
    }
    for (i = 0; i < ms->numa_state->num_nodes; i++) {
        HostMemoryBackend *backend = ms->numa_state->nodes[i].node_memdev;

        if (backend &&
            host_memory_backend_get_memory(backend)->ram_block == rb) {
            *node = i;
            return true;
        }
    }
    return device_numa_node(addr, node);
}

/*
 * RCU critical section; @info is valid until its end.  Both sources have the
 * same details.
 */
static void describe(HwErrorInfo *info, const HwErrorMemoryFound *found)
{
    HwErrorMemory *m = found->source == HW_ERROR_SOURCE_GUEST_MEMORY ?
                       &info->u.guest_memory : &info->u.qemu_memory;
    ram_addr_t offset;
    RAMBlock *rb = qemu_ram_block_from_host(found->host, false, &offset);

    info->source = found->source;
    if (found->source == HW_ERROR_SOURCE_QEMU_MEMORY &&
        found->action_required) {
        info->severity = HW_ERROR_SEVERITY_FATAL;
    } else {
        info->severity = hw_error_severity(HW_ERROR_SCHEME_MCE,
                                           found->action_required ? "SRAR"
                                                                  : "SRAO");
    }
    info->description = (char *)found->description;

    m->has_host_address = true;
    m->host_address = (uintptr_t)found->host;
    m->has_page_size = true;
    m->page_size = rb ? qemu_ram_pagesize(rb) : qemu_real_host_page_size();
    if (found->size > m->page_size) {
        info->has_count = true;
        info->count = DIV_ROUND_UP(found->size, m->page_size);
    }
    m->has_action_required = true;
    m->action_required = found->action_required;
    m->has_vcpu = found->vcpu >= 0;
    m->vcpu = MAX(found->vcpu, 0);
    if (!rb) {
        return;
    }

    m->ram_block = (char *)qemu_ram_get_idstr(rb);
    m->has_ram_offset = true;
    m->ram_offset = offset;
    m->has_guest_address = guest_address(rb, offset, &m->guest_address);
    if (bql_locked()) {
        m->has_numa_node = numa_node(rb, m->guest_address, &m->numa_node);
    }
}

HwErrorAction hw_error_memory_report(const HwErrorMemoryFound *found)
{
    HwErrorInfo info = { };

    RCU_READ_LOCK_GUARD();
    describe(&info, found);
    trace_hw_error_memory(found->host, found->action_required, found->vcpu);
    return hw_error_report(&info);
}

void hw_error_memory_report_exit(const HwErrorMemoryFound *found)
{
    HwErrorInfo info = { };

    RCU_READ_LOCK_GUARD();
    describe(&info, found);
    trace_hw_error_memory(found->host, found->action_required, found->vcpu);
    hw_error_report_exit(&info);
}

bool hw_error_memory_remember(void *host)
{
    QEMU_LOCK_GUARD(&known_lock);
    return g_hash_table_size(known) < KNOWN_MAX &&
           g_hash_table_add(known, page_start(host));
}

static void forget(void *opaque)
{
    QEMU_LOCK_GUARD(&known_lock);
    g_hash_table_remove_all(known);
}

/* Migration is refused from now on; needs the BQL */
static void tell_kvm_bh(void *host)
{
    kvm_hw_error_remember(host);
}

void hw_error_memory_unreadable(void *host, size_t size, bool machine_check)
{
    HwErrorMemoryFound found = {
        .source = HW_ERROR_SOURCE_GUEST_MEMORY,
        .host = host,
        .size = size,
        .vcpu = -1,
        .description = "found by reading the guest's memory for the monitor",
    };
    char *p;
    bool new = false;

    for (p = host; p < (char *)host + size; p += qemu_real_host_page_size()) {
        if (!hw_error_memory_remember(p)) {
            continue;
        }
        new = true;
        if (machine_check && kvm_enabled()) {
            aio_bh_schedule_oneshot(qemu_get_aio_context(), tell_kvm_bh, p);
        }
    }
    if (new) {
        hw_error_memory_report(&found);
    }
}

static void memory_ready(Notifier *n, void *data)
{
    qemu_register_reset(forget, NULL);
}

static void __attribute__((__constructor__)) memory_init(void)
{
    static Notifier ready = { .notify = memory_ready };

    qemu_mutex_init(&known_lock);
    known = g_hash_table_new(NULL, NULL);
    qemu_add_machine_init_done_notifier(&ready);
}
