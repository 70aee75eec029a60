/*
 * Hardware errors: what a description of an error says
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/host-utils.h"
#include "record.h"

#define MAX_COUNT 1000000000
#define MAX_NAME_LEN 255
#define MAX_DESCRIPTION_LEN 1024
#define MAX_ERRNO 4095
#define MAX_KVM_DATA 16
#define TLP_HEADER_WORDS 4

const char *hw_error_component(const HwErrorInfo *info)
{
    if (info->component) {
        return info->component;
    }
    switch (info->source) {
    case HW_ERROR_SOURCE_GUEST_MEMORY:
    case HW_ERROR_SOURCE_QEMU_MEMORY:
        return info->u.guest_memory.ram_block;
    case HW_ERROR_SOURCE_KVM:
        return info->u.kvm.qom_path;
    case HW_ERROR_SOURCE_PCIE_AER:
    case HW_ERROR_SOURCE_VFIO:
        return info->u.vfio.qom_path;
    case HW_ERROR_SOURCE_BLOCK_IO:
    case HW_ERROR_SOURCE_BLOCK_STALL:
        return info->u.block_io.qom_path ?: info->u.block_io.node_name;
    case HW_ERROR_SOURCE_BACKEND:
        return info->u.backend.qom_path ?: info->u.backend.node_name
                                        ?: info->u.backend.chardev;
    case HW_ERROR_SOURCE_GUEST_PANIC:
    case HW_ERROR_SOURCE_WATCHDOG:
        return info->u.watchdog.qom_path;
    case HW_ERROR_SOURCE_HOST:
        return info->u.host.label ?: info->u.host.subsystem;
    case HW_ERROR_SOURCE__MAX:
        break;
    }
    g_assert_not_reached();
}

uint64_t hw_error_detail(const HwErrorInfo *info)
{
    switch (info->source) {
    case HW_ERROR_SOURCE_GUEST_MEMORY:
    case HW_ERROR_SOURCE_QEMU_MEMORY: {
        const HwErrorMemory *m = &info->u.guest_memory;
        uint64_t address = m->has_guest_address ? m->guest_address :
            m->has_host_address ? m->host_address : m->host_physical_address;

        /* A page's errors, that which must be handled apart from the others */
        return address << 1 | (m->has_action_required && m->action_required);
    }
    case HW_ERROR_SOURCE_KVM:
        return (uint64_t)info->u.kvm.reason << 32 | info->u.kvm.vcpu;
    case HW_ERROR_SOURCE_PCIE_AER:
    case HW_ERROR_SOURCE_VFIO:
        return ((uint64_t)info->u.vfio.uncorrectable_status << 32 |
                info->u.vfio.correctable_status) +
               info->u.vfio.unplug_requested;
    case HW_ERROR_SOURCE_BLOCK_IO:
    case HW_ERROR_SOURCE_BLOCK_STALL: {
        const HwErrorBlock *b = &info->u.block_io;

        return (uint64_t)b->q_errno << 32 | b->operation << 8 |
               b->action << 1 | b->ended;
    }
    case HW_ERROR_SOURCE_BACKEND:
        return info->u.backend.type << 8 | info->u.backend.state;
    case HW_ERROR_SOURCE_GUEST_PANIC:
    case HW_ERROR_SOURCE_WATCHDOG:
        return info->u.watchdog.kdump;
    case HW_ERROR_SOURCE_HOST:
        return info->u.host.status;
    case HW_ERROR_SOURCE__MAX:
        break;
    }
    g_assert_not_reached();
}

uint64_t hw_error_count(const HwErrorInfo *info)
{
    return info->has_count ? info->count : 1;
}

/* What comes from outside */

static bool check_text(const char *name, const char *value, size_t max,
                       Error **errp)
{
    const char *c;

    if (!*value || strlen(value) > max) {
        error_setg(errp, "Parameter '%s' must have 1 to %zu bytes", name, max);
        return false;
    }
    for (c = value; *c; c++) {
        if (g_ascii_iscntrl(*c)) {
            error_setg(errp, "Parameter '%s' must not have control characters",
                       name);
            return false;
        }
    }
    return true;
}

bool hw_error_check_name(const char *name, const char *value, Error **errp)
{
    return check_text(name, value, MAX_NAME_LEN, errp);
}

static bool check_optional_name(const char *name, const char *value,
                                Error **errp)
{
    return !value || hw_error_check_name(name, value, errp);
}

