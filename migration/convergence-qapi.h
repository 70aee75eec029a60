/*
 * Migration convergence: from what was reported back to what was measured
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_MIGRATION_CONVERGENCE_QAPI_H
#define QEMU_MIGRATION_CONVERGENCE_QAPI_H

#include "qapi/qapi-types-migration-convergence.h"
#include "convergence.h"

/**
 * convergence_pass_from_qapi: a pass as the engine saw it
 *
 * Any thread.
 */
void convergence_pass_from_qapi(ConvergencePass *pass,
                                const MigrationPass *reported);

/**
 * convergence_limits_from_qapi: the limits of a recorded migration
 *
 * Whether pages could be withheld is not recorded: they could if they were.
 * Without passes the page size is 0.  Any thread.
 */
void convergence_limits_from_qapi(ConvergenceLimits *limits,
                                  const MigrationRecord *record);

#endif
