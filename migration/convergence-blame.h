/*
 * Migration convergence: which vCPUs to slow down
 *
 * With the KVM dirty ring it is known which vCPU wrote how many pages; one
 * that writes next to nothing is spared, as slowing it down is no use.
 * Without, none is.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_MIGRATION_CONVERGENCE_BLAME_H
#define QEMU_MIGRATION_CONVERGENCE_BLAME_H

#include "hw/core/cpu.h"

/**
 * convergence_blame_start: a migration starts, nobody is spared
 *
 * Called with the BQL while nothing else here is.
 */
void convergence_blame_start(void);

/**
 * convergence_blame_end: spare nobody any more; any thread
 */
void convergence_blame_end(void);

/**
 * convergence_blame_update: the dirty bitmap has been synchronized
 *
 * Called with the BQL, or before the first pass.
 */
void convergence_blame_update(void);

/**
 * convergence_blame_spares: whether not to slow @cpu down; any thread
 */
bool convergence_blame_spares(CPUState *cpu);

#endif
