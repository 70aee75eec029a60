/*
 * Quiesced run state: block exports
 *
 * All exports are closed, whether writable or not: their clients must see an
 * error, not an image that somebody else has taken over.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/export.h"
#include "block/vm-quiesce.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-block-export.h"
#include "qapi/qapi-visit-block-export.h"
#include "system/vm-quiesce.h"

static BlockExportInfoList *closed;

BlockExportInfoList *exports_quiesce_closed(void)
{
    return QAPI_CLONE(BlockExportInfoList, closed);
}

static void exports_quiesce_stop(VMQuiesceParticipant *p)
{
    BlockExportInfoList *l;

    closed = qmp_query_block_exports(&error_abort);
    for (l = closed; l; l = l->next) {
        blk_exp_request_shutdown(blk_exp_find(l->value->id));
    }
}

static VMQuiesceResult exports_quiesce_poll(VMQuiesceParticipant *p,
                                            VmQuiescePhase phase, Error **errp)
{
    g_autoptr(BlockExportInfoList) list = qmp_query_block_exports(&error_abort);

    if (list) {
        error_setg(errp, "export '%s' of node '%s' is still shutting down",
                   list->value->id, list->value->node_name);
        return VM_QUIESCE_BUSY;
    }
    return VM_QUIESCE_DONE;
}

static bool exports_quiesce_undo(VMQuiesceParticipant *p, Error **errp)
{
    g_clear_pointer(&closed, qapi_free_BlockExportInfoList);
    return true;
}

static VMQuiesceParticipant exports_participant = {
    .name = "block-exports",
    .order = VM_QUIESCE_ORDER_BACKENDS,
    .stop = exports_quiesce_stop,
    .poll = exports_quiesce_poll,
    .undo = exports_quiesce_undo,
};

static void __attribute__((__constructor__)) exports_quiesce_init(void)
{
    vm_quiesce_register(&exports_participant);
}
