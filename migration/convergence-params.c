/*
 * Migration convergence: capability and parameters
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-yank.h"
#include "qapi/qmp/qerror.h"
#include "convergence-glue.h"
#include "history.h"
#include "migration.h"
#include "options.h"

/* vSphere 4.1 gives up when more than 100 s of copying are predicted */
#define DEFAULT_TIME_LIMIT_MS   (100 * 1000)
#define MAX_TIME_LIMIT_MS       (24 * 60 * 60 * 1000)
/* Leaves the guest a twentieth of its time: it stays alive, if slow */
#define DEFAULT_MAX_SLOWDOWN    99
/* Upstream's auto-converge stops there as well */
#define MAX_SLOWDOWN            99
#define MAX_ID_LENGTH           64

bool migrate_convergence(void)
{
    MigrationState *s = migrate_get_current();

    return s->capabilities[MIGRATION_CAPABILITY_CONVERGENCE];
}

bool convergence_caps_check(const bool *caps, Error **errp)
{
    /* They have no passes, or no end */
    static const MigrationCapability conflicts[] = {
        MIGRATION_CAPABILITY_X_COLO,
        MIGRATION_CAPABILITY_BACKGROUND_SNAPSHOT,
    };
    int i;

    if (!caps[MIGRATION_CAPABILITY_CONVERGENCE]) {
        return true;
    }
    for (i = 0; i < ARRAY_SIZE(conflicts); i++) {
        if (caps[conflicts[i]]) {
            error_setg(errp, "Capability 'convergence' conflicts with "
                       "capability '%s'",
                       MigrationCapability_str(conflicts[i]));
            return false;
        }
    }
    return true;
}

bool convergence_rdma_caps_check(const bool *caps, Error **errp)
{
    if (caps[MIGRATION_CAPABILITY_CONVERGENCE]) {
        error_setg(errp, "RDMA and convergence can't be used together");
        return false;
    }
    return true;
}

void convergence_params_init(MigrationConvergenceParameters *p)
{
    p->has_convergence_mode = true;
    p->convergence_mode = MIGRATION_CONVERGENCE_MODE_ENFORCE;
    p->has_convergence_time_limit = true;
    p->convergence_time_limit = DEFAULT_TIME_LIMIT_MS;
    p->has_convergence_fallback = true;
    p->convergence_fallback = MIGRATION_CONVERGENCE_FALLBACK_ABORT;
    p->has_convergence_max_slowdown = true;
    p->convergence_max_slowdown = DEFAULT_MAX_SLOWDOWN;
    p->migration_id = g_strdup("");
}

bool convergence_params_check(const MigrationConvergenceParameters *p,
                              Error **errp)
{
    if (p->has_convergence_time_limit &&
        (p->convergence_time_limit < 1 ||
         p->convergence_time_limit > MAX_TIME_LIMIT_MS)) {
        error_setg(errp, QERR_INVALID_PARAMETER_VALUE,
                   "convergence-time-limit",
                   "an integer in the range of 1 to 86400000 ms");
        return false;
    }
    if (p->has_convergence_max_slowdown &&
        p->convergence_max_slowdown > MAX_SLOWDOWN) {
        error_setg(errp, QERR_INVALID_PARAMETER_VALUE,
                   "convergence-max-slowdown",
                   "an integer in the range of 0 to 99");
        return false;
    }
    if (p->migration_id) {
        size_t len = strlen(p->migration_id);

        if (len > MAX_ID_LENGTH ||
            strspn(p->migration_id,
                   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                   "0123456789-_.:") != len) {
            error_setg(errp, QERR_INVALID_PARAMETER_VALUE, "migration-id",
                       "up to 64 letters, digits, and characters of \"-_.:\"");
            return false;
        }
    }
    return true;
}

void convergence_params_merge(MigrationConvergenceParameters *dst,
                              const MigrationConvergenceParameters *src)
{
    if (src->has_convergence_mode) {
        dst->convergence_mode = src->convergence_mode;
    }
    if (src->has_convergence_time_limit) {
        dst->convergence_time_limit = src->convergence_time_limit;
    }
    if (src->has_convergence_fallback) {
        dst->convergence_fallback = src->convergence_fallback;
    }
    if (src->has_convergence_max_slowdown) {
        dst->convergence_max_slowdown = src->convergence_max_slowdown;
    }
    if (src->migration_id) {
        dst->migration_id = src->migration_id;
    }
}

void convergence_params_apply(MigrationConvergenceParameters *dst,
                              const MigrationConvergenceParameters *src)
{
    g_autofree char *old = src->migration_id ? dst->migration_id : NULL;

    convergence_params_merge(dst, src);
    if (src->migration_id) {
        dst->migration_id = g_strdup(src->migration_id);
    }
}

/*
 * Whether there still is a migration: a failed one says so before its thread
 * has ended, a cancelled one while it waits for a connection.  Another one
 * would take its place.
 */
static bool migration_registered(void)
{
    g_autoptr(YankInstanceList) list = qmp_query_yank(&error_abort);
    const YankInstanceList *l;

    for (l = list; l; l = l->next) {
        if (l->value->type == YANK_INSTANCE_TYPE_MIGRATION) {
            return true;
        }
    }
    return false;
}

bool convergence_prepare(Error **errp)
{
    const MigrationState *s = migrate_get_current();
    const MigrationParameters *p = &s->parameters;
    /* They slow the guest down, too, and would hide each other's effect */
    static const MigrationCapability conflicts[] = {
        MIGRATION_CAPABILITY_AUTO_CONVERGE,
        MIGRATION_CAPABILITY_DIRTY_LIMIT,
    };
    int i;

    if (migration_registered()) {
        error_setg(errp, "The previous migration has not ended yet");
        return false;
    }
    migration_history_settle();
    if (!migrate_convergence()) {
        return true;
    }
    if (migrate_mode() != MIG_MODE_NORMAL) {
        error_setg(errp, "Capability 'convergence' needs migration mode "
                   "'normal'");
        return false;
    }
    if (p->convergence_mode != MIGRATION_CONVERGENCE_MODE_ENFORCE) {
        return true;
    }
    for (i = 0; i < ARRAY_SIZE(conflicts); i++) {
        if (s->capabilities[conflicts[i]]) {
            error_setg(errp, "Capability 'convergence' in mode 'enforce' "
                       "conflicts with capability '%s'",
                       MigrationCapability_str(conflicts[i]));
            return false;
        }
    }
    if (p->convergence_fallback == MIGRATION_CONVERGENCE_FALLBACK_POSTCOPY &&
        !migrate_postcopy_ram()) {
        error_setg(errp, "Parameter 'convergence-fallback' is 'postcopy': "
                   "needs capability 'postcopy-ram'");
        return false;
    }
    return true;
}
