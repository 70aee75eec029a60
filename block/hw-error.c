/*
 * Hardware errors: block layer
 *
 * Failed requests.  The block layer knows what a request was, and how long it
 * took; the device knows that it is the guest's, and asks what to do about it.
 * Both happen in one thread, one right after the other.  So what is known is
 * kept per thread: about the request that the current coroutine has ended, and
 * about the one that a device is being told of.  Offset and length are those
 * that the device has passed to the block layer, which may have merged, or
 * split, the guest's; the age is the time that the request was in the root node,
 * without what throttling of the block backend takes.  A request that fails
 * before it gets there has none of these, nor has one that the device reports
 * later than when it is told (IDE's TRIM).
 *
 * Stalls.  A timer looks for requests that are too old, and marks them.  The
 * end of a marked one is reported by its own coroutine.  A request that hangs
 * in one node does so in all nodes above: it is reported for the topmost one
 * that has a limit.  So is one of a job for the topmost node that the job uses.
 * Requests that no node has yet (throttled by the block backend, or held in a
 * drained section) and requests of other kinds (ioctls, say) are not seen.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block.h"
#include "block/block_int.h"
#include "block/hw-error.h"
#include "block/vm-quiesce.h"
#include "hw-error/hw-error.h"
#include "hw-error/severity.h"
#include "qemu/coroutine-tls.h"
#include "qemu/timer.h"
#include "system/block-backend.h"
#include "trace.h"

/* The request of a node that has failed last in this thread */
typedef struct EndedRequest {
    Coroutine *co;
    BlockDriverState *bs;
    int ret;
    HwErrorBlockOperation op;
    int64_t offset;
    int64_t bytes;
    int64_t age_ms;
} EndedRequest;

QEMU_DEFINE_STATIC_CO_TLS(EndedRequest, ended_request)

/* The failed request that a device is being told of by this thread */
typedef struct CurrentRequest {
    Coroutine *co;
    BlockAIOCB *acb;
    BlkFailedRequest request;
} CurrentRequest;

QEMU_DEFINE_STATIC_CO_TLS(CurrentRequest, current_request)

/* Whose error this thread has last chosen an action for, if it is quiesce */
QEMU_DEFINE_STATIC_CO_TLS(BlockBackend *, quiescing_blk)

static const HwErrorBlockOperation operations[] = {
    [BDRV_TRACKED_READ] = HW_ERROR_BLOCK_OPERATION_READ,
    [BDRV_TRACKED_WRITE] = HW_ERROR_BLOCK_OPERATION_WRITE,
    [BDRV_TRACKED_DISCARD] = HW_ERROR_BLOCK_OPERATION_DISCARD,
    [BDRV_TRACKED_TRUNCATE] = HW_ERROR_BLOCK_OPERATION_TRUNCATE,
};

static int64_t age_ms(int64_t start_ns)
{
    return (qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - start_ns) / SCALE_MS;
}

static void set_errno(HwErrorBlock *block, int error)
{
#ifdef CONFIG_LINUX
    block->has_q_errno = true;
    block->q_errno = error;
#endif
    block->error = (char *)g_strerror(error);
}

static void set_range(HwErrorBlock *block, int64_t offset, int64_t bytes)
{
    if (block->operation != HW_ERROR_BLOCK_OPERATION_FLUSH) {
        block->has_offset = true;
        block->offset = offset;
        block->has_length = true;
        block->length = bytes;
    }
}

/* Failed requests of devices */

void blk_failed_request_init(BlkFailedRequest *r, BlockBackend *blk,
                             int64_t offset, int64_t bytes, int ret)
{
    EndedRequest *ended = get_ptr_ended_request();

    if (!qemu_in_coroutine()) {
        /* Called for the second time, from a bottom half */
        return;
    }
    *r = (BlkFailedRequest) { .blk = blk, .ret = ret };
    if (ended->co == qemu_coroutine_self() && ended->bs == blk_bs(blk) &&
        ended->ret == ret &&
        (ended->op == HW_ERROR_BLOCK_OPERATION_FLUSH ||
         /* It was aligned */
         (ended->offset <= offset &&
          ended->offset + ended->bytes >= offset + bytes))) {
        r->known = true;
        r->op = ended->op;
        r->offset = offset;
        r->bytes = bytes;
        r->age_ms = ended->age_ms;
    }
    ended->co = NULL;
}

