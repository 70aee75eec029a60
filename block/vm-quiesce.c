/*
 * Quiesced run state: block nodes
 *
 * A drained section is begun in phase 'drain' and held until the VM leaves
 * the quiesced state, so that nothing can submit a request; nodes are flushed
 * by coroutines, and inactivated, which releases their locks.
 *
 * All state belongs to the main thread, but for QuiesceFlush.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "block/block.h"
#include "block/block_int.h"
#include "qapi/error.h"
#include "qemu/coroutine.h"
#include "system/vm-quiesce.h"

/*
 * A flush of one node, freed by the main thread when @done.  The request keeps
 * @bs alive.
 */
typedef struct QuiesceFlush {
    BlockDriverState *bs;
    /* Written in @bs's AioContext before @done is released */
    int ret;
    bool done;
} QuiesceFlush;

static bool drained;
static GPtrArray *flushes;
/*
 * Nodes that release() found active.  The graph cannot change before undo(),
 * and a reference would outlive bdrv_close_all().
 */
static GPtrArray *released;

static void append_error(GString *s, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static void append_error(GString *s, const char *fmt, ...)
{
    va_list ap;

    if (s->len) {
        g_string_append(s, "; ");
    }
    va_start(ap, fmt);
    g_string_append_vprintf(s, fmt, ap);
    va_end(ap);
}

static unsigned count_requests(BlockDriverState *bs)
{
    BdrvTrackedRequest *req;
    unsigned n = 0;

    QEMU_LOCK_GUARD(&bs->reqs_lock);

    QLIST_FOREACH(req, &bs->tracked_requests, list) {
        n++;
    }
    return n;
}

static VMQuiesceResult block_quiesce_drain(Error **errp)
{
    g_autoptr(GString) busy = g_string_new(NULL);
    BlockDriverState *bs = NULL;

    if (!drained) {
        bdrv_drain_all_begin_nopoll();
        drained = true;
    }

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    while ((bs = bdrv_next_all_states(bs))) {
        unsigned n;

        if (!bdrv_drain_poll(bs, NULL, true)) {
            continue;
        }
        n = count_requests(bs);
        append_error(busy, "node '%s': %u request%s in flight",
                     bdrv_get_device_or_node_name(bs), n, n == 1 ? "" : "s");
    }
    if (busy->len) {
        error_setg(errp, "%s", busy->str);
        return VM_QUIESCE_BUSY;
    }
    return VM_QUIESCE_DONE;
}

static void coroutine_fn flush_entry(void *opaque)
{
    QuiesceFlush *f = opaque;

    WITH_GRAPH_RDLOCK_GUARD() {
        f->ret = bdrv_co_flush(f->bs);
    }
    qatomic_store_release(&f->done, true);
    aio_wait_kick();
}

static void start_flushes(void)
{
    BlockDriverState *bs;
    BdrvNextIterator it;
    guint i;

    flushes = g_ptr_array_new_with_free_func(g_free);
    for (bs = bdrv_first(&it); bs; bs = bdrv_next(&it)) {
        QuiesceFlush *f = g_new0(QuiesceFlush, 1);

        f->bs = bs;
        g_ptr_array_add(flushes, f);
    }
    for (i = 0; i < flushes->len; i++) {
        QuiesceFlush *f = g_ptr_array_index(flushes, i);

        aio_co_enter(bdrv_get_aio_context(f->bs),
                     qemu_coroutine_create(flush_entry, f));
    }
}

static VMQuiesceResult block_quiesce_flush(Error **errp)
{
    g_autoptr(GString) text = g_string_new(NULL);
    bool busy = false;
    guint i;

    if (!flushes) {
        start_flushes();
    }

    for (i = 0; i < flushes->len; i++) {
        QuiesceFlush *f = g_ptr_array_index(flushes, i);
        const char *name = bdrv_get_device_or_node_name(f->bs);

        if (!qatomic_load_acquire(&f->done)) {
            busy = true;
            append_error(text, "node '%s': flush in flight", name);
        } else if (f->ret < 0) {
            append_error(text, "node '%s': flush failed: %s", name,
                         strerror(-f->ret));
        }
    }
    if (busy) {
        error_setg(errp, "%s", text->str);
        return VM_QUIESCE_BUSY;
    }

    g_clear_pointer(&flushes, g_ptr_array_unref);
    if (text->len) {
        error_setg(errp, "%s", text->str);
        return VM_QUIESCE_ERROR;
    }
    return VM_QUIESCE_DONE;
}

static VMQuiesceResult block_quiesce_poll(VMQuiesceParticipant *p,
                                          VmQuiescePhase phase, Error **errp)
{
    switch (phase) {
    case VM_QUIESCE_PHASE_DRAIN:
        return block_quiesce_drain(errp);
    case VM_QUIESCE_PHASE_FLUSH:
        return block_quiesce_flush(errp);
    default:
        return VM_QUIESCE_DONE;
    }
}

static bool node_is_active(BlockDriverState *bs)
{
    return bs->drv && !(bs->open_flags & BDRV_O_INACTIVE);
}

/*
 * bdrv_inactivate_all() reaches children through active parents only.  An
 * undo() that has failed leaves active children of inactive parents.
 */
static void inactivate_rest(void)
{
    BlockDriverState *bs = NULL;

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    while ((bs = bdrv_next_all_states(bs))) {
        if (node_is_active(bs)) {
            /* Fails, harmlessly, if an active parent comes later */
            bdrv_inactivate(bs, NULL);
        }
    }
}

static bool block_quiesce_release(VMQuiesceParticipant *p, Error **errp)
{
    g_autoptr(GString) active = g_string_new(NULL);
    BlockDriverState *bs = NULL;
    int ret;

    if (!released) {
        released = g_ptr_array_new();
        while ((bs = bdrv_next_all_states(bs))) {
            if (node_is_active(bs)) {
                g_ptr_array_add(released, bs);
            }
        }
    }

    ret = bdrv_inactivate_all();
    inactivate_rest();

    while ((bs = bdrv_next_all_states(bs))) {
        if (node_is_active(bs)) {
            append_error(active, "node '%s' stays active",
                         bdrv_get_device_or_node_name(bs));
        }
    }
    if (active->len) {
        error_setg(errp, "%s: %s", active->str,
                   ret < 0 ? strerror(-ret) : "it has a user that writes");
        return false;
    }
    return true;
}

static bool block_quiesce_undo(VMQuiesceParticipant *p, Error **errp)
{
    Error *err = NULL;
    guint i;

    /* A flush from before the VM runs again must not count for what follows */
    if (flushes && block_quiesce_flush(&err) == VM_QUIESCE_BUSY) {
        error_propagate(errp, err);
        return false;
    }
    error_free(err);

    for (i = 0; released && i < released->len; i++) {
        BlockDriverState *bs = g_ptr_array_index(released, i);
        int ret;

        bdrv_graph_rdlock_main_loop();
        ret = bdrv_activate(bs, errp);
        bdrv_graph_rdunlock_main_loop();
        if (ret < 0) {
            error_prepend(errp, "Node '%s' cannot be activated: ",
                          bdrv_get_device_or_node_name(bs));
            return false;
        }
    }

    g_clear_pointer(&released, g_ptr_array_unref);
    if (drained) {
        bdrv_drain_all_end();
        drained = false;
    }
    return true;
}

static VMQuiesceParticipant block_participant = {
    .name = "block",
    .order = VM_QUIESCE_ORDER_BLOCK,
    .poll = block_quiesce_poll,
    .release = block_quiesce_release,
    .undo = block_quiesce_undo,
};

static void __attribute__((__constructor__)) block_quiesce_init(void)
{
    vm_quiesce_register(&block_participant);
}
