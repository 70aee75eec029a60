/*
 * Hardware errors: the block layer of programs without a VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/hw-error.h"

void blk_failed_request_init(BlkFailedRequest *r, BlockBackend *blk,
                             int64_t offset, int64_t bytes, int ret)
{
    r->ret = ret;
}

void blk_failed_request_call(const BlkFailedRequest *r, BlockAIOCB *acb)
{
    acb->cb(acb->opaque, r->ret);
}

bool blk_error_quiesces(BlockBackend *blk)
{
    return false;
}

void bdrv_request_failed_or_stalled(struct BdrvTrackedRequest *req, int ret)
{
}

void bdrv_flush_failed_or_stalled(BlockDriverState *bs, int ret)
{
}

void bdrv_backend_changed(BlockDriverState *bs, HwErrorBackendState state,
                          HwErrorSeverity severity)
{
}
