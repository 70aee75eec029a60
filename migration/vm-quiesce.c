/*
 * Quiesced run state: outgoing migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration.h"
#include "migration/misc.h"
#include "migration/vm-quiesce.h"
#include "qapi/error.h"
#include "system/runstate.h"
#include "system/vm-quiesce.h"

bool migration_quiesce_possible(Error **errp)
{
    if (migration_in_postcopy() || migration_in_incoming_postcopy()) {
        error_setg(errp, "The VM cannot be quiesced during postcopy: "
                   "guest RAM is spread over two hosts");
        return false;
    }
    return true;
}

static void migration_quiesce_stop(VMQuiesceParticipant *p)
{
    /*
     * Once the device state is being sent, the destination may have got all
     * of it and run, whatever is cancelled here.  Wait for the outcome then.
     * The migration thread enters this state with the BQL held, and not if it
     * is cancelled before.
     */
    if (migration_is_running() &&
        migrate_get_current()->state != MIGRATION_STATUS_DEVICE) {
        migration_cancel();
    }
}

static VMQuiesceResult migration_quiesce_poll(VMQuiesceParticipant *p,
                                              VmQuiescePhase phase,
                                              Error **errp)
{
    if (migration_is_running()) {
        error_setg(errp, "the outgoing migration has not ended");
        return VM_QUIESCE_BUSY;
    }
    /*
     * The migration thread may not have come to that yet.  Where the VM is now
     * must be known before it is quiesced.
     */
    if (runstate_check(RUN_STATE_FINISH_MIGRATE)) {
        runstate_set(migrate_get_current()->state ==
                     MIGRATION_STATUS_COMPLETED ? RUN_STATE_POSTMIGRATE
                                                : RUN_STATE_PAUSED);
    }
    return VM_QUIESCE_DONE;
}

static VMQuiesceParticipant migration_participant = {
    .name = "migration",
    .order = VM_QUIESCE_ORDER_MIGRATION,
    .stop = migration_quiesce_stop,
    .poll = migration_quiesce_poll,
};

static void __attribute__((__constructor__)) migration_quiesce_init(void)
{
    vm_quiesce_register(&migration_participant);
}
