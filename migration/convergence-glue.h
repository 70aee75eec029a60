/*
 * Migration convergence: measure, decide, and carry out
 *
 * The glue between the migration thread and the engine of convergence.h.
 * Everything here does nothing, or what upstream does, while the capability
 * "convergence" is off.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_MIGRATION_CONVERGENCE_GLUE_H
#define QEMU_MIGRATION_CONVERGENCE_GLUE_H

#include "qapi/qapi-types-migration.h"

/* Capability and parameters: convergence-params.c */

/**
 * migrate_convergence: whether the capability is on
 */
bool migrate_convergence(void);

/**
 * convergence_caps_check: check a new set of capabilities
 *
 * @caps: the new set
 * @errp: which two conflict
 */
bool convergence_caps_check(const bool *caps, Error **errp);

/**
 * convergence_rdma_caps_check: check capabilities for a migration over RDMA,
 *                              which sends past the accounting
 *
 * @caps: the capabilities
 * @errp: what conflicts
 */
bool convergence_rdma_caps_check(const bool *caps, Error **errp);

/**
 * convergence_params_init: set the defaults
 */
void convergence_params_init(MigrationConvergenceParameters *p);

/**
 * convergence_params_check: check new values
 *
 * @p: the values; those without has_* are not looked at
 * @errp: what is wrong with which one
 */
bool convergence_params_check(const MigrationConvergenceParameters *p,
                              Error **errp);

/**
 * convergence_params_merge: take over the values of @src that are set
 *
 * @dst: gets pointers into @src, unless they are copied later
 * @src: new values
 */
void convergence_params_merge(MigrationConvergenceParameters *dst,
                              const MigrationConvergenceParameters *src);

/**
 * convergence_params_apply: the same, with copies of strings; those that @dst
 *                           has are freed
 */
void convergence_params_apply(MigrationConvergenceParameters *dst,
                              const MigrationConvergenceParameters *src);

/**
 * convergence_prepare: check that `migrate` can start
 *
 * Called with the BQL.
 *
 * @errp: what is in the way
 */
bool convergence_prepare(Error **errp);

/* The migration: convergence-glue.c */

/**
 * convergence_start: an outgoing migration begins
 *
 * Called with the BQL, after all checks.
 */
void convergence_start(void);

/**
 * convergence_set_state: the state of a migration changes
 *
 * Keeps the history, and releases the throttle and what is withheld when the
 * copy is over, however it ends.  Any thread.
 *
 * @state: that of the outgoing or of the incoming migration
 * @new_state: what it was set to
 */
void convergence_set_state(const MigrationStatus *state,
                           MigrationStatus new_state);

/**
 * convergence_clear_bitmap_shift: log2 of the pages to clear at once in the
 *                                 accelerator's dirty log
 *
 * @shift: upstream's
 */
uint8_t convergence_clear_bitmap_shift(uint8_t shift);

/**
 * convergence_sync_begin: the dirty bitmap will be synchronized
 *
 * Called with the bitmap mutex and in an RCU read section; with the BQL, too,
 * but for the first sync.
 *
 * @dirty_pages: pages that are dirty now
 */
void convergence_sync_begin(uint64_t dirty_pages);

/**
 * convergence_sync_end: the dirty bitmap has been synchronized
 *
 * Called as convergence_sync_begin().
 *
 * @dirty_pages: pages that are dirty now
 */
void convergence_sync_end(uint64_t dirty_pages);

/**
 * convergence_bandwidth_sample: upstream's sample of the bandwidth
 *
 * Called by the migration thread after each round of sending.
 *
 * @s: the outgoing migration
 * @now: milliseconds of QEMU_CLOCK_REALTIME
 */
void convergence_bandwidth_sample(MigrationState *s, int64_t now);

/**
 * convergence_pass_over: whether to synchronize the dirty bitmap now
 *
 * Called by the migration thread before each round of sending.
 *
 * @s: the outgoing migration
 * @pending_size: estimate of what is to be sent, in bytes
 */
bool convergence_pass_over(MigrationState *s, uint64_t pending_size);

/**
 * convergence_ready: whether to switch over now
 *
 * Called by the migration thread without the BQL.  Ends a pass if the dirty
 * bitmap was synchronized since the last call: reports it and carries out what
 * the engine decides.
 *
 * @s: the outgoing migration
 * @pending_size: what is to be sent, in bytes
 * @can_switchover: whether the destination has agreed
 */
bool convergence_ready(MigrationState *s, uint64_t pending_size,
                       bool can_switchover);

#endif
