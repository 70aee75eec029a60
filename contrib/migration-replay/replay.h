/*
 * Replay recorded migrations through the convergence engine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CONTRIB_MIGRATION_REPLAY_H
#define CONTRIB_MIGRATION_REPLAY_H

#include "qapi/qapi-types-migration-convergence.h"
#include "qobject/qlist.h"

/**
 * ReplayOptions: limits to be used in place of the recorded ones
 */
typedef struct ReplayOptions {
    bool has_downtime_limit;
    uint64_t downtime_limit;
    bool has_time_limit;
    uint64_t time_limit;
    bool has_max_slowdown;
    uint8_t max_slowdown;
    bool has_fallback;
    MigrationConvergenceFallback fallback;
} ReplayOptions;

/**
 * replay_parse: read recorded migrations
 *
 * @text: what query-migration-history returned, with or without the QMP
 *        reply around it; one record of it; or QMP messages of which the
 *        events MIGRATION_CONVERGENCE are read
 *
 * The limits of migrations that are known by their events are the defaults.
 *
 * Returns: the records, which the caller frees; NULL with @errp set if there
 * is none, or if anything is wrong with one
 */
MigrationRecordList *replay_parse(const char *text, Error **errp);

/**
 * replay: decide again
 *
 * Returns: for each record an object with its "id", "direction", "outcome",
 * "error", "downtime", "predicted-downtime" and "limits", and "passes": what
 * was "recorded" of each decision, what is decided "now", and whether they
 * are the "same".  To be freed by the caller.
 */
QList *replay(MigrationRecordList *records, const ReplayOptions *options);

/**
 * replay_text: what replay() returned, for humans
 */
char *replay_text(const QList *replayed);

#endif
