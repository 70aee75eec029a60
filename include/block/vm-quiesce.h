/*
 * Quiesced run state: what quiescing has ended
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BLOCK_VM_QUIESCE_H
#define BLOCK_VM_QUIESCE_H

#include "qapi/qapi-types-block-export.h"
#include "qapi/qapi-types-job.h"

/**
 * jobs_quiesce_cancelled: The jobs that had not ended when the VM was last
 * asked to quiesce, as they were then; none after vm-unquiesce.
 *
 * Called with the BQL held.  Returns a new list.
 */
JobInfoList *jobs_quiesce_cancelled(void);

/**
 * exports_quiesce_closed: The block exports that existed when the VM was last
 * asked to quiesce; none after vm-unquiesce.
 *
 * Called with the BQL held.  Returns a new list.
 */
BlockExportInfoList *exports_quiesce_closed(void);

#endif
