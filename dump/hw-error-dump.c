/*
 * Memory dumps of a guest with bad memory
 *
 * What cannot be read is zero in the dump.  A note lists it; its format is
 * described in docs/specs/hw-error-dump.rst.  Notes come first in a dump, and
 * the file may be a pipe: so all memory is read before anything is written.
 * What goes bad after that is zero, too, and is reported like the rest, but the
 * note does not have it.
 *
 * One thread at a time: only one dump is made at a time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "elf.h"
#include "exec/cpu-common.h"
#include "hw-error-dump.h"
#include "hw-error/memory.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "qemu/rcu.h"

#define NOTE_NAME "QEMU-BADMEM"
#define NOTE_TYPE 1
#define NOTE_VERSION 1
/* Flag: there is more than the note lists */
#define NOTE_INCOMPLETE 1
/* Keeps the note below the megabyte that readers may expect at most */
#define NOTE_RANGES_MAX 60000

typedef struct BadRange {
    hwaddr addr;        /* of the guest */
    char *host;
    uint64_t size;
    bool machine_check;
} BadRange;

struct HwErrorDump {
    uint8_t *page;
    GArray *ranges;     /* of BadRange, in the order of the dump */
    bool incomplete;
    /* Not reported yet: what was bad when it was to be written */
    BadRange late;
    uint64_t unreadable;
};

typedef struct QEMU_PACKED NoteHead {
    uint32_t version;
    uint32_t flags;
    uint64_t count;
} NoteHead;

typedef struct QEMU_PACKED NoteRange {
    uint64_t addr;
    uint64_t size;
} NoteRange;

static size_t note_size(HwErrorDump *d)
{
    QEMU_BUILD_BUG_ON(sizeof(Elf32_Nhdr) != sizeof(Elf64_Nhdr));
    QEMU_BUILD_BUG_ON(sizeof(NOTE_NAME) % 4);
    return sizeof(Elf64_Nhdr) + sizeof(NOTE_NAME) + sizeof(NoteHead) +
           d->ranges->len * sizeof(NoteRange);
}

/* What follows the last range continues it */
static void add_bad(HwErrorDump *d, const BadRange *bad)
{
    if (d->ranges->len) {
        BadRange *last = &g_array_index(d->ranges, BadRange,
                                        d->ranges->len - 1);

        if (last->host + last->size == bad->host &&
            last->addr + last->size == bad->addr &&
            last->machine_check == bad->machine_check) {
            last->size += bad->size;
            return;
        }
    }
    if (d->ranges->len == NOTE_RANGES_MAX) {
        d->incomplete = true;
        hw_error_memory_unreadable(bad->host, bad->size, bad->machine_check);
        return;
    }
    g_array_append_val(d->ranges, *bad);
}

static void scan_range(HwErrorDump *d, char *host, hwaddr addr, size_t size)
{
    size_t page_size = qemu_real_host_page_size();
    HwErrorFault fault;
    size_t i = 0;

    while (i < size) {
        i += hw_error_try_scan(host + i, size - i, &fault);
        if (i < size) {
            BadRange bad = {
                .addr = addr + i,
                .host = host + i,
                .size = MIN(page_size - (uintptr_t)(host + i) % page_size,
                            size - i),
                .machine_check = fault.machine_check,
            };

            add_bad(d, &bad);
            i += bad.size;
        }
    }
}

static void scan_all(DumpState *s)
{
    GuestPhysBlock *block;

    QTAILQ_FOREACH(block, &s->guest_phys_blocks.head, next) {
        int64_t start = dump_filtered_memblock_start(block,
            s->filter_area_begin, s->filter_area_length);

        if (start >= 0) {
            scan_range(s->hw_error, (char *)block->host_addr + start,
                       block->target_start + start,
                       dump_filtered_memblock_size(block,
                           s->filter_area_begin, s->filter_area_length));
        }
    }
}

void hw_error_dump_begin(DumpState *s)
{
    HwErrorDump *d = g_new0(HwErrorDump, 1);
    guint i;

    /* A part of a page is read at a time, but never more than a page */
    d->page = g_malloc(s->dump_info.page_size);
    d->ranges = g_array_new(false, false, sizeof(BadRange));
    s->hw_error = d;
    if (s->detached) {
        rcu_register_thread();
    }

    scan_all(s);
    for (i = 0; i < d->ranges->len; i++) {
        BadRange *bad = &g_array_index(d->ranges, BadRange, i);

        hw_error_memory_unreadable(bad->host, bad->size, bad->machine_check);
    }
    if (d->ranges->len) {
        s->note_size += note_size(d);
        s->memory_offset += note_size(d);
        s->section_offset += note_size(d);
    }
}

static void report_late(HwErrorDump *d)
{
    if (d->late.size) {
        hw_error_memory_unreadable(d->late.host, d->late.size,
                                   d->late.machine_check);
        d->late.size = 0;
    }
}

