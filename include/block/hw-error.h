/*
 * Hardware errors: block layer
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_HW_ERROR_H
#define BLOCK_HW_ERROR_H

#include "block/aio.h"
#include "block/block-common.h"
#include "qapi/qapi-types-hw-error.h"
#include "qemu/timer.h"
#include "system/block-backend-io.h"

struct BdrvTrackedRequest;

/*
 * QEMU_CLOCK_REALTIME, up to a tick of the host in the past: requests are
 * started often, and it is seldom asked when.
 */
static inline int64_t bdrv_request_clock_ns(void)
{
#ifdef CLOCK_MONOTONIC_COARSE
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
    return ts.tv_sec * NANOSECONDS_PER_SECOND + ts.tv_nsec;
#else
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
#endif
}

/* What is known of a failed request of a block backend */
typedef struct BlkFailedRequest {
    BlockBackend *blk;
    int ret;
    /* Whether the root node has had it; otherwise what follows is not valid */
    bool known;
    HwErrorBlockOperation op;
    /* As the device has asked for; no use for a flush */
    int64_t offset;
    int64_t bytes;
    int64_t age_ms;
} BlkFailedRequest;

/**
 * blk_failed_request_init: Remember a request that has failed, before the
 * device is told of it.
 * @r: filled in in the request's coroutine; kept as it is elsewhere
 * @blk: the device's back end
 * @offset: where the device wanted to read or write
 * @bytes: how much
 * @ret: what the request returns
 *
 * Any thread.
 */
void blk_failed_request_init(BlkFailedRequest *r, BlockBackend *blk,
                             int64_t offset, int64_t bytes, int ret);

/**
 * blk_failed_request_call: Call @acb's function for a request that has failed;
 * see blk_failed_request_init().
 *
 * Any thread.
 */
void blk_failed_request_call(const BlkFailedRequest *r, BlockAIOCB *acb);

/**
 * blk_failed_request_backend: The back end of the request that the calling
 * function is being told of, if that has failed with @ret.
 * @ret: a negative errno
 *
 * Any thread.  Returns NULL if there is none: what has failed, if anything, is
 * not the back end.
 */
BlockBackend *blk_failed_request_backend(int ret);

/* Call @acb's function for a request that returns @ret; @r only if that is < 0 */
static inline void blk_aio_call(BlockAIOCB *acb, int ret,
                                const BlkFailedRequest *r)
{
    if (likely(ret >= 0)) {
        acb->cb(acb->opaque, ret);
    } else {
        blk_failed_request_call(r, acb);
    }
}

/**
 * blk_default_error_action: blk_get_error_action() without rules for hardware
 * errors.
 */
BlockErrorAction blk_default_error_action(BlockBackend *blk, bool is_read,
                                          int error);

/**
 * blk_error_report: A request has failed, and the device cannot but tell the
 * guest.
 * @blk: the device's back end
 * @is_read: whether it was a read
 * @error: the errno, positive
 *
 * Called by the function that the device is told with.  Any thread.
 */
void blk_error_report(BlockBackend *blk, bool is_read, int error);

/**
 * blk_error_quiesces: Whether the VM is about to be quiesced for the error
 * that blk_get_error_action() was called for last, by the same thread.
 */
bool blk_error_quiesces(BlockBackend *blk);

/*
 * blk_iostatus_set_err() if the device has a status: it need not have one when
 * a request is held because of a rule.
 */
static inline void blk_iostatus_try_set_err(BlockBackend *blk, int error)
{
    if (blk_iostatus_is_enabled(blk)) {
        blk_iostatus_set_err(blk, error);
    }
}

/* QOM path of the device, or else an empty string; to be freed.  Any thread. */
char *blk_get_attached_dev_path(BlockBackend *blk);

/**
 * bdrv_request_failed_or_stalled: A request has ended that has failed, or has
 * been reported while it was in flight.
 * @req: no longer in its node's list
 * @ret: what it returns
 *
 * Called in the request's coroutine with the node's reqs_lock held.
 */
void bdrv_request_failed_or_stalled(struct BdrvTrackedRequest *req, int ret);

/**
 * bdrv_flush_failed_or_stalled: As bdrv_request_failed_or_stalled(), for the
 * flush in flight.
 */
void bdrv_flush_failed_or_stalled(BlockDriverState *bs, int ret);

/**
 * bdrv_backend_changed: The server that a node is connected to is lost, or is
 * back.
 * @bs: the node
 * @state: the server's state
 * @severity: how bad that is
 *
 * Any thread.  It is reported from the main loop.
 */
void bdrv_backend_changed(BlockDriverState *bs, HwErrorBackendState state,
                          HwErrorSeverity severity);

#endif
