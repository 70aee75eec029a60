/*
 * Pages that a migration does not send until the guest is stopped
 *
 * A page that is written all the time is sent in vain by every pass but the
 * last.  It stays in the dirty bitmap, but the search for dirty pages passes
 * over it.
 *
 * Everything but migration_withhold_free() is called by the migration thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_MIGRATION_WITHHOLD_H
#define QEMU_MIGRATION_WITHHOLD_H

#include "qemu/bitops.h"
#include "system/ramblock.h"

/**
 * MigrationWithhold: bitmaps of a RAM block, one bit for a target page
 *
 * @dirty: what was dirty before a sync; scratch
 * @rewritten: pages that were clean or sent, and dirty at the last sync
 * @hot: pages that were so at the sync before as well
 * @withheld: pages not to be sent for now
 * @pages: size of each
 */
typedef struct MigrationWithhold {
    unsigned long *dirty;
    unsigned long *rewritten;
    unsigned long *hot;
    unsigned long *withheld;
    unsigned long pages;
} MigrationWithhold;

/**
 * migration_withhold_sync_begin: the dirty bitmap will be synchronized
 *
 * Allocates what is needed.  Called with the bitmap mutex and in an RCU read
 * section.
 */
void migration_withhold_sync_begin(void);

/**
 * migration_withhold_sync_end: the dirty bitmap has been synchronized
 *
 * Called with the bitmap mutex and in an RCU read section.
 *
 * Returns: how many pages were found rewritten at this sync and the one before,
 * those included that are withheld already.
 */
uint64_t migration_withhold_sync_end(void);

/**
 * migration_withhold_apply: do not send the pages found by the last sync
 *
 * Returns: how many pages are withheld now.
 */
uint64_t migration_withhold_apply(void);

/**
 * migration_withhold_release: send all pages from now on
 */
void migration_withhold_release(void);

/**
 * migration_withhold_free: free what belongs to @rb; the BQL is held, and the
 *                          migration thread does not run
 */
void migration_withhold_free(RAMBlock *rb);

/**
 * migration_withhold_next: like find_next_bit() for the dirty bitmap of @rb,
 *                          without withheld pages
 */
static inline unsigned long migration_withhold_next(RAMBlock *rb,
                                                    unsigned long size,
                                                    unsigned long page)
{
    page = find_next_bit(rb->bmap, size, page);
    if (likely(!rb->withhold)) {
        return page;
    }
    while (page < size && test_bit(page, rb->withhold->withheld)) {
        page = find_next_zero_bit(rb->withhold->withheld, size, page);
        page = find_next_bit(rb->bmap, size, page);
    }
    return page;
}

#endif