static void add_late(HwErrorDump *d, const HwErrorFault *fault)
{
    size_t page_size = qemu_real_host_page_size();
    char *page = (char *)ROUND_DOWN((uintptr_t)fault->host, page_size);

    if (page != d->late.host + d->late.size ||
        fault->machine_check != d->late.machine_check) {
        report_late(d);
        d->late.host = page;
        d->late.machine_check = fault->machine_check;
    }
    d->late.size += page_size;
}

void hw_error_dump_end(DumpState *s)
{
    HwErrorDump *d = s->hw_error;

    if (!d) {
        return;
    }
    report_late(d);
    if (d->unreadable) {
        warn_report("%" PRIu64 " bytes of the guest's memory could not be "
                    "read, and are zero in the dump", d->unreadable);
    }
    if (s->detached) {
        rcu_unregister_thread();
    }
    g_array_unref(d->ranges);
    g_free(d->page);
    g_free(d);
    s->hw_error = NULL;
}

static void report_fault(const HwErrorFault *fault)
{
    size_t page_size = qemu_real_host_page_size();

    hw_error_memory_unreadable(
        (void *)ROUND_DOWN((uintptr_t)fault->host, page_size), page_size,
        fault->machine_check);
}

typedef struct ReadNote {
    void *to;
    hwaddr addr;
    size_t size;
} ReadNote;

static void read_note(void *opaque)
{
    ReadNote *r = opaque;

    cpu_physical_memory_read(r->addr, r->to, r->size);
}

void hw_error_dump_read_note(void *to, hwaddr addr, size_t size)
{
    ReadNote r = { .to = to, .addr = addr, .size = size };
    HwErrorFault fault;

    if (!hw_error_try(read_note, &r, NULL, 0, &fault)) {
        memset(to, 0, size);
        report_fault(&fault);
    }
}

typedef struct GetMapping {
    DumpState *s;
    Error **errp;
} GetMapping;

static void get_mapping(void *opaque)
{
    GetMapping *g = opaque;

    qemu_get_guest_memory_mapping(&g->s->list, &g->s->guest_phys_blocks,
                                  g->errp);
}

void hw_error_dump_get_mapping(DumpState *s, Error **errp)
{
    GetMapping g = { .s = s, .errp = errp };
    HwErrorFault fault;

    /* The list is whole at any time: entries are not made while it reads */
    if (!hw_error_try(get_mapping, &g, NULL, 0, &fault)) {
        report_fault(&fault);
        error_setg(errp, "dump: the guest's page tables cannot be read");
    }
}

static void *put(void *to, const void *from, size_t size)
{
    return (char *)memcpy(to, from, size) + size;
}

bool hw_error_dump_write_note(WriteCoreDumpFunction f, DumpState *s,
                              Error **errp)
{
    HwErrorDump *d = s->hw_error;
    Elf64_Nhdr nhdr = {
        .n_namesz = cpu_to_dump32(s, sizeof(NOTE_NAME)),
        .n_type = cpu_to_dump32(s, NOTE_TYPE),
    };
    NoteHead head = {
        .version = cpu_to_dump32(s, NOTE_VERSION),
        .flags = cpu_to_dump32(s, d->incomplete ? NOTE_INCOMPLETE : 0),
        .count = cpu_to_dump64(s, d->ranges->len),
    };
    g_autofree char *note = NULL;
    char *p;
    guint i;

    if (!d->ranges->len) {
        return true;
    }
    nhdr.n_descsz = cpu_to_dump32(s, sizeof(head) +
                                  d->ranges->len * sizeof(NoteRange));
    note = g_malloc(note_size(d));
    p = put(note, &nhdr, sizeof(nhdr));
    p = put(p, NOTE_NAME, sizeof(NOTE_NAME));
    p = put(p, &head, sizeof(head));
    for (i = 0; i < d->ranges->len; i++) {
        BadRange *bad = &g_array_index(d->ranges, BadRange, i);
        NoteRange range = {
            .addr = cpu_to_dump64(s, bad->addr),
            .size = cpu_to_dump64(s, bad->size),
        };

        p = put(p, &range, sizeof(range));
    }
    if (f(note, note_size(d), s) < 0) {
        error_setg(errp, "dump: failed to write the note of bad memory");
        return false;
    }
    return true;
}

void *hw_error_dump_read(DumpState *s, void *to, void *from, size_t size)
{
    HwErrorDump *d = s->hw_error;
    HwErrorFault fault;

    if (!to) {
        assert(size <= s->dump_info.page_size);
        to = d->page;
    }
    if (!hw_error_try_copy(to, from, size, &fault)) {
        memset(to, 0, size);
        d->unreadable += size;
        add_late(d, &fault);
    }
    return to;
}
