/*
 * Hardware errors: NVMe
 *
 * All of it is for the main thread, with the BQL held.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_NVME_HW_ERROR_H
#define HW_NVME_HW_ERROR_H

#include "nvme.h"

/* Of every namespace's block backend; opaque is the block backend */
extern const BlockDevOps nvme_block_ops;

/**
 * nvme_hold_failed: A command has failed.  Report it if the back end has failed
 * it, and hold it if the VM is stopped or quiesced for that.
 * @req: the command
 * @ret: the error, a negative errno
 * @cb: how the command ends with an error if it is not held, or no longer; it
 *      may be the caller
 *
 * Called while the block layer tells of the failed request.
 *
 * Returns whether it is held: then it is not completed.
 */
bool nvme_hold_failed(NvmeRequest *req, int ret, BlockCompletionFunc *cb);

/**
 * nvme_is_held: Whether a command is held, or is just being executed again:
 * the write pointer of its zone has moved then, or its reclaim unit is filled.
 */
bool nvme_is_held(NvmeRequest *req);

/**
 * nvme_drop_held: Have the commands that @n holds end with an error, before its
 * queues are freed.
 */
void nvme_drop_held(NvmeCtrl *n);

/* In ctrl.c */
uint16_t nvme_io_cmd(NvmeCtrl *n, NvmeRequest *req);
void nvme_sg_unmap(NvmeSg *sg);

#endif
