/*
 * Quiesced run state: migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_VM_QUIESCE_H
#define MIGRATION_VM_QUIESCE_H

#include "qapi/qapi-types-migration.h"
#include "qapi/qapi-types-run-state.h"

/**
 * migration_quiesce_possible: Whether migration allows the VM to be quiesced.
 * @errp: says why not
 *
 * Called with the BQL held.
 */
bool migration_quiesce_possible(Error **errp);

/**
 * migration_quiesce_allows: Whether the VM may be migrated to @addr now: if it
 * is quiesced, to a file.
 * @errp: says why not
 *
 * Called with the BQL held.
 */
bool migration_quiesce_allows(MigrationAddress *addr, Error **errp);

/**
 * migration_quiesce_completed: The VM has been migrated: it is in the run state
 * "postmigrate" now, unless it was saved quiesced.
 * @old_state: the run state when it was stopped for that
 *
 * Called with the BQL held.
 */
void migration_quiesce_completed(RunState old_state);

/** vm_quiesce_register_vmstate: Must be followed by the global state. */
void vm_quiesce_register_vmstate(void);

/**
 * vm_quiesce_loaded: Whether the state that is being loaded may be that of a
 * quiesced VM.
 * @errp: says why not
 *
 * Called with the BQL held, when the run state is loaded.
 */
bool vm_quiesce_loaded(Error **errp);

/**
 * vm_quiesce_restore: Quiesce the VM if its state that was loaded says so.
 *
 * Called with the BQL held, when everything is loaded, and before it has any
 * effect.
 */
void vm_quiesce_restore(void);

#endif
