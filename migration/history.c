/*
 * Migration history
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "qemu/uuid.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration-convergence.h"
#include "qapi/qapi-visit-migration-convergence.h"
#include "convergence-glue.h"
#include "history.h"
#include "migration-stats.h"
#include "migration.h"
#include "options.h"

#define MAX_RECORDS     16
/* The first passes tell what the guest is like, the last ones how it ended */
#define MAX_PASSES      256
#define FIRST_PASSES    16

/*
 * A migration in the making.  The passes are in a queue, as some in the middle
 * are dropped; they become the record's list when it is asked for.
 */
typedef struct HistoryEntry {
    MigrationRecord *record;
    GPtrArray *passes;
    int64_t start_ms;
    int64_t switchover_ms;
    uint64_t predicted_downtime;
    bool predicted;
} HistoryEntry;

/* Protects all below; only MigrationState::error_mutex is taken under it */
static QemuMutex history_lock;
/* HistoryEntry, the oldest first */
static GQueue history = G_QUEUE_INIT;
/* The one that is not over, of each direction */
static HistoryEntry *current[MIGRATION_DIRECTION__MAX];

static void __attribute__((constructor)) history_init(void)
{
    qemu_mutex_init(&history_lock);
}

static void history_entry_free(HistoryEntry *e)
{
    int d;

    for (d = 0; d < MIGRATION_DIRECTION__MAX; d++) {
        if (current[d] == e) {
            current[d] = NULL;
        }
    }
    qapi_free_MigrationRecord(e->record);
    g_ptr_array_free(e->passes, true);
    g_free(e);
}

static int64_t now_ms(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
}

static HistoryEntry *history_new(MigrationDirection direction)
{
    const MigrationParameters *p = &migrate_get_current()->parameters;
    HistoryEntry *e = g_new0(HistoryEntry, 1);
    MigrationRecord *r = g_new0(MigrationRecord, 1);
    QemuUUID uuid;

    if (*p->migration_id) {
        r->id = g_strdup(p->migration_id);
    } else {
        qemu_uuid_generate(&uuid);
        r->id = qemu_uuid_unparse_strdup(&uuid);
    }
    r->direction = direction;
    r->start = g_get_real_time() / 1000;
    r->outcome = MIGRATION_OUTCOME_ACTIVE;
    if (direction == MIGRATION_DIRECTION_OUTGOING && migrate_convergence()) {
        r->has_mode = true;
        r->mode = p->convergence_mode;
    }
    r->downtime_limit = p->downtime_limit;
    r->max_bandwidth = p->max_bandwidth;
    r->time_limit = p->convergence_time_limit;
    r->fallback = p->convergence_fallback;
    r->max_slowdown = p->convergence_max_slowdown;
    e->record = r;
    e->passes = g_ptr_array_new_with_free_func(
        (GDestroyNotify)qapi_free_MigrationPass);
    e->start_ms = now_ms();

    g_queue_push_tail(&history, e);
    if (history.length > MAX_RECORDS) {
        history_entry_free(g_queue_pop_head(&history));
    }
    return e;
}

/* What is known of a migration, so far or at its end */
static void history_update(HistoryEntry *e)
{
    MigrationRecord *r = e->record;
    MigrationState *s = migrate_get_current();

    r->total_time = now_ms() - e->start_ms;
    if (r->direction == MIGRATION_DIRECTION_OUTGOING) {
        r->has_bytes = true;
        r->bytes = migration_transferred_bytes();
        if (s->downtime || r->outcome == MIGRATION_OUTCOME_COMPLETED) {
            r->has_downtime = true;
            r->downtime = s->downtime;
            r->has_predicted_downtime = e->predicted;
            r->predicted_downtime = e->predicted_downtime;
        }
    } else if (e->switchover_ms && r->outcome == MIGRATION_OUTCOME_COMPLETED &&
               !r->has_downtime) {
        r->has_downtime = true;
        r->downtime = now_ms() - e->switchover_ms;
    }
}

static void history_update_error(HistoryEntry *e)
{
    MigrationState *s = migrate_get_current();

    if (e->record->outcome == MIGRATION_OUTCOME_FAILED && !e->record->error) {
        QEMU_LOCK_GUARD(&s->error_mutex);
        if (s->error) {
            e->record->error = g_strdup(error_get_pretty(s->error));
        }
    }
}

static void history_end(HistoryEntry *e, MigrationOutcome outcome)
{
    e->record->outcome = outcome;
    history_update(e);
}

