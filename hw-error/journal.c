/*
 * Hardware errors: the records, in order
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "journal.h"
#include "qapi/clone-visitor.h"
#include "qapi/qapi-visit-hw-error.h"
#include "record.h"

/**
 * HwErrorKind: Errors that are coalesced.
 *
 * @info: the first of those that have no record yet; of the shared kinds, and
 *     while there is none, the one that made the kind
 * @count: how many there are
 * @until_ns: when they get a record
 */
typedef struct HwErrorKind {
    HwErrorInfo *info;
    HwErrorAction action;
    char *rule;
    bool shared;

    uint64_t count;
    int64_t first_us;
    int64_t last_us;
    int64_t until_ns;
} HwErrorKind;

static guint kind_hash(gconstpointer v)
{
    const HwErrorKind *k = v;
    const char *component = hw_error_component(k->info);
    guint hash = k->info->source << 8 | k->info->severity << 4 | k->action;

    if (!k->shared) {
        hash = hash * 31 + (component ? g_str_hash(component) : 0);
        hash = hash * 31 + (guint)hw_error_detail(k->info);
    }
    return hash;
}

static gboolean kind_equal(gconstpointer va, gconstpointer vb)
{
    const HwErrorKind *a = va, *b = vb;

    return a->info->source == b->info->source &&
           a->info->severity == b->info->severity &&
           a->action == b->action &&
           (a->shared ||
            (hw_error_detail(a->info) == hw_error_detail(b->info) &&
             !g_strcmp0(hw_error_component(a->info),
                        hw_error_component(b->info)) &&
             !g_strcmp0(a->info->agent, b->info->agent) &&
             !g_strcmp0(a->rule, b->rule)));
}

static void kind_free(gpointer v)
{
    HwErrorKind *k = v;

    qapi_free_HwErrorInfo(k->info);
    g_free(k->rule);
    g_free(k);
}

static void record_free(gpointer v)
{
    qapi_free_HwError(v);
}

static GHashTable *kinds_new(void)
{
    return g_hash_table_new_full(kind_hash, kind_equal, kind_free, NULL);
}

void hw_error_journal_init(HwErrorJournal *j)
{
    *j = (HwErrorJournal) {
        .kinds = { kinds_new(), kinds_new() },
        .shared = kinds_new(),
    };
}

void hw_error_journal_destroy(HwErrorJournal *j)
{
    g_hash_table_destroy(j->kinds[false]);
    g_hash_table_destroy(j->kinds[true]);
    g_hash_table_destroy(j->shared);
    g_queue_clear_full(&j->ready, record_free);
    g_queue_clear_full(&j->waiting, record_free);
    g_queue_clear_full(&j->corrected, record_free);
    g_queue_clear_full(&j->uncorrected, record_free);
}

static HwErrorTimestamp *timestamp(int64_t us)
{
    HwErrorTimestamp *t = g_new(HwErrorTimestamp, 1);

    t->seconds = us / G_USEC_PER_SEC;
    t->microseconds = us % G_USEC_PER_SEC;
    return t;
}

/* Make the record of the errors that @k counts */
static HwError *kind_record(HwErrorKind *k)
{
    HwError *record = g_new0(HwError, 1);

    record->time = timestamp(k->first_us);
    record->info = QAPI_CLONE(HwErrorInfo, k->info);
    if (!record->info->component) {
        record->info->component = g_strdup(hw_error_component(k->info));
    }
    if (k->count > 1) {
        record->last_time = timestamp(k->last_us);
        record->info->has_count = true;
        record->info->count = k->count;
    }
    if (k->shared) {
        g_free(record->info->description);
        record->info->description = g_strdup(
            "Errors of several kinds: the details are those of the first");
    }
    record->action = k->action;
    record->rule = g_strdup(k->rule);
    if (k->action == HW_ERROR_ACTION_INJECT) {
        record->outcome = HW_ERROR_OUTCOME_INJECTED;
    }
    k->count = 0;
    return record;
}

static void journal_push(HwErrorJournal *j, HwErrorKind *k)
{
    g_queue_push_tail(k->action == HW_ERROR_ACTION_QUIESCE ? &j->waiting
                                                           : &j->ready,
                      kind_record(k));
}

void hw_error_journal_add(HwErrorJournal *j, const HwErrorInfo *info,
                          HwErrorAction action, const char *rule, bool urgent,
                          int64_t now_ns, int64_t time_us)
{
    HwErrorKind key = {
        .info = (HwErrorInfo *)info,
        .action = action,
        .rule = (char *)rule,
    };
    GHashTable *kinds =
        j->kinds[info->severity == HW_ERROR_SEVERITY_CORRECTED];
    HwErrorKind *k = g_hash_table_lookup(kinds, &key);
    bool is_new;

    if (!k && g_hash_table_size(kinds) >= HW_ERROR_MAX_KINDS) {
        key.shared = true;
        kinds = j->shared;
        k = g_hash_table_lookup(kinds, &key);
    }
    is_new = !k;
    if (!k) {
        k = g_memdup2(&key, sizeof(key));
        k->info = QAPI_CLONE(HwErrorInfo, info);
        k->rule = g_strdup(rule);
        k->until_ns = now_ns + HW_ERROR_COALESCE_NS;
        g_hash_table_add(kinds, k);
    }
    if (!k->count) {
        k->first_us = time_us;
        if (!is_new) {
            /* Equal to what was there, but for details */
            HwErrorInfo *old = k->info;

            k->info = QAPI_CLONE(HwErrorInfo, info);
            qapi_free_HwErrorInfo(old);
        }
    }
    k->count += hw_error_count(info);
    k->last_us = time_us;
    if (is_new || urgent) {
        journal_push(j, k);
    }
}

