/*
 * Quiesced run state: migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_VM_QUIESCE_H
#define MIGRATION_VM_QUIESCE_H

/**
 * migration_quiesce_possible: Whether migration allows the VM to be quiesced.
 * @errp: says why not
 *
 * Called with the BQL held.
 */
bool migration_quiesce_possible(Error **errp);

#endif
