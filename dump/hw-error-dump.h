/*
 * Memory dumps of a guest with bad memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef DUMP_HW_ERROR_DUMP_H
#define DUMP_HW_ERROR_DUMP_H

#include "system/dump.h"

/**
 * hw_error_dump_begin: Look for memory that cannot be read, report it, and
 * make room for the note that lists it.
 *
 * Called in the thread that dumps, before anything is written.
 */
void hw_error_dump_begin(DumpState *s);

/**
 * hw_error_dump_end: Say how much could not be read, and clean up.
 *
 * Called in the thread that dumps; also without hw_error_dump_begin().
 */
void hw_error_dump_end(DumpState *s);

/**
 * hw_error_dump_read_note: As cpu_physical_memory_read(); what cannot be read
 * is zero.
 *
 * Called from the main thread with the BQL held.
 */
void hw_error_dump_read_note(void *to, hwaddr addr, size_t size);

/**
 * hw_error_dump_get_mapping: As qemu_get_guest_memory_mapping(), for s->list;
 * it is an error if page tables cannot be read.
 *
 * Called from the main thread with the BQL held.
 */
void hw_error_dump_get_mapping(DumpState *s, Error **errp);

/**
 * hw_error_dump_write_note: Write the note, if there is anything to be listed.
 *
 * Returns false, and sets @errp, on failure.
 */
bool hw_error_dump_write_note(WriteCoreDumpFunction f, DumpState *s,
                              Error **errp);

/**
 * hw_error_dump_read: Read some of the guest's memory, up to a page; what
 * cannot be read is zero.
 * @to: where to; NULL for a buffer that is valid until the next call
 *
 * Returns @to, or the buffer.
 */
void *hw_error_dump_read(DumpState *s, void *to, void *from, size_t size);

#endif
