/*
 * Replay recorded migrations through the convergence engine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-migration-convergence.h"
#include "qapi/qobject-input-visitor.h"
#include "qapi/qobject-output-visitor.h"
#include "qobject/json-parser.h"
#include "qobject/qbool.h"
#include "qobject/qdict.h"
#include "qobject/qnum.h"
#include "qobject/qstring.h"
#include "../../migration/convergence.h"
#include "../../migration/convergence-qapi.h"
#include "replay.h"

/* The defaults of the parameters, for events, which have none. */
#define DEFAULT_DOWNTIME_LIMIT 300
#define DEFAULT_TIME_LIMIT 100000
#define DEFAULT_MAX_SLOWDOWN 99

typedef struct Reader {
    MigrationRecordList *records;
    MigrationRecordList **tail;
    Error *err;
} Reader;

static bool check_pass(const MigrationPass *pass, const MigrationPass *last,
                       const char *id, Error **errp)
{
    if (!last && pass->pass != 1) {
        error_setg(errp, "%s: pass 1 is missing", id);
    } else if (last && pass->pass <= last->pass) {
        error_setg(errp, "%s: pass %" PRIu32 " comes after pass %" PRIu32,
                   id, pass->pass, last->pass);
    } else if (last && pass->time < last->time) {
        error_setg(errp, "%s: pass %" PRIu32 " ends before the one before it",
                   id, pass->pass);
    } else if (!is_power_of_2(pass->page_size)) {
        error_setg(errp, "%s: pass %" PRIu32 ": page-size must be a power of "
                   "two", id, pass->pass);
    } else if (last && pass->page_size != last->page_size) {
        error_setg(errp, "%s: pass %" PRIu32 ": page-size has changed", id,
                   pass->pass);
    } else if (pass->throttle > 99) {
        error_setg(errp, "%s: pass %" PRIu32 ": throttle must be 0 to 99",
                   id, pass->pass);
    } else {
        return true;
    }
    return false;
}

static bool check_record(const MigrationRecord *record, Error **errp)
{
    const MigrationPass *last = NULL;

    if (record->time_limit < 1 || record->time_limit > 86400000) {
        error_setg(errp, "%s: time-limit must be 1 to 86400000", record->id);
        return false;
    }
    if (record->max_slowdown > 99) {
        error_setg(errp, "%s: max-slowdown must be 0 to 99", record->id);
        return false;
    }
    for (MigrationPassList *p = record->passes; p; p = p->next) {
        if (!check_pass(p->value, last, record->id, errp)) {
            return false;
        }
        last = p->value;
    }
    return true;
}

static void read_record(Reader *r, QObject *obj)
{
    Visitor *v = qobject_input_visitor_new(obj);
    MigrationRecord *record = NULL;

    if (visit_type_MigrationRecord(v, NULL, &record, &r->err)) {
        QAPI_LIST_APPEND(r->tail, record);
    }
    visit_free(v);
}

static MigrationRecord *find_record(Reader *r, const char *id)
{
    MigrationRecord *record;

    for (MigrationRecordList *l = r->records; l; l = l->next) {
        if (!strcmp(l->value->id, id)) {
            return l->value;
        }
    }
    record = g_new0(MigrationRecord, 1);
    record->id = g_strdup(id);
    record->direction = MIGRATION_DIRECTION_OUTGOING;
    record->outcome = MIGRATION_OUTCOME_ACTIVE;
    record->downtime_limit = DEFAULT_DOWNTIME_LIMIT;
    record->time_limit = DEFAULT_TIME_LIMIT;
    record->max_slowdown = DEFAULT_MAX_SLOWDOWN;
    QAPI_LIST_APPEND(r->tail, record);
    return record;
}

static void read_event(Reader *r, QObject *data)
{
    Visitor *v = qobject_input_visitor_new(data);
    q_obj_MIGRATION_CONVERGENCE_arg arg = {};
    MigrationPassList **tail;
    MigrationRecord *record;

    if (visit_start_struct(v, NULL, NULL, 0, &r->err)) {
        if (visit_type_q_obj_MIGRATION_CONVERGENCE_arg_members(v, &arg,
                                                               &r->err)) {
            visit_check_struct(v, &r->err);
        }
        visit_end_struct(v, NULL);
    }
    if (!r->err) {
        record = find_record(r, arg.id);
        record->has_mode = true;
        record->mode = arg.mode;
        record->total_time = arg.pass->time;
        for (tail = &record->passes; *tail; tail = &(*tail)->next) {
            /* to the end */
        }
        QAPI_LIST_APPEND(tail, g_steal_pointer(&arg.pass));
    }
    g_free(arg.id);
    qapi_free_MigrationPass(arg.pass);
    visit_free(v);
}

static void read_value(Reader *r, QObject *obj);