static void history_enter(HistoryEntry *e, MigrationStatus new_state)
{
    if (e->record->outcome != MIGRATION_OUTCOME_ACTIVE) {
        return;
    }
    switch (new_state) {
    case MIGRATION_STATUS_POSTCOPY_DEVICE:
    case MIGRATION_STATUS_POSTCOPY_ACTIVE:
        e->record->postcopy = true;
        break;
    case MIGRATION_STATUS_COMPLETED:
        history_end(e, MIGRATION_OUTCOME_COMPLETED);
        break;
    case MIGRATION_STATUS_FAILED:
        history_end(e, MIGRATION_OUTCOME_FAILED);
        break;
    case MIGRATION_STATUS_CANCELLED:
        history_end(e, MIGRATION_OUTCOME_CANCELLED);
        break;
    default:
        break;
    }
}

void migration_history_settle(void)
{
    const MigrationStatus states[MIGRATION_DIRECTION__MAX] = {
        [MIGRATION_DIRECTION_OUTGOING] = migrate_get_current()->state,
        [MIGRATION_DIRECTION_INCOMING] =
            migration_incoming_get_current()->state,
    };
    int d;

    QEMU_LOCK_GUARD(&history_lock);
    for (d = 0; d < MIGRATION_DIRECTION__MAX; d++) {
        if (current[d]) {
            /* Whoever sets the state tells it here a moment later */
            history_enter(current[d], states[d]);
            history_update_error(current[d]);
        }
    }
}

void migration_history_begin(void)
{
    QEMU_LOCK_GUARD(&history_lock);

    current[MIGRATION_DIRECTION_OUTGOING] =
        history_new(MIGRATION_DIRECTION_OUTGOING);
}

void migration_history_set_state(MigrationDirection d,
                                 MigrationStatus new_state)
{
    HistoryEntry *e;

    QEMU_LOCK_GUARD(&history_lock);
    e = current[d];
    if (d == MIGRATION_DIRECTION_INCOMING && !e &&
        (new_state == MIGRATION_STATUS_ACTIVE ||
         new_state == MIGRATION_STATUS_FAILED)) {
        /* It may have waited for long; it begins when the source comes */
        e = current[d] = history_new(d);
    }
    if (e) {
        history_enter(e, new_state);
    }
}

void migration_history_switchover_received(void)
{
    QEMU_LOCK_GUARD(&history_lock);
    HistoryEntry *e = current[MIGRATION_DIRECTION_INCOMING];

    if (e && !e->switchover_ms) {
        e->switchover_ms = now_ms();
    }
}

char *migration_history_id(void)
{
    QEMU_LOCK_GUARD(&history_lock);

    return g_strdup(current[MIGRATION_DIRECTION_OUTGOING]->record->id);
}

void migration_history_add_pass(const MigrationPass *pass)
{
    QEMU_LOCK_GUARD(&history_lock);
    HistoryEntry *e = current[MIGRATION_DIRECTION_OUTGOING];

    if (e->passes->len == MAX_PASSES) {
        g_ptr_array_remove_index(e->passes, FIRST_PASSES);
        e->record->passes_dropped++;
    }
    g_ptr_array_add(e->passes, QAPI_CLONE(MigrationPass, pass));
}

void migration_history_predict(uint64_t downtime)
{
    QEMU_LOCK_GUARD(&history_lock);
    HistoryEntry *e = current[MIGRATION_DIRECTION_OUTGOING];

    e->predicted = true;
    e->predicted_downtime = downtime;
}

static MigrationRecord *history_entry_record(HistoryEntry *e)
{
    MigrationRecord *r;
    MigrationPassList **tail;
    guint i;

    if (e->record->outcome == MIGRATION_OUTCOME_ACTIVE) {
        history_update(e);
    }
    r = QAPI_CLONE(MigrationRecord, e->record);
    tail = &r->passes;
    for (i = 0; i < e->passes->len; i++) {
        const MigrationPass *pass = g_ptr_array_index(e->passes, i);

        QAPI_LIST_APPEND(tail, QAPI_CLONE(MigrationPass, pass));
    }
    return r;
}

MigrationRecordList *qmp_query_migration_history(Error **errp)
{
    MigrationRecordList *list = NULL, **tail = &list;
    GList *l;

    migration_history_settle();
    QEMU_LOCK_GUARD(&history_lock);
    for (l = history.head; l; l = l->next) {
        QAPI_LIST_APPEND(tail, history_entry_record(l->data));
    }
    return list;
}
