/*
 * QMP commands memsave and pmemsave
 *
 * What cannot be read of the guest's RAM is zero in the file.  It is reported
 * as a hardware error, and a warning says how much it is.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "exec/cpu-common.h"
#include "exec/target_page.h"
#include "hw-error/memory.h"
#include "hw/core/cpu.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-machine.h"
#include "qapi/qmp/qerror.h"
#include "qemu/error-report.h"

typedef struct Save {
    CPUState *cpu;      /* NULL for physical addresses */
    uint64_t addr;
    uint8_t buf[1024];
    size_t size;        /* of what is read at once, all of one page */
    bool valid;         /* whether there is anything at addr */
    /* What could not be read, and is not reported yet; and in total */
    char *bad;
    size_t bad_size;
    bool machine_check;
    uint64_t unreadable;
} Save;

static void read_memory(void *opaque)
{
    Save *s = opaque;

    if (s->cpu) {
        s->valid = !cpu_memory_rw_debug(s->cpu, s->addr, s->buf, s->size, 0);
    } else {
        cpu_physical_memory_read(s->addr, s->buf, s->size);
        s->valid = true;
    }
}

static void translate(void *opaque)
{
    Save *s = opaque;
    MemTxAttrs attrs;

    s->valid = cpu_get_phys_page_attrs_debug(s->cpu,
                                             s->addr & qemu_target_page_mask(),
                                             &attrs) != -1;
}

static void report_bad(Save *s)
{
    if (s->bad_size) {
        hw_error_memory_unreadable(s->bad, s->bad_size, s->machine_check);
        s->bad_size = 0;
    }
}

/* Errors are collected for adjacent pages */
static void add_bad(Save *s, const HwErrorFault *fault)
{
    size_t page_size = qemu_real_host_page_size();
    char *page = (char *)ROUND_DOWN((uintptr_t)fault->host, page_size);

    if (s->bad_size && page >= s->bad && page < s->bad + s->bad_size) {
        return;
    }
    if (s->bad_size && page == s->bad + s->bad_size &&
        fault->machine_check == s->machine_check) {
        s->bad_size += page_size;
        return;
    }
    report_bad(s);
    s->bad = page;
    s->bad_size = page_size;
    s->machine_check = fault->machine_check;
}

/* Returns false if there is nothing at that address */
static bool read_some(Save *s, uint64_t left)
{
    uint64_t page_left = qemu_target_page_size() -
                         (s->addr & ~qemu_target_page_mask());
    HwErrorFault fault;

    s->size = MIN(MIN(left, sizeof(s->buf)), page_left);
    if (hw_error_try(read_memory, s, NULL, 0, &fault)) {
        return s->valid;
    }
    add_bad(s, &fault);
    /* Is it the page, or the page tables that would say where that is? */
    if (s->cpu && (!hw_error_try(translate, s, NULL, 0, &fault) || !s->valid)) {
        return false;
    }
    memset(s->buf, 0, s->size);
    s->unreadable += s->size;
    return true;
}

static void save(Save *s, uint64_t size, const char *filename, Error **errp)
{
    uint64_t addr = s->addr, left = size;
    FILE *f = fopen(filename, "wb");

    if (!f) {
        error_setg_file_open(errp, errno, filename);
        return;
    }

    while (left) {
        if (!read_some(s, left)) {
            error_setg(errp, "Invalid addr 0x%016" PRIx64 "/size %" PRIu64
                             " specified", addr, size);
            break;
        }
        if (fwrite(s->buf, 1, s->size, f) != s->size) {
            error_setg(errp, "writing memory to '%s' failed", filename);
            break;
        }
        s->addr += s->size;
        left -= s->size;
    }
    fclose(f);

    report_bad(s);
    if (s->unreadable) {
        warn_report("%" PRIu64 " bytes could not be read, and are zero in '%s'",
                    s->unreadable, filename);
    }
}

void qmp_memsave(uint64_t addr, uint64_t size, const char *filename,
                 bool has_cpu, int64_t cpu_index, Error **errp)
{
    Save s = { .addr = addr };

    s.cpu = qemu_get_cpu(has_cpu ? cpu_index : 0);
    if (!s.cpu) {
        error_setg(errp, QERR_INVALID_PARAMETER_VALUE, "cpu-index",
                   "a CPU number");
        return;
    }
    save(&s, size, filename, errp);
}

void qmp_pmemsave(uint64_t addr, uint64_t size, const char *filename,
                  Error **errp)
{
    Save s = { .addr = addr };

    save(&s, size, filename, errp);
}
