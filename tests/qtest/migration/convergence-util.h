/*
 * Helpers for tests of migration convergence and history
 *
 * The guests have no vCPU that runs: the test writes to their memory while they
 * are migrated, and so decides which pages are dirtied when.  Nothing depends
 * on an accelerator, and memory can be compared when all is over.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef CONVERGENCE_UTIL_H
#define CONVERGENCE_UTIL_H

#include "libqtest.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qemu/units.h"

#define CVG_RAM             (32 * MiB)
/* Random at the start, above what the firmware uses */
#define CVG_CONTENT         (1 * MiB)
#define CVG_CONTENT_SIZE    (12 * MiB)
#define CVG_PAGE            4096
/* Bytes per second: a pass over the content takes 0.4 s */
#define CVG_BANDWIDTH       (32 * MiB)

/* Some of the content, of which all is written at once */
typedef struct CvgRange {
    uint64_t at;
    uint64_t size;
} CvgRange;

/* What the test writes while a migration is made */
typedef struct CvgLoad {
    /* A sweep, over and over; it ends after so many passes, unless 0 */
    uint64_t size;
    uint64_t rate;
    int passes;
    /* Besides: bytes at the end of the content that are written all the time */
    uint64_t hot;
} CvgLoad;

/* As much is written in each pass as was sent; no throttle has an effect */
extern const CvgLoad cvg_diverging;
/* Each pass is shorter than the one before, for sure, however busy the host */
extern const CvgLoad cvg_converging;
/* The same, and some pages are written all the time */
extern const CvgLoad cvg_hot;

typedef struct Cvg {
    QTestState *from;
    QTestState *to;
    char *uri;
    /* Where the test is the destination, or -1: see cvg_migrate_here() */
    int fd;
    /* Data of each MIGRATION_CONVERGENCE event, from the start */
    QList *events;
    /* Of the last query-migrate on the source */
    char *status;
    int64_t throttle;
    /* Where the sweep is */
    int64_t last_us;
    uint64_t at;
    /*
     * What was written last, and the content before that: it may have been
     * written when the guest was stopped already, as no guest would
     */
    uint8_t pattern;
    CvgRange last[3];
    char *before;
    /* Pages may count in the pass after the one that they belong to */
    bool counts_late;
} Cvg;

/*
 * Two VMs, the second of which listens at c->uri when cvg_listen() was called;
 * @args are those of both.  Events are on, the bandwidth is CVG_BANDWIDTH.
 */
void cvg_start(Cvg *c, const char *args);
void cvg_start_source(Cvg *c, const char *args);
void cvg_start_destination(Cvg *c, const char *args);
/* Two, of other QEMUs: named by an environment variable, or NULL */
void cvg_start_binaries(Cvg *c, const char *from, const char *to);
void cvg_listen(Cvg *c);
void cvg_free(Cvg *c);

/* On both sides, where there are two */
void cvg_set_capability(Cvg *c, const char *name);

/* Start to migrate to c->uri, as soon as the one before has ended */
void cvg_migrate(Cvg *c);

/*
 * Start to migrate to the test, which reads the stream in cvg_run(): a bit each
 * time that it has written to the memory, so that each pass of some MiB is
 * longer than that, whatever the bandwidth
 */
void cvg_migrate_here(Cvg *c);

/* How many passes were reported, and the last one */
int cvg_passes(Cvg *c);
QDict *cvg_last_pass(Cvg *c);

/*
 * Write as @load says, NULL for nothing, until @until is true, or the migration
 * is over; returns whether @until was.  NULL for the end of the migration.
 */
bool cvg_run(Cvg *c, const CvgLoad *load, bool (*until)(Cvg *c));

/* Whether @until is true now */
bool cvg_is(Cvg *c, bool (*until)(Cvg *c));

/* For both */
bool cvg_until_active(Cvg *c);
bool cvg_until_throttled(Cvg *c);
bool cvg_until_withheld(Cvg *c);
bool cvg_until_pre_switchover(Cvg *c);

/* Run it to its end, which is @status */
void cvg_run_to(Cvg *c, const CvgLoad *load, const char *status);

/* Check that no write of the guest is missing; the migration is completed */
void cvg_assert_memory(Cvg *c);

/*
 * Check that the source runs, nothing slows it down, and it can be migrated:
 * the last one to be asked for, as it changes the history
 */
void cvg_assert_recovered(Cvg *c);

/* The history of a VM; to be freed, and its last record, which is not */
QList *cvg_history(QTestState *qts);
QDict *cvg_last_record(QList *history);
size_t cvg_history_length(QTestState *qts);

/*
 * Check what holds for the last record of the source, and for all passes; its
 * outcome is @outcome.  Returns the record, to be freed.
 */
QDict *cvg_assert_history(Cvg *c, const char *outcome);

/* Check that @text contains @part */
void cvg_assert_contains(const char *text, const char *part);

/* The error in query-migrate, to be freed */
char *cvg_error(QTestState *qts);

/* The themes: each adds its tests */
void cvg_add_parameter_tests(void);
void cvg_add_combination_tests(void);
void cvg_add_load_tests(void);
void cvg_add_failure_tests(void);
void cvg_add_history_tests(void);
void cvg_add_stream_tests(void);

#endif
