/*
 * Quiesced run state: block exports
 *
 * All exports are closed, whether writable or not: their clients must see an
 * error, not an image that somebody else has taken over.
 *
 * An NBD client may keep its requests from ending, so it is disconnected before
 * block nodes are drained.  Closing any other export waits for its requests in
 * the main loop, so it is done when they have just ended: that the storage
 * answers is known then.
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
#include "qemu/atomic.h"
#include "system/vm-quiesce.h"

/* The exports that there were when the VM was asked to quiesce */
static BlockExportInfoList *recorded;
/* The shutdown of all of them has been requested */
static bool closed;

BlockExportInfoList *exports_quiesce_closed(void)
{
    return closed ? QAPI_CLONE(BlockExportInfoList, recorded) : NULL;
}

/* Returns whether there are others */
static bool close_exports_of(bool nbd)
{
    BlockExportInfoList *l;
    bool others = false;

    for (l = recorded; l; l = l->next) {
        BlockExport *exp = blk_exp_find(l->value->id);

        if ((l->value->type == BLOCK_EXPORT_TYPE_NBD) != nbd) {
            others = true;
        } else if (exp) {
            blk_exp_request_shutdown(exp);
        }
    }
    return others;
}

/* A client that was negotiating when its export was closed may still join */
static void disconnect_late_clients(BlockExportInfoList *open)
{
    for (; open; open = open->next) {
        BlockExport *exp = blk_exp_find(open->value->id);

        /* One that is being deleted has no reference, and gets none */
        if (open->value->type == BLOCK_EXPORT_TYPE_NBD &&
            qatomic_fetch_inc_nonzero(&exp->refcount)) {
            exp->drv->request_shutdown(exp);
            blk_exp_unref(exp);
        }
    }
}

/* Not in the drained section: it has detached their servers */
static void close_other_exports(void)
{
    close_exports_of(false);
}

static void exports_quiesce_stop(VMQuiesceParticipant *p)
{
    recorded = qmp_query_block_exports(&error_abort);
    closed = !close_exports_of(true);
}

static VMQuiesceResult exports_quiesce_poll(VMQuiesceParticipant *p,
                                            VmQuiescePhase phase, Error **errp)
{
    g_autoptr(BlockExportInfoList) open = NULL;

    if (phase != VM_QUIESCE_PHASE_DRAIN) {
        return VM_QUIESCE_DONE;
    }

    if (!closed && block_quiesce_drained()) {
        closed = true;
        block_quiesce_undrained(close_other_exports);
    }
    open = qmp_query_block_exports(&error_abort);
    if (open) {
        disconnect_late_clients(open);
        error_setg(errp, "export '%s' of node '%s' is not closed",
                   open->value->id, open->value->node_name);
        return VM_QUIESCE_BUSY;
    }
    return VM_QUIESCE_DONE;
}

static bool exports_quiesce_undo(VMQuiesceParticipant *p, Error **errp)
{
    g_clear_pointer(&recorded, qapi_free_BlockExportInfoList);
    closed = false;
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
