/*
 * Hardware errors: NVMe
 *
 * A command that the back end has failed, and for which the VM is stopped or
 * quiesced, is held: it stays outstanding, and is executed again, from its
 * start, when the VM runs.  Meanwhile an AIOCB stands for it, so it is
 * cancelled as one in flight is, by Abort and by the deletion of its queue, and
 * then ends as it would have without a rule.
 *
 * To execute it again must make no difference to the guest, whatever part of it
 * was done before.  So these are not held:
 *
 *  - Copy: what it reads may be what it has written;
 *  - Format NVM: it may have formatted a namespace that was written to since;
 *  - all, if the controller or the namespace has atomic writes: a command that
 *    must not overlap with one that is outstanding is tried again and again.
 *
 * A write to a zone has its place there already, as has one in a reclaim unit.
 *
 * All state belongs to the main thread, with the BQL held.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/hw-error.h"
#include "system/block-backend.h"
#include "system/runstate.h"
#include "hw-error.h"
#include "trace.h"

/* @common.cb ends the command, which is @common.opaque, with an error */
typedef struct NvmeHeld {
    BlockAIOCB common;
    BlockBackend *blk;
    VMChangeStateEntry *restart;
    QTAILQ_ENTRY(NvmeHeld) entry;
} NvmeHeld;

static QTAILQ_HEAD(, NvmeHeld) held_requests =
    QTAILQ_HEAD_INITIALIZER(held_requests);

static void nvme_unhold(NvmeHeld *held)
{
    QTAILQ_REMOVE(&held_requests, held, entry);
    qemu_del_vm_change_state_handler(held->restart);
}

static void nvme_held_cancel(BlockAIOCB *acb)
{
    NvmeRequest *req = acb->opaque;

    trace_pci_nvme_held_cancel(nvme_cid(req), req->sq->sqid);
    nvme_unhold(container_of(acb, NvmeHeld, common));
    acb->cb(req, -ECANCELED);
    qemu_aio_unref(acb);
}

static const AIOCBInfo nvme_held_aiocb_info = {
    .aiocb_size = sizeof(NvmeHeld),
    .cancel_async = nvme_held_cancel,
};

static void nvme_held_restart(void *opaque, bool running, RunState state)
{
    NvmeHeld *held = opaque;
    NvmeRequest *req = held->common.opaque;
    uint16_t status;

    if (!running) {
        return;
    }
    trace_pci_nvme_held_restart(nvme_cid(req), req->sq->sqid);
    nvme_unhold(held);

    /* The rest of the completion stays: where in the zone it was appended */
    req->status = NVME_SUCCESS;
    status = nvme_io_cmd(nvme_ctrl(req), req);
    if (status != NVME_NO_COMPLETE) {
        /* The namespace is gone, or the guest has changed the command's PRPs */
        req->status = status;
        held->common.cb(req, -EFAULT);
    }
    qemu_aio_unref(held);
}

static void nvme_hold(NvmeRequest *req, BlockBackend *blk,
                      BlockCompletionFunc *cb)
{
    NvmeHeld *held = qemu_aio_get(&nvme_held_aiocb_info, NULL, cb, req);

    nvme_sg_unmap(&req->sg);
    req->aiocb = &held->common;
    held->blk = blk;
    held->restart = qdev_add_vm_change_state_handler(
        DEVICE(nvme_ctrl(req)), nvme_held_restart, NULL, held);
    QTAILQ_INSERT_TAIL(&held_requests, held, entry);
}

static bool nvme_has_atomic_writes(NvmeRequest *req)
{
    return nvme_ctrl(req)->atomic.atomic_writes ||
           (req->ns && req->ns->atomic.atomic_writes);
}

static bool nvme_can_repeat(NvmeRequest *req)
{
    if (!req->sq->sqid || req->cmd.opcode == NVME_CMD_COPY) {
        return false;
    }
    if (req->status == NVME_CMD_ABORT_REQ ||
        req->status == NVME_CMD_ABORT_SQ_DEL) {
        return false;
    }
    return !nvme_has_atomic_writes(req);
}

static bool nvme_is_read(NvmeRequest *req)
{
    return req->sq->sqid && (req->cmd.opcode == NVME_CMD_READ ||
                             req->cmd.opcode == NVME_CMD_COMPARE ||
                             req->cmd.opcode == NVME_CMD_VERIFY);
}

bool nvme_hold_failed(NvmeRequest *req, int ret, BlockCompletionFunc *cb)
{
    BlockBackend *blk = blk_failed_request_backend(ret);
    bool is_read = nvme_is_read(req);

    if (!blk) {
        /* It was cancelled, or the guest is to blame */
        return false;
    }
    if (!nvme_can_repeat(req)) {
        blk_error_report(blk, is_read, -ret);
        return false;
    }
    if (blk_get_error_action(blk, is_read, -ret) != BLOCK_ERROR_ACTION_STOP) {
        return false;
    }
    trace_pci_nvme_hold(nvme_cid(req), req->sq->sqid, req->cmd.opcode, ret);
    nvme_hold(req, blk, cb);
    blk_error_action(blk, BLOCK_ERROR_ACTION_STOP, is_read, -ret);
    return true;
}

bool nvme_is_held(NvmeRequest *req)
{
    return req->aiocb && req->aiocb->aiocb_info == &nvme_held_aiocb_info;
}

void nvme_drop_held(NvmeCtrl *n)
{
    NvmeHeld *held, *next;

    QTAILQ_FOREACH_SAFE(held, &held_requests, entry, next) {
        if (nvme_ctrl(held->common.opaque) == n) {
            nvme_held_cancel(&held->common);
        }
    }
}

static uint64_t nvme_held_requests(void *opaque)
{
    NvmeHeld *held;
    uint64_t n = 0;

    QTAILQ_FOREACH(held, &held_requests, entry) {
        n += held->blk == opaque;
    }
    return n;
}

const BlockDevOps nvme_block_ops = {
    .held_requests = nvme_held_requests,
};