void blk_failed_request_call(const BlkFailedRequest *r, BlockAIOCB *acb)
{
    CurrentRequest *current = get_ptr_current_request();

    *current = (CurrentRequest) {
        .co = qemu_coroutine_self(),
        .acb = acb,
        .request = *r,
    };
    acb->cb(acb->opaque, r->ret);

    /* Of nested calls, the outer one does without */
    current = get_ptr_current_request();
    if (current->acb == acb) {
        *current = (CurrentRequest) {};
    }
}

BlockBackend *blk_failed_request_backend(int ret)
{
    CurrentRequest *current = get_ptr_current_request();

    return current->co == qemu_coroutine_self() && current->request.ret == ret
        ? current->request.blk : NULL;
}

static const BlkFailedRequest *find_current_request(BlockBackend *blk,
                                                    int error)
{
    CurrentRequest *current = get_ptr_current_request();

    if (current->co == qemu_coroutine_self() && current->request.known &&
        current->request.blk == blk && current->request.ret == -error) {
        return &current->request;
    }
    return NULL;
}

/* @action: what QEMU does by itself */
static HwErrorAction report_error(BlockBackend *blk, bool is_read, int error,
                                  BlockErrorAction action)
{
    const BlkFailedRequest *r = find_current_request(blk, error);
    BlockDriverState *bs = blk_bs(blk);
    g_autofree char *path = blk_get_attached_dev_path(blk);
    HwErrorInfo e = {
        .source = HW_ERROR_SOURCE_BLOCK_IO,
        .severity = hw_error_severity_errno(error),
    };
    HwErrorBlock *block = &e.u.block_io;

    block->qom_path = *path ? path : NULL;
    block->node_name = bs ? (char *)bdrv_get_node_name(bs) : NULL;
    block->operation = is_read ? HW_ERROR_BLOCK_OPERATION_READ :
                                 HW_ERROR_BLOCK_OPERATION_OTHER;
    block->has_ended = true;
    block->ended = true;
    block->has_action = true;
    block->action = action;
    set_errno(block, error);
    if (r) {
        block->operation = r->op;
        set_range(block, r->offset, r->bytes);
        block->has_age_ms = true;
        block->age_ms = r->age_ms;
    }
    trace_blk_error(block->node_name ?: "",
                    HwErrorBlockOperation_str(block->operation),
                    block->offset, block->length, error);
    return hw_error_report(&e);
}

void blk_error_report(BlockBackend *blk, bool is_read, int error)
{
    report_error(blk, is_read, error, BLOCK_ERROR_ACTION_REPORT);
}

BlockErrorAction blk_get_error_action(BlockBackend *blk, bool is_read,
                                      int error)
{
    BlockErrorAction action = blk_default_error_action(blk, is_read, error);
    HwErrorAction chosen = report_error(blk, is_read, error, action);
    IO_CODE();

    set_quiescing_blk(chosen == HW_ERROR_ACTION_QUIESCE ? blk : NULL);
    if (hw_error_contains(chosen)) {
        return BLOCK_ERROR_ACTION_STOP;
    }
    return hw_error_injects(chosen) ? BLOCK_ERROR_ACTION_REPORT : action;
}

bool blk_error_quiesces(BlockBackend *blk)
{
    return get_quiescing_blk() == blk;
}

/* Stalls */

/* A request that was reported while it was in flight */
typedef struct BdrvStall {
    /* QOM path of the device; NULL if it is no device's */
    char *qom_path;
} BdrvStall;

static QEMUTimer *timer;
static uint32_t scan_ms;