static void read_dict(Reader *r, QDict *dict, QObject *obj)
{
    const char *event = qdict_get_try_str(dict, "event");

    if (qdict_haskey(dict, "return")) {
        read_value(r, qdict_get(dict, "return"));
    } else if (event) {
        if (!strcmp(event, "MIGRATION_CONVERGENCE")) {
            QObject *data = qdict_get(dict, "data");

            if (data) {
                read_event(r, data);
            } else {
                error_setg(&r->err, "event without data");
            }
        }
    } else if (qdict_size(dict) && !qdict_haskey(dict, "QMP")) {
        read_record(r, obj);
    }
}

static void read_value(Reader *r, QObject *obj)
{
    QList *list = qobject_to(QList, obj);
    QDict *dict = qobject_to(QDict, obj);
    QListEntry *entry;

    if (list) {
        QLIST_FOREACH_ENTRY(list, entry) {
            if (r->err) {
                return;
            }
            read_record(r, qlist_entry_obj(entry));
        }
    } else if (dict) {
        read_dict(r, dict, obj);
    } else {
        error_setg(&r->err, "neither a record of a migration nor an event");
    }
}

static void read_json(void *opaque, QObject *json, Error *err)
{
    Reader *r = opaque;

    if (r->err) {
        error_free(err);
    } else if (err) {
        r->err = err;
    } else {
        read_value(r, json);
    }
    qobject_unref(json);
}

MigrationRecordList *replay_parse(const char *text, Error **errp)
{
    Reader r = { .tail = &r.records };
    JSONMessageParser parser;

    json_message_parser_init(&parser, read_json, &r, NULL);
    json_message_parser_feed(&parser, text, strlen(text));
    json_message_parser_flush(&parser);
    json_message_parser_destroy(&parser);

    for (MigrationRecordList *l = r.records; l && !r.err; l = l->next) {
        check_record(l->value, &r.err);
    }
    if (!r.err && !r.records) {
        error_setg(&r.err, "no migration is recorded");
    }
    if (r.err) {
        error_propagate(errp, r.err);
        qapi_free_MigrationRecordList(r.records);
        return NULL;
    }
    return r.records;
}

static void set_limits(ConvergenceLimits *limits,
                       const MigrationRecord *record,
                       const ReplayOptions *options)
{
    convergence_limits_from_qapi(limits, record);
    if (options->has_downtime_limit) {
        limits->downtime_limit = options->downtime_limit;
    }
    if (options->has_time_limit) {
        limits->time_limit = options->time_limit;
    }
    if (options->has_max_slowdown) {
        limits->max_slowdown = options->max_slowdown;
    }
    if (options->has_fallback) {
        limits->postcopy =
            options->fallback == MIGRATION_CONVERGENCE_FALLBACK_POSTCOPY;
    }
}

static QDict *limits_to_dict(const ConvergenceLimits *limits)
{
    QDict *dict = qdict_new();

    qdict_put_int(dict, "downtime-limit", limits->downtime_limit);
    qdict_put_int(dict, "time-limit", limits->time_limit);
    qdict_put_int(dict, "max-slowdown", limits->max_slowdown);
    qdict_put_str(dict, "fallback", limits->postcopy ? "postcopy" : "abort");
    return dict;
}

static QDict *decision_to_dict(const ConvergenceDecision *d)
{
    QDict *dict = qdict_new();

    qdict_put_str(dict, "decision", MigrationDecision_str(d->action));
    qdict_put_int(dict, "next-throttle", d->throttle);
    qdict_put_int(dict, "downtime-fixed", d->downtime_fixed);
    qdict_put_int(dict, "downtime-copy", d->downtime_copy);
    if (d->converges) {
        qdict_put_int(dict, "predicted-time", d->predicted_time);
        qdict_put_int(dict, "predicted-downtime", d->predicted_downtime);
    }
    qdict_put_str(dict, "reason", d->reason);
    return dict;
}

static bool is_final(ConvergenceAction action)
{
    return action == CONVERGENCE_SWITCH_OVER ||
           action == CONVERGENCE_POSTCOPY || action == CONVERGENCE_ABORT;
}

/*
 * What is measured is what was recorded, although another decision would
 * have changed it.  Once the migration would have ended, there is nothing to
 * be decided.
 */
static QList *replay_passes(const MigrationRecord *record,
                            const ConvergenceLimits *limits)
{
    QList *list = qlist_new();
    size_t n = 0;
    g_autofree ConvergencePass *passes =
        g_new0(ConvergencePass, QAPI_LIST_LENGTH(record->passes));
    bool over = false;

    for (MigrationPassList *p = record->passes; p; p = p->next) {
        ConvergencePass *pass = &passes[n++];
        ConvergenceDecision recorded;
        QDict *dict = qdict_new();

        convergence_pass_from_qapi(pass, p->value);
        recorded = pass->decided;
        qdict_put_int(dict, "pass", p->value->pass);
        qdict_put_int(dict, "time", p->value->time);
        qdict_put_int(dict, "throttle", p->value->throttle);
        qdict_put_int(dict, "bytes-remaining",
                      MIN(p->value->pages_remaining,
                          INT64_MAX / p->value->page_size) *
                      p->value->page_size);
        qdict_put(dict, "recorded", decision_to_dict(&recorded));
        if (!over) {
            convergence_decide(limits, passes, n, &pass->decided);
            qdict_put(dict, "now", decision_to_dict(&pass->decided));
            qdict_put_bool(dict, "same",
                           recorded.action == pass->decided.action &&
                           recorded.throttle == pass->decided.throttle);
            over = is_final(pass->decided.action);
        }
        qlist_append(list, dict);
    }
    return list;
}