void hw_error_journal_add_last(HwErrorJournal *j, const HwErrorInfo *info,
                               HwErrorAction action, const char *rule,
                               int64_t time_us)
{
    HwErrorKind k = {
        .info = (HwErrorInfo *)info,
        .action = action,
        .rule = (char *)rule,
        .count = hw_error_count(info),
        .first_us = time_us,
        .last_us = time_us,
    };

    g_queue_push_tail(&j->waiting, kind_record(&k));
    hw_error_journal_settle(j, HW_ERROR_OUTCOME_EXITING, NULL, NULL);
}

const HwError *hw_error_journal_waiting(HwErrorJournal *j)
{
    return g_queue_peek_head(&j->waiting);
}

static int64_t kinds_expire(HwErrorJournal *j, GHashTable *kinds,
                            int64_t now_ns, int64_t next)
{
    GHashTableIter iter;
    HwErrorKind *k;

    g_hash_table_iter_init(&iter, kinds);
    while (g_hash_table_iter_next(&iter, (gpointer *)&k, NULL)) {
        if (k->until_ns <= now_ns) {
            if (!k->count) {
                g_hash_table_iter_remove(&iter);
                continue;
            }
            journal_push(j, k);
            k->until_ns = now_ns + HW_ERROR_COALESCE_NS;
        }
        next = next < 0 ? k->until_ns : MIN(next, k->until_ns);
    }
    return next;
}

int64_t hw_error_journal_expire(HwErrorJournal *j, int64_t now_ns)
{
    int64_t next = kinds_expire(j, j->kinds[false], now_ns, -1);

    next = kinds_expire(j, j->kinds[true], now_ns, next);
    return kinds_expire(j, j->shared, now_ns, next);
}

void hw_error_journal_settle(HwErrorJournal *j, HwErrorOutcome outcome,
                             const VmQuiesceInfo *quiesce, const char *error)
{
    HwError *record;

    while ((record = g_queue_pop_head(&j->waiting))) {
        record->outcome = outcome;
        record->contained = outcome == HW_ERROR_OUTCOME_QUIESCED;
        record->quiesce = quiesce ? QAPI_CLONE(VmQuiesceInfo, quiesce) : NULL;
        record->error = g_strdup(error);
        g_queue_push_tail(&j->ready, record);
    }
}

HwError *hw_error_journal_take(HwErrorJournal *j)
{
    HwError *record = g_queue_pop_head(&j->ready);
    bool corrected;
    GQueue *kept;

    if (!record) {
        return NULL;
    }
    record->id = ++j->last_id;
    corrected = record->info->severity == HW_ERROR_SEVERITY_CORRECTED;
    kept = corrected ? &j->corrected : &j->uncorrected;
    g_queue_push_tail(kept, record);
    if (kept->length > (corrected ? HW_ERROR_KEEP_CORRECTED
                                  : HW_ERROR_KEEP_UNCORRECTED)) {
        record_free(g_queue_pop_head(kept));
    }
    return record;
}

static uint64_t kinds_count(GHashTable *kinds)
{
    GHashTableIter iter;
    uint64_t n = 0;
    HwErrorKind *k;

    g_hash_table_iter_init(&iter, kinds);
    while (g_hash_table_iter_next(&iter, (gpointer *)&k, NULL)) {
        n += k->count;
    }
    return n;
}

static uint64_t records_count(GQueue *records)
{
    uint64_t n = 0;
    GList *l;

    for (l = records->head; l; l = l->next) {
        n += hw_error_count(((HwError *)l->data)->info);
    }
    return n;
}

HwErrorLog *hw_error_journal_query(HwErrorJournal *j, uint64_t since_id)
{
    HwErrorLog *log = g_new0(HwErrorLog, 1);
    HwErrorList **tail = &log->errors;
    GList *a = j->corrected.head, *b = j->uncorrected.head;
    uint64_t n = 0;

    while (a || b) {
        HwError *ra = a ? a->data : NULL, *rb = b ? b->data : NULL;
        bool first = ra && (!rb || ra->id < rb->id);
        HwError *record = first ? ra : rb;

        if (first) {
            a = a->next;
        } else {
            b = b->next;
        }
        if (record->id > since_id) {
            QAPI_LIST_APPEND(tail, QAPI_CLONE(HwError, record));
            n++;
        }
    }

    log->last_id = j->last_id;
    since_id = MAX(since_id, j->cleared_id);
    log->dropped = since_id < j->last_id ? j->last_id - since_id - n : 0;
    log->pending = kinds_count(j->kinds[false]) +
                   kinds_count(j->kinds[true]) + kinds_count(j->shared) +
                   records_count(&j->ready) + records_count(&j->waiting);
    return log;
}

static void records_clear(GQueue *records, uint64_t up_to_id)
{
    HwError *record;

    while ((record = g_queue_peek_head(records)) && record->id <= up_to_id) {
        record_free(g_queue_pop_head(records));
    }
}

void hw_error_journal_clear(HwErrorJournal *j, uint64_t up_to_id)
{
    records_clear(&j->corrected, up_to_id);
    records_clear(&j->uncorrected, up_to_id);
    j->cleared_id = MAX(j->cleared_id, up_to_id);
}
