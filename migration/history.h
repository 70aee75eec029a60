/*
 * Migration history
 *
 * The last migrations of this VM, for query-migration-history.  One lock; any
 * thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_MIGRATION_HISTORY_H
#define QEMU_MIGRATION_HISTORY_H

#include "qapi/qapi-types-migration.h"

/**
 * migration_history_begin: an outgoing migration begins
 */
void migration_history_begin(void);

/**
 * migration_history_set_state: the state of a migration changes
 *
 * Begins the record of an incoming migration, and ends records.
 *
 * @direction: which migration
 * @new_state: what it was set to
 */
void migration_history_set_state(MigrationDirection direction,
                                 MigrationStatus new_state);

/**
 * migration_history_settle: note how the last migration ended, and why it
 *                           failed
 *
 * Called before it is asked for, as whoever has read the state would not expect
 * anything else, and before its error is forgotten: many failures tell why only
 * after they have set the state.
 */
void migration_history_settle(void);

/**
 * migration_history_switchover_received: the destination was told that the
 *                                        guest is stopped
 *
 * Only the first call for a migration counts, as newer sources tell it
 * explicitly, and with older ones the first device's state does.
 */
void migration_history_switchover_received(void);

/**
 * migration_history_id: id of the outgoing migration, to be freed
 */
char *migration_history_id(void);

/**
 * migration_history_add_pass: add a pass to the outgoing migration
 *
 * @pass: the pass; it is copied
 */
void migration_history_add_pass(const MigrationPass *pass);

/**
 * migration_history_predict: the outgoing migration is about to switch over
 *
 * @downtime: the predicted downtime, in milliseconds
 */
void migration_history_predict(uint64_t downtime);

#endif