static QDict *replay_record(const MigrationRecord *record,
                            const ReplayOptions *options)
{
    QDict *dict = qdict_new();
    ConvergenceLimits limits;

    set_limits(&limits, record, options);
    qdict_put_str(dict, "id", record->id);
    qdict_put_str(dict, "direction",
                  MigrationDirection_str(record->direction));
    qdict_put_str(dict, "outcome", MigrationOutcome_str(record->outcome));
    qdict_put_int(dict, "total-time", MIN(record->total_time, INT64_MAX));
    if (record->error) {
        qdict_put_str(dict, "error", record->error);
    }
    if (record->has_downtime) {
        qdict_put_int(dict, "downtime", MIN(record->downtime, INT64_MAX));
    }
    if (record->has_predicted_downtime) {
        qdict_put_int(dict, "predicted-downtime",
                      MIN(record->predicted_downtime, INT64_MAX));
    }
    qdict_put(dict, "limits", limits_to_dict(&limits));
    qdict_put(dict, "passes", replay_passes(record, &limits));
    return dict;
}

QList *replay(MigrationRecordList *records, const ReplayOptions *options)
{
    QList *list = qlist_new();

    for (; records; records = records->next) {
        qlist_append(list, replay_record(records->value, options));
    }
    return list;
}

static void put_decision(GString *out, const char *label, QDict *decision)
{
    g_string_append_printf(out, "    %-9s %s", label,
                           qdict_get_str(decision, "decision"));
    if (qdict_get_int(decision, "next-throttle")) {
        g_string_append_printf(out, " at %" PRId64 " %%",
                               qdict_get_int(decision, "next-throttle"));
    }
    g_string_append_printf(out, ": %s\n", qdict_get_str(decision, "reason"));
}

static void put_pass(GString *out, QDict *pass)
{
    QDict *now = qdict_get_qdict(pass, "now");

    g_string_append_printf(out, "  pass %" PRId64 ", %.2f s, throttle %"
                           PRId64 " %%, %.1f MiB left\n",
                           qdict_get_int(pass, "pass"),
                           qdict_get_int(pass, "time") / 1e3,
                           qdict_get_int(pass, "throttle"),
                           (double)qdict_get_int(pass, "bytes-remaining") /
                           MiB);
    put_decision(out, "recorded:", qdict_get_qdict(pass, "recorded"));
    if (!now) {
        g_string_append(out, "    now:      it would be over\n");
    } else if (qdict_get_bool(pass, "same")) {
        g_string_append(out, "    now:      the same\n");
    } else {
        put_decision(out, "now:", now);
    }
}

static void put_record(GString *out, QDict *record)
{
    QDict *limits = qdict_get_qdict(record, "limits");
    QListEntry *entry;

    g_string_append_printf(out, "migration %s: %s, %s, %.2f s",
                           qdict_get_str(record, "id"),
                           qdict_get_str(record, "direction"),
                           qdict_get_str(record, "outcome"),
                           qdict_get_int(record, "total-time") / 1e3);
    if (qdict_haskey(record, "downtime")) {
        g_string_append_printf(out, ", downtime %" PRId64 " ms",
                               qdict_get_int(record, "downtime"));
    }
    if (qdict_haskey(record, "predicted-downtime")) {
        g_string_append_printf(out, ", predicted %" PRId64 " ms",
                               qdict_get_int(record, "predicted-downtime"));
    }
    if (qdict_haskey(record, "error")) {
        g_string_append_printf(out, ": %s", qdict_get_str(record, "error"));
    }
    g_string_append_printf(out, "\n  limits: downtime %" PRId64 " ms, time %"
                           PRId64 " ms, slowdown %" PRId64 " %%, then %s\n",
                           qdict_get_int(limits, "downtime-limit"),
                           qdict_get_int(limits, "time-limit"),
                           qdict_get_int(limits, "max-slowdown"),
                           qdict_get_str(limits, "fallback"));
    QLIST_FOREACH_ENTRY(qdict_get_qlist(record, "passes"), entry) {
        put_pass(out, qobject_to(QDict, qlist_entry_obj(entry)));
    }
}

char *replay_text(const QList *replayed)
{
    GString *out = g_string_new(NULL);
    QListEntry *entry;

    QLIST_FOREACH_ENTRY(replayed, entry) {
        put_record(out, qobject_to(QDict, qlist_entry_obj(entry)));
    }
    return g_string_free(out, false);
}
