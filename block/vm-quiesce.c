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
#include "block/dirty-bitmap.h"
#include "block/vm-quiesce.h"
#include "qapi/error.h"
#include "qapi/util.h"
#include "qemu/coroutine.h"
#include "qemu/timer.h"
#include "system/block-backend.h"
#include "qcow2.h"
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
 * Nodes that undo() has to activate.  The graph cannot change before undo(),
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

static bool GRAPH_RDLOCK uses_node(BlockDriverState *user, BlockDriverState *bs)
{
    BdrvChild *child;

    if (user == bs) {
        return true;
    }
    QLIST_FOREACH(child, &user->children, next) {
        if (uses_node(child->bs, bs)) {
            return true;
        }
    }
    return false;
}

char *bdrv_device_path(BlockDriverState *bs)
{
    BlockBackend *blk;

    for (blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        DeviceState *dev = blk_get_attached_dev(blk);

        if (dev && blk_bs(blk) && uses_node(blk_bs(blk), bs)) {
            return object_get_canonical_path(OBJECT(dev));
        }
    }
    return NULL;
}

/*
 * Number of requests in flight of which it is known when they started, and
 * when the oldest of them did
 */
static unsigned count_requests(BlockDriverState *bs, int64_t *oldest_ns)
{
    BdrvTrackedRequest *req;
    unsigned n = 0;

    *oldest_ns = INT64_MAX;

    QEMU_LOCK_GUARD(&bs->reqs_lock);

    QLIST_FOREACH(req, &bs->tracked_requests, list) {
        *oldest_ns = MIN(*oldest_ns, req->start_ns);
        n++;
    }
    if (bs->active_flush_req) {
        *oldest_ns = MIN(*oldest_ns, bs->flush_start_ns);
        n++;
    }
    return n;
}

static VmQuiesceRequests *GRAPH_RDLOCK describe_requests(BlockDriverState *bs)
{
    VmQuiesceRequests *r = g_new0(VmQuiesceRequests, 1);
    int64_t oldest_ns;

    r->node_name = g_strdup(bdrv_get_node_name(bs));
    r->qom_path = bdrv_device_path(bs);
    r->count = count_requests(bs, &oldest_ns);
    if (r->count) {
        r->has_age_ms = true;
        r->age_ms = (qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - oldest_ns)
                    / SCALE_MS;
    } else {
        /* Others, such as ioctls; users count theirs here, too */
        r->count = qatomic_read(&bs->in_flight);
    }
    return r;
}

/* Append the name of @bs, for people, to @s */
static void GRAPH_RDLOCK append_node(GString *s, BlockDriverState *bs)
{
    g_autofree char *path = bdrv_device_path(bs);

    append_error(s, "node '%s'", bdrv_get_node_name(bs));
    if (path) {
        g_string_append_printf(s, " (%s)", path);
    }
}

static void GRAPH_RDLOCK append_requests(GString *s, BlockDriverState *bs)
{
    g_autoptr(VmQuiesceRequests) r = describe_requests(bs);

    append_node(s, bs);
    if (!r->count) {
        g_string_append(s, ": its user is busy");
        return;
    }
    /* Until the drained section ends, quiescing's own flush is alone */
    if (flushes) {
        g_string_append(s, ": flush in flight");
    } else {
        g_string_append_printf(s, ": %" PRIu32 " request%s in flight",
                               r->count, r->count == 1 ? "" : "s");
    }
    if (r->has_age_ms) {
        g_string_append_printf(s, "%s for %" PRIu64 " ms",
                               r->count == 1 ? "" : ", the oldest",
                               r->age_ms);
    }
}

/* Returns what is in flight, for people; empty if nothing is */
static GString *block_busy(void)
{
    GString *busy = g_string_new(NULL);
    BlockDriverState *bs = NULL;

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    while ((bs = bdrv_next_all_states(bs))) {
        if (bdrv_drain_poll(bs, NULL, true)) {
            append_requests(busy, bs);
        }
    }
    return busy;
}