static bool check_memory(const HwErrorMemory *m, Error **errp)
{
    if (m->has_page_size && !is_power_of_2(m->page_size)) {
        error_setg(errp, "Parameter 'page-size' must be a power of two");
        return false;
    }
    if (m->has_ram_offset && !m->ram_block) {
        error_setg(errp, "Parameter 'ram-offset' requires 'ram-block'");
        return false;
    }
    return check_optional_name("ram-block", m->ram_block, errp);
}

static bool check_kvm(const HwErrorKvm *k, Error **errp)
{
    if (QAPI_LIST_LENGTH(k->data) > MAX_KVM_DATA) {
        error_setg(errp, "Parameter 'data' must have at most %d elements",
                   MAX_KVM_DATA);
        return false;
    }
    return check_optional_name("qom-path", k->qom_path, errp);
}

/* "domain:bus:slot.function", in hexadecimal */
static bool check_pci_address(const char *name, const char *value, Error **errp)
{
    if (value && !g_regex_match_simple(
            "^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\\.[0-7]$", value,
            G_REGEX_CASELESS | G_REGEX_DOLLAR_ENDONLY, 0)) {
        error_setg(errp, "Parameter '%s' expects domain:bus:slot.function",
                   name);
        return false;
    }
    return true;
}

static bool check_pci(const HwErrorPci *p, Error **errp)
{
    if (p->has_tlp_header &&
        QAPI_LIST_LENGTH(p->tlp_header) != TLP_HEADER_WORDS) {
        error_setg(errp, "Parameter 'tlp-header' must have %d elements",
                   TLP_HEADER_WORDS);
        return false;
    }
    return check_optional_name("qom-path", p->qom_path, errp) &&
           check_pci_address("guest-address", p->guest_address, errp) &&
           check_pci_address("host-address", p->host_address, errp);
}

static bool check_block(const HwErrorBlock *b, Error **errp)
{
    if (b->has_q_errno && (!b->q_errno || b->q_errno > MAX_ERRNO)) {
        error_setg(errp, "Parameter 'errno' must be between 1 and %d",
                   MAX_ERRNO);
        return false;
    }
    if ((b->has_offset && b->offset > INT64_MAX) ||
        (b->has_length && b->length > INT64_MAX - b->offset)) {
        error_setg(errp, "Parameters 'offset' and 'length' exceed what a disk "
                   "can have");
        return false;
    }
    return check_optional_name("qom-path", b->qom_path, errp) &&
           check_optional_name("node-name", b->node_name, errp) &&
           check_optional_name("error", b->error, errp);
}

static bool check_branch(const HwErrorInfo *info, Error **errp)
{
    switch (info->source) {
    case HW_ERROR_SOURCE_GUEST_MEMORY:
    case HW_ERROR_SOURCE_QEMU_MEMORY:
        return check_memory(&info->u.guest_memory, errp);
    case HW_ERROR_SOURCE_KVM:
        return check_kvm(&info->u.kvm, errp);
    case HW_ERROR_SOURCE_PCIE_AER:
    case HW_ERROR_SOURCE_VFIO:
        return check_pci(&info->u.vfio, errp);
    case HW_ERROR_SOURCE_BLOCK_IO:
    case HW_ERROR_SOURCE_BLOCK_STALL:
        return check_block(&info->u.block_io, errp);
    case HW_ERROR_SOURCE_BACKEND:
        return check_optional_name("qom-path", info->u.backend.qom_path,
                                   errp) &&
               check_optional_name("node-name", info->u.backend.node_name,
                                   errp) &&
               check_optional_name("chardev", info->u.backend.chardev, errp);
    case HW_ERROR_SOURCE_GUEST_PANIC:
    case HW_ERROR_SOURCE_WATCHDOG:
        return check_optional_name("qom-path", info->u.watchdog.qom_path,
                                   errp) &&
               check_optional_name("action", info->u.watchdog.action, errp);
    case HW_ERROR_SOURCE_HOST:
        return check_optional_name("subsystem", info->u.host.subsystem,
                                   errp) &&
               check_optional_name("label", info->u.host.label, errp);
    case HW_ERROR_SOURCE__MAX:
        break;
    }
    g_assert_not_reached();
}

bool hw_error_check(const HwErrorInfo *info, Error **errp)
{
    if (info->has_count && (!info->count || info->count > MAX_COUNT)) {
        error_setg(errp, "Parameter 'count' must be between 1 and %d",
                   MAX_COUNT);
        return false;
    }
    if (info->description &&
        !check_text("description", info->description, MAX_DESCRIPTION_LEN,
                    errp)) {
        return false;
    }
    return check_optional_name("component", info->component, errp) &&
           check_optional_name("agent", info->agent, errp) &&
           check_branch(info, errp);
}
