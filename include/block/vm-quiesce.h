/*
 * Quiesced run state: block layer
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_VM_QUIESCE_H
#define BLOCK_VM_QUIESCE_H

#include "block/graph-lock.h"
#include "qapi/qapi-types-block-export.h"
#include "qapi/qapi-types-job.h"

/**
 * block_quiesce_drained: Whether no request is in flight, and none can be
 * started but by jobs that are cancelled.
 *
 * For phase 'drain': begins the drained section if need be.  Called with the
 * BQL held.
 */
bool block_quiesce_drained(void);

/**
 * block_quiesce_undrained: Call @fn outside of the drained section, right after
 * block_quiesce_drained() has returned true.  Then drain again.
 */
void block_quiesce_undrained(void (*fn)(void));

/**
 * bdrv_device_path: QOM path of a device that uses @bs, directly or by way of
 * other nodes.
 *
 * Called from the main thread.  Returns NULL if there is none; to be freed.
 */
char * GRAPH_RDLOCK bdrv_device_path(BlockDriverState *bs);

/**
 * jobs_quiesce_cancelled: The jobs that quiescing has cancelled, as they were
 * then; none after vm-unquiesce.
 *
 * Called with the BQL held.  Returns a new list.
 */
JobInfoList *jobs_quiesce_cancelled(void);

/**
 * exports_quiesce_closed: The block exports that quiescing has closed; none
 * after vm-unquiesce.
 *
 * Called with the BQL held.  Returns a new list.
 */
BlockExportInfoList *exports_quiesce_closed(void);

#endif