static VMQuiesceResult block_quiesce_drain(Error **errp)
{
    g_autoptr(GString) busy = NULL;

    if (!drained) {
        bdrv_drain_all_begin_nopoll();
        drained = true;
    }

    busy = block_busy();
    if (busy->len) {
        error_setg(errp, "%s", busy->str);
        return VM_QUIESCE_BUSY;
    }
    return VM_QUIESCE_DONE;
}

bool block_quiesce_drained(void)
{
    return block_quiesce_drain(NULL) == VM_QUIESCE_DONE;
}

void block_quiesce_undrained(void (*fn)(void))
{
    assert(drained);
    bdrv_drain_all_end();
    fn();
    bdrv_drain_all_begin_nopoll();
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

/* Whether the driver writes to its image when the node is inactivated */
static bool GRAPH_RDLOCK writes_at_release(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap;

    if (!bs->drv || !bs->drv->bdrv_inactivate || bdrv_is_read_only(bs)) {
        return false;
    }
    FOR_EACH_DIRTY_BITMAP(bs, bitmap) {
        if (bdrv_dirty_bitmap_get_persistence(bitmap)) {
            return true;
        }
    }
    if (g_str_equal(bs->drv->format_name, "qcow2")) {
        BDRVQcow2State *s = bs->opaque;

        return s->incompatible_features & QCOW2_INCOMPAT_DIRTY;
    }
    return true;
}

/* Have the next flush of @bs reach the storage, even if nothing is dirty */
static void GRAPH_RDLOCK force_flush(BlockDriverState *bs)
{
    BdrvChild *child;

    qatomic_inc(&bs->write_gen);
    QLIST_FOREACH(child, &bs->children, next) {
        force_flush(child->bs);
    }
}

static void start_flushes(void)
{
    BlockDriverState *bs = NULL;
    BdrvNextIterator it;
    guint i;

    /*
     * release() would wait in the main loop for what it writes.  Make sure
     * that the storage answers, right before.
     */
    bdrv_graph_rdlock_main_loop();
    while ((bs = bdrv_next_all_states(bs))) {
        if (writes_at_release(bs)) {
            force_flush(bs);
        }
    }
    bdrv_graph_rdunlock_main_loop();

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
        /* Jobs and exports that have ended may have left something behind */
        if (block_quiesce_drain(errp) != VM_QUIESCE_DONE) {
            return VM_QUIESCE_BUSY;
        }
        start_flushes();
    }

    bdrv_graph_rdlock_main_loop();
    for (i = 0; i < flushes->len; i++) {
        QuiesceFlush *f = g_ptr_array_index(flushes, i);

        if (!qatomic_load_acquire(&f->done)) {
            busy = true;
            append_requests(text, f->bs);
        } else if (f->ret < 0) {
            append_node(text, f->bs);
            g_string_append_printf(text, ": flush failed: %s",
                                   strerror(-f->ret));
        }
    }
    bdrv_graph_rdunlock_main_loop();
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

static VmQuiesceRequestsList *block_quiesce_requests(VMQuiesceParticipant *p)
{
    VmQuiesceRequestsList *head = NULL, **tail = &head;
    BlockDriverState *bs = NULL;

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    while ((bs = bdrv_next_all_states(bs))) {
        if (drained && bdrv_drain_poll(bs, NULL, true)) {
            QAPI_LIST_APPEND(tail, describe_requests(bs));
        }
    }
    return head;
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
            if (node_is_active(bs) || (bs->drv && vm_quiesce_restored())) {
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
    .requests = block_quiesce_requests,
    .release = block_quiesce_release,
    .undo = block_quiesce_undo,
};

static void __attribute__((__constructor__)) block_quiesce_init(void)
{
    vm_quiesce_register(&block_participant);
}