static HwErrorAction report_stall(BlockDriverState *bs, const char *path,
                                  HwErrorBlockOperation op, int64_t offset,
                                  int64_t bytes, int64_t start_ns, bool ended,
                                  int ret)
{
    HwErrorInfo e = {
        .source = HW_ERROR_SOURCE_BLOCK_STALL,
        .severity = HW_ERROR_SEVERITY_RECOVERABLE,
    };
    HwErrorBlock *block = &e.u.block_stall;

    block->qom_path = (char *)path;
    block->node_name = (char *)bdrv_get_node_name(bs);
    block->operation = op;
    set_range(block, offset, bytes);
    block->has_age_ms = true;
    block->age_ms = age_ms(start_ns);
    block->has_ended = true;
    block->ended = ended;
    if (ended && ret < 0) {
        e.severity = hw_error_severity_errno(-ret);
        set_errno(block, -ret);
    } else if (ended) {
        e.severity = HW_ERROR_SEVERITY_CORRECTED;
    }
    trace_bdrv_stall(block->node_name, path ?: "", block->age_ms, ended);
    return hw_error_report(&e);
}

/* With reqs_lock held, so that a request's end is reported after its stall */
static BdrvStall *stall_begin(BlockDriverState *bs, const char *path,
                              HwErrorBlockOperation op, int64_t offset,
                              int64_t bytes, int64_t start_ns)
{
    BdrvStall *stall = g_new0(BdrvStall, 1);

    stall->qom_path = g_strdup(path);
    report_stall(bs, path, op, offset, bytes, start_ns, false, 0);
    return stall;
}

static void request_end(BlockDriverState *bs, BdrvStall **stall,
                        HwErrorBlockOperation op, int64_t offset,
                        int64_t bytes, int64_t start_ns, int ret)
{
    if (*stall) {
        report_stall(bs, (*stall)->qom_path, op, offset, bytes, start_ns,
                     true, ret);
        g_free((*stall)->qom_path);
        g_clear_pointer(stall, g_free);
    }
    if (ret < 0) {
        *get_ptr_ended_request() = (EndedRequest) {
            .co = qemu_coroutine_self(),
            .bs = bs,
            .ret = ret,
            .op = op,
            .offset = offset,
            .bytes = bytes,
            .age_ms = age_ms(start_ns),
        };
    }
}

void bdrv_request_failed_or_stalled(BdrvTrackedRequest *req, int ret)
{
    request_end(req->bs, &req->stall, operations[req->type], req->offset,
                req->bytes, req->start_ns, ret);
}

void bdrv_flush_failed_or_stalled(BlockDriverState *bs, int ret)
{
    request_end(bs, &bs->flush_stall, HW_ERROR_BLOCK_OPERATION_FLUSH, 0, 0,
                bs->flush_start_ns, ret);
}

/* When the oldest request in flight was started; INT64_MAX if there is none */
static int64_t oldest_start(BlockDriverState *bs)
{
    int64_t oldest_ns = INT64_MAX;
    BdrvTrackedRequest *req;

    QEMU_LOCK_GUARD(&bs->reqs_lock);

    QLIST_FOREACH(req, &bs->tracked_requests, list) {
        oldest_ns = MIN(oldest_ns, req->start_ns);
    }
    if (bs->active_flush_req) {
        oldest_ns = MIN(oldest_ns, bs->flush_start_ns);
    }
    return oldest_ns;
}

/* QOM path of the device whose root node is @bs, to be freed; or NULL */
static char *root_device_path(BlockDriverState *bs)
{
    BlockBackend *blk;

    for (blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        if (blk_bs(blk) == bs && blk_get_attached_dev(blk)) {
            return object_get_canonical_path(
                OBJECT(blk_get_attached_dev(blk)));
        }
    }
    return NULL;
}

/* Requests of @bs that were started until then are too old; 0 if none is */
static int64_t limit_ns(BlockDriverState *bs, const char *path)
{
    uint32_t ms = hw_error_stall_limit_ms(HW_ERROR_SOURCE_BLOCK_STALL,
                                          path ?: bdrv_get_node_name(bs));

    return ms ? qemu_clock_get_ns(QEMU_CLOCK_REALTIME) -
                (int64_t)ms * SCALE_MS : 0;
}

/*
 * When the oldest request was started that is too old for a node above @bs;
 * INT64_MAX if there is none.  What @bs has to do for it was started later.
 */
static int64_t GRAPH_RDLOCK oldest_above(BlockDriverState *bs)
{
    int64_t oldest_ns = INT64_MAX;
    BdrvChild *c;

    QLIST_FOREACH(c, &bs->parents, next_parent) {
        if (c->klass->parent_is_bds) {
            BlockDriverState *parent = c->opaque;
            g_autofree char *path = root_device_path(parent);
            int64_t start_ns = oldest_start(parent);

            if (start_ns <= limit_ns(parent, path)) {
                oldest_ns = MIN(oldest_ns, start_ns);
            }
            oldest_ns = MIN(oldest_ns, oldest_above(parent));
        }
    }
    return oldest_ns;
}

