/*
 * Pages that a migration does not send until the guest is stopped
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/rcu.h"
#include "exec/target_page.h"
#include "migration.h"
#include "withhold.h"

static int withhold_begin(RAMBlock *rb, void *opaque)
{
    MigrationWithhold *w = rb->withhold;

    if (!w) {
        w = g_new0(MigrationWithhold, 1);
        w->pages = rb->max_length >> qemu_target_page_bits();
        w->dirty = bitmap_new(w->pages);
        w->rewritten = bitmap_new(w->pages);
        w->hot = bitmap_new(w->pages);
        w->withheld = bitmap_new(w->pages);
        rb->withhold = w;
    }
    bitmap_copy(w->dirty, rb->bmap, w->pages);
    return 0;
}

void migration_withhold_sync_begin(void)
{
    foreach_not_ignored_block(withhold_begin, NULL);
}

static int withhold_end(RAMBlock *rb, void *opaque)
{
    MigrationWithhold *w = rb->withhold;
    uint64_t *hot = opaque;

    /* "dirty" becomes what was written: dirty now, and not before */
    bitmap_andnot(w->dirty, rb->bmap, w->dirty, w->pages);
    bitmap_and(w->hot, w->dirty, w->rewritten, w->pages);
    bitmap_copy(w->rewritten, w->dirty, w->pages);
    *hot += bitmap_count_one(w->hot, w->pages) +
            bitmap_count_one(w->withheld, w->pages);
    return 0;
}

uint64_t migration_withhold_sync_end(void)
{
    uint64_t hot = 0;

    foreach_not_ignored_block(withhold_end, &hot);
    return hot;
}

static int withhold_apply(RAMBlock *rb, void *opaque)
{
    MigrationWithhold *w = rb->withhold;
    uint64_t *pages = opaque;

    bitmap_or(w->withheld, w->withheld, w->hot, w->pages);
    *pages += bitmap_count_one(w->withheld, w->pages);
    return 0;
}

uint64_t migration_withhold_apply(void)
{
    uint64_t pages = 0;

    foreach_not_ignored_block(withhold_apply, &pages);
    return pages;
}

static int withhold_release(RAMBlock *rb, void *opaque)
{
    if (rb->withhold) {
        bitmap_zero(rb->withhold->withheld, rb->withhold->pages);
    }
    return 0;
}

void migration_withhold_release(void)
{
    foreach_not_ignored_block(withhold_release, NULL);
}

void migration_withhold_free(RAMBlock *rb)
{
    MigrationWithhold *w = rb->withhold;

    if (w) {
        g_free(w->dirty);
        g_free(w->rewritten);
        g_free(w->hot);
        g_free(w->withheld);
        g_free(w);
        rb->withhold = NULL;
    }
}
