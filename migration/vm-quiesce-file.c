/*
 * Quiesced run state: migration of a quiesced VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration.h"
#include "migration/vm-quiesce.h"
#include "options.h"
#include "qapi/error.h"
#include "system/runstate.h"
#include "system/vm-quiesce.h"

void migration_quiesce_completed(RunState old_state)
{
    /* A VM that was saved quiesced may have been unquiesced meanwhile */
    if (old_state != RUN_STATE_QUIESCED &&
        !runstate_check(RUN_STATE_QUIESCED)) {
        runstate_set(RUN_STATE_POSTMIGRATE);
    }
}

bool migration_quiesce_allows(MigrationAddress *addr, Error **errp)
{
    if (!vm_quiesce_active()) {
        return true;
    }
    if (!runstate_check(RUN_STATE_QUIESCED)) {
        error_setg(errp, "The VM is not quiesced yet");
        return false;
    }
    if (addr->transport != MIGRATION_ADDRESS_TYPE_FILE) {
        error_setg(errp, "A quiesced VM can only be migrated to a file");
        return false;
    }
    if (migrate_mode() != MIG_MODE_NORMAL || migrate_background_snapshot() ||
        migrate_colo() || migrate_postcopy()) {
        error_setg(errp, "A quiesced VM can only be migrated in mode 'normal', "
                   "without postcopy, background-snapshot and x-colo");
        return false;
    }
    return true;
}