static void GRAPH_RDLOCK scan_node(BlockDriverState *bs)
{
    g_autofree char *path = root_device_path(bs);
    int64_t until_ns = limit_ns(bs, path);
    int64_t above_ns;
    BdrvTrackedRequest *req;

    if (oldest_start(bs) > until_ns) {
        return;
    }
    above_ns = oldest_above(bs);

    QEMU_LOCK_GUARD(&bs->reqs_lock);

    QLIST_FOREACH(req, &bs->tracked_requests, list) {
        if (!req->stall && req->start_ns <= until_ns &&
            req->start_ns < above_ns) {
            req->stall = stall_begin(bs, path, operations[req->type],
                                     req->offset, req->bytes, req->start_ns);
        }
    }
    if (bs->active_flush_req && !bs->flush_stall &&
        bs->flush_start_ns <= until_ns && bs->flush_start_ns < above_ns) {
        bs->flush_stall = stall_begin(bs, path, HW_ERROR_BLOCK_OPERATION_FLUSH,
                                      0, 0, bs->flush_start_ns);
    }
}

/* Also runs while the main loop waits in a drained section: waits for nothing */
static void scan(void *opaque)
{
    int64_t now_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    BlockDriverState *bs = NULL;

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    while ((bs = bdrv_next_all_states(bs))) {
        /* Nearly always there is nothing that is older than this */
        if (oldest_start(bs) <= now_ns - (int64_t)scan_ms * SCALE_MS) {
            scan_node(bs);
        }
    }
    timer_mod(timer, now_ns / SCALE_MS + scan_ms);
}

static void policy_changed(Notifier *n, void *unused)
{
    scan_ms = hw_error_stall_scan_ms(HW_ERROR_SOURCE_BLOCK_STALL);
    if (!scan_ms) {
        g_clear_pointer(&timer, timer_free);
        return;
    }
    if (!timer) {
        timer = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME,
                              SCALE_MS, scan, NULL);
    }
    timer_mod(timer, 0);
}

/* Servers */

/* What is to be reported from the main loop, in this order */
typedef struct BackendChange {
    char *node_name;
    HwErrorBackendState state;
    HwErrorSeverity severity;
} BackendChange;

static GAsyncQueue *backend_changes;

static void report_backend_bh(void *unused)
{
    BackendChange *c = g_async_queue_pop(backend_changes);
    BlockDriverState *bs = bdrv_find_node(c->node_name);
    g_autofree char *path = NULL;
    HwErrorInfo e = {
        .source = HW_ERROR_SOURCE_BACKEND,
        .severity = c->severity,
        .u.backend.type = HW_ERROR_BACKEND_TYPE_NBD,
        .u.backend.state = c->state,
        .u.backend.node_name = c->node_name,
    };

    if (bs) {
        GRAPH_RDLOCK_GUARD_MAINLOOP();
        path = bdrv_device_path(bs);
        e.u.backend.qom_path = path;
    }
    trace_bdrv_backend(c->node_name, HwErrorBackendState_str(c->state));
    hw_error_report(&e);
    g_free(c->node_name);
    g_free(c);
}

void bdrv_backend_changed(BlockDriverState *bs, HwErrorBackendState state,
                          HwErrorSeverity severity)
{
    BackendChange *c = g_new(BackendChange, 1);

    *c = (BackendChange) {
        .node_name = g_strdup(bdrv_get_node_name(bs)),
        .state = state,
        .severity = severity,
    };
    g_async_queue_push(backend_changes, c);
    /* Bottom halves may be reordered: each takes what comes first */
    aio_bh_schedule_oneshot(qemu_get_aio_context(), report_backend_bh, NULL);
}

static Notifier policy_notifier = { .notify = policy_changed };

static void __attribute__((__constructor__)) block_hw_error_init(void)
{
    backend_changes = g_async_queue_new();
    hw_error_add_policy_notifier(&policy_notifier);
}
