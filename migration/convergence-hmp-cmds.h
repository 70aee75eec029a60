/*
 * Migration convergence: parameters in the human monitor
 *
 * Main thread, with the BQL.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_MIGRATION_CONVERGENCE_HMP_CMDS_H
#define QEMU_MIGRATION_CONVERGENCE_HMP_CMDS_H

#include "monitor/monitor.h"
#include "qapi/qapi-types-migration.h"
#include "qapi/visitor.h"

/**
 * hmp_info_convergence_parameters: print the parameters
 */
void hmp_info_convergence_parameters(Monitor *mon,
                                     const MigrationConvergenceParameters *p);

/**
 * hmp_convergence_set_parameter: read a parameter
 *
 * @v: where to read it from
 * @param: its name
 * @which: which one it is
 * @p: where to set it
 * @errp: what is wrong with it
 */
void hmp_convergence_set_parameter(Visitor *v, const char *param,
                                   MigrationParameter which,
                                   MigrationConvergenceParameters *p,
                                   Error **errp);

#endif
