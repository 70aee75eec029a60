/*
 * Unit tests of contrib/migration-replay
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-migration-convergence.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qobject/qjson.h"
#include "../../contrib/migration-replay/replay.h"
#include "../../migration/convergence-qapi.h"

/* 100 MiB/s; a pass that leaves what it dirtied */
#define PASS(n, time, duration, remaining, throttle, decision) \
    "{ 'pass': " #n ", 'time': " #time ", 'duration': " #duration ", " \
    "'sync-time': 500, 'bytes-sent': 524288000, 'pages-sent': 128000, " \
    "'pages-dirtied': " #remaining ", 'pages-hot': 0, " \
    "'pages-withheld': 0, 'pages-remaining': " #remaining ", " \
    "'page-size': 4096, 'dirty-rate': 1, 'bandwidth': 104857600, " \
    "'bandwidth-low': 104857600, 'switchover-bandwidth': 104857600, " \
    "'switchover-likely': 104857600, " \
    "'fixed-cost': 9500, 'can-switch-over': true, 'downtime-fixed': 10, " \
    "'downtime-copy': 1, 'throttle': " #throttle ", 'next-throttle': 0, " \
    "'decision': '" decision "', 'reason': 'as recorded' }"

#define RECORD(id, limits, passes) \
    "{ 'id': '" id "', 'direction': 'outgoing', 'start': 1, " \
    "'outcome': 'completed', 'total-time': 7000, 'bytes': 1, " \
    "'downtime': 17, 'predicted-downtime': 20, 'postcopy': false, " \
    "'mode': 'enforce', 'downtime-limit': 300, 'max-bandwidth': 1, " \
    limits ", 'fallback': 'abort', " \
    "'passes': [" passes "], 'passes-dropped': 0 }"

#define LIMITS "'time-limit': 100000, 'max-slowdown': 95"

#define EVENT(id, pass) \
    "{ 'event': 'MIGRATION_CONVERGENCE', " \
    "'timestamp': { 'seconds': 1, 'microseconds': 0 }, " \
    "'data': { 'id': '" id "', 'mode': 'observe', 'pass': " pass " } }\n"

#define PASS_1 PASS(1, 5000, 5000, 51200, 0, "continue")
#define PASS_2 PASS(2, 7000, 2000, 256, 0, "switch-over")

static QList *replay_ok(const char *text, const ReplayOptions *options)
{
    static const ReplayOptions none;
    MigrationRecordList *records = replay_parse(text, &error_abort);
    QList *list = replay(records, options ?: &none);

    qapi_free_MigrationRecordList(records);
    return list;
}

static QDict *entry(const QList *list, size_t i)
{
    QListEntry *e = QTAILQ_FIRST(&list->head);

    while (i--) {
        e = QTAILQ_NEXT(e, next);
    }
    return qobject_to(QDict, qlist_entry_obj(e));
}

static QDict *pass_of(const QList *list, size_t record, size_t pass)
{
    return entry(qdict_get_qlist(entry(list, record), "passes"), pass);
}

static const char *decided(QDict *pass, const char *when)
{
    return qdict_get_str(qdict_get_qdict(pass, when), "decision");
}

/* All that holds a record reads the same. */
static void test_forms(void)
{
    static const char *const forms[] = {
        RECORD("a", LIMITS, PASS_1 "," PASS_2),
        "[" RECORD("a", LIMITS, PASS_1 "," PASS_2) "]",
        "{ 'return': [" RECORD("a", LIMITS, PASS_1 "," PASS_2) "] }",
        "{ 'QMP': { 'version': {}, 'capabilities': [] } }\n"
        "{ 'return': {} }\n"
        "{ 'event': 'STOP', 'timestamp': {} }\n"
        "{ 'return': [" RECORD("a", LIMITS, PASS_1 "," PASS_2) "] }\n",
        EVENT("a", PASS_1) "{ 'event': 'STOP' }\n" EVENT("a", PASS_2),
    };

    for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
        g_autoptr(QList) list = replay_ok(forms[i], NULL);

        g_assert_cmpuint(qlist_size(list), ==, 1);
        g_assert_cmpstr(qdict_get_str(entry(list, 0), "id"), ==, "a");
        g_assert_cmpuint(qlist_size(qdict_get_qlist(entry(list, 0),
                                                    "passes")), ==, 2);
        g_assert_cmpstr(decided(pass_of(list, 0, 0), "recorded"), ==,
                        "continue");
        g_assert_cmpstr(decided(pass_of(list, 0, 0), "now"), ==, "continue");
        g_assert_true(qdict_get_bool(pass_of(list, 0, 0), "same"));
        g_assert_cmpstr(decided(pass_of(list, 0, 1), "now"), ==,
                        "switch-over");
        g_assert_true(qdict_get_bool(pass_of(list, 0, 1), "same"));
    }
}

static void test_several(void)
{
    g_autoptr(QList) list = replay_ok(
        EVENT("a", PASS_1) EVENT("b", PASS_1) EVENT("a", PASS_2), NULL);

    g_assert_cmpuint(qlist_size(list), ==, 2);
    g_assert_cmpuint(qlist_size(qdict_get_qlist(entry(list, 0), "passes")),
                     ==, 2);
    g_assert_cmpuint(qlist_size(qdict_get_qlist(entry(list, 1), "passes")),
                     ==, 1);
}

/* A decision that differs; and nothing follows once it would be over. */
static void test_other_limits(void)
{
    const char *text = RECORD("a", LIMITS, PASS_1 "," PASS_2);
    ReplayOptions wide = { .has_downtime_limit = true,
                           .downtime_limit = 5000 };
    ReplayOptions narrow = { .has_time_limit = true, .time_limit = 1000 };
    ReplayOptions postcopy = {
        .has_time_limit = true,
        .time_limit = 1000,
        .has_fallback = true,
        .fallback = MIGRATION_CONVERGENCE_FALLBACK_POSTCOPY,
    };
    ReplayOptions gentle = { .has_max_slowdown = true, .max_slowdown = 0 };
    g_autoptr(QList) a = replay_ok(text, &wide);
    g_autoptr(QList) b = replay_ok(text, &narrow);
    g_autoptr(QList) c = replay_ok(text, &postcopy);
    g_autoptr(QList) d = replay_ok(text, &gentle);
    g_autofree char *out = replay_text(a);

    g_assert_cmpstr(decided(pass_of(a, 0, 0), "now"), ==, "switch-over");
    g_assert_false(qdict_get_bool(pass_of(a, 0, 0), "same"));
    g_assert_cmpstr(decided(pass_of(b, 0, 0), "now"), ==, "abort");
    g_assert_null(qdict_get_qdict(pass_of(b, 0, 1), "now"));
    g_assert_cmpstr(decided(pass_of(c, 0, 0), "now"), ==, "postcopy");
    g_assert_cmpint(qdict_get_int(qdict_get_qdict(entry(d, 0), "limits"),
                                  "max-slowdown"), ==, 0);
    g_assert_nonnull(strstr(out, "migration a: outgoing, completed, 7.00 s, "
                                 "downtime 17 ms, predicted 20 ms\n"));
    g_assert_nonnull(strstr(out, "limits: downtime 5000 ms, time 100000 ms, "
                                 "slowdown 95 %, then abort\n"));
    g_assert_nonnull(strstr(out, "recorded: continue: as recorded\n"));
    g_assert_nonnull(strstr(out, "now:      switch-over: stopping pre-"));
}

static void test_text_over(void)
{
    ReplayOptions narrow = { .has_time_limit = true, .time_limit = 1000 };
    g_autoptr(QList) list = replay_ok(RECORD("a", LIMITS, PASS_1 "," PASS_2),
                                      &narrow);
    g_autofree char *out = replay_text(list);

    g_assert_nonnull(strstr(out, "now:      it would be over\n"));
}

/* Numbers that no host has, but that are valid: no crash, no overflow. */
static void test_absurd(void)
{
    const char *text =
        RECORD("a", LIMITS, PASS(1, 0, 0, 18446744073709551615, 0, "continue")
               "," PASS(2, 18446744073709551615, 18446744073709551615,
                        0, 99, "abort"));
    g_autoptr(QList) list = replay_ok(text, NULL);
    g_autofree char *out = replay_text(list);
    g_autoptr(GString) json = qobject_to_json_pretty(QOBJECT(list), true);

    g_assert_nonnull(json);
    g_assert_nonnull(out);
    g_assert_cmpint(qdict_get_int(pass_of(list, 0, 0), "bytes-remaining"),
                    ==, INT64_MAX / 4096 * 4096);
}

/* What the engine measured is what it gets back. */
static void test_convert(void)
{
    MigrationPass reported = {
        .pass = 3,
        .time = 1,
        .duration = 2,
        .sync_time = 3,
        .bytes_sent = 4,
        .pages_sent = 5,
        .pages_dirtied = 6,
        .pages_hot = 7,
        .pages_withheld = 8,
        .pages_remaining = 9,
        .page_size = 10,
        .bandwidth_low = 11,
        .switchover_bandwidth = 12,
        .switchover_likely = 13,
        .fixed_cost = 13,
        .can_switch_over = true,
        .throttle = 14,
        .next_throttle = 15,
        .downtime_fixed = 16,
        .downtime_copy = 17,
        .has_predicted_time = true,
        .predicted_time = 18,
        .has_predicted_downtime = true,
        .predicted_downtime = 19,
        .decision = MIGRATION_DECISION_WITHHOLD,
        .reason = (char *)"why",
    };
    MigrationPassList list = { .value = &reported };
    MigrationRecord record = {
        .downtime_limit = 20,
        .time_limit = 21,
        .max_slowdown = 22,
        .fallback = MIGRATION_CONVERGENCE_FALLBACK_POSTCOPY,
        .passes = &list,
    };
    ConvergencePass pass;
    ConvergenceLimits limits;

    convergence_pass_from_qapi(&pass, &reported);
    g_assert_cmpuint(pass.end, ==, 1);
    g_assert_cmpuint(pass.duration, ==, 2);
    g_assert_cmpuint(pass.sync_time, ==, 3);
    g_assert_cmpuint(pass.bytes_sent, ==, 4);
    g_assert_cmpuint(pass.pages_sent, ==, 5);
    g_assert_cmpuint(pass.pages_dirtied, ==, 6);
    g_assert_cmpuint(pass.pages_hot, ==, 7);
    g_assert_cmpuint(pass.pages_withheld, ==, 8);
    g_assert_cmpuint(pass.pages_remaining, ==, 9);
    g_assert_cmpuint(pass.bandwidth_low, ==, 11);
    g_assert_cmpuint(pass.switchover_bandwidth, ==, 12);
    g_assert_cmpuint(pass.switchover_likely, ==, 13);
    g_assert_cmpuint(pass.fixed_cost, ==, 13);
    g_assert_true(pass.can_switch_over);
    g_assert_cmpuint(pass.throttle, ==, 14);
    g_assert_cmpuint(pass.decided.throttle, ==, 15);
    g_assert_cmpuint(pass.decided.downtime_fixed, ==, 16);
    g_assert_cmpuint(pass.decided.downtime_copy, ==, 17);
    g_assert_true(pass.decided.converges);
    g_assert_cmpuint(pass.decided.predicted_time, ==, 18);
    g_assert_cmpuint(pass.decided.predicted_downtime, ==, 19);
    g_assert_cmpint(pass.decided.action, ==, CONVERGENCE_WITHHOLD);
    g_assert_cmpstr(pass.decided.reason, ==, "why");

    convergence_limits_from_qapi(&limits, &record);
    g_assert_cmpuint(limits.downtime_limit, ==, 20);
    g_assert_cmpuint(limits.time_limit, ==, 21);
    g_assert_cmpuint(limits.max_slowdown, ==, 22);
    g_assert_cmpuint(limits.page_size, ==, 10);
    g_assert_true(limits.postcopy);
    g_assert_true(limits.can_withhold);
}

static const struct {
    const char *text;
    const char *error;
} bad[] = {
    { "", "no migration is recorded" },
    { "[]", "no migration is recorded" },
    { "{ 'return': {} }", "no migration is recorded" },
    { "7", "neither a record of a migration nor an event" },
    { "[", "JSON parse error" },
    { "{ 'return': [ 7 ] }", "Invalid parameter type" },
    { "{ 'id': 'a' }", "Parameter 'direction' is missing" },
    { "{ 'event': 'MIGRATION_CONVERGENCE' }", "event without data" },
    { "{ 'event': 'MIGRATION_CONVERGENCE', 'data': { 'id': 'a' } }",
      "Parameter 'mode' is missing" },
    { RECORD("a", "'time-limit': 0, 'max-slowdown': 95", ""),
      "a: time-limit must be 1 to 86400000" },
    { RECORD("a", "'time-limit': 1, 'max-slowdown': 100", ""),
      "a: max-slowdown must be 0 to 99" },
    { RECORD("a", LIMITS, PASS_2), "a: pass 1 is missing" },
    { RECORD("a", LIMITS, PASS_1 "," PASS_1), "a: pass 1 comes after pass 1" },
    { RECORD("a", LIMITS, PASS_1 "," PASS(2, 1, 1, 1, 0, "abort")),
      "a: pass 2 ends before the one before it" },
    { RECORD("a", LIMITS, PASS(1, 1, 1, 1, 100, "abort")),
      "a: pass 1: throttle must be 0 to 99" },
    { RECORD("a", LIMITS, PASS(1, 1, 1, 1, 0, "guess")),
      "does not accept value 'guess'" },
    { RECORD("a", LIMITS, PASS(1, 1, 1, 1.5, 0, "abort")),
      "pages-dirtied" },
    { RECORD("a", LIMITS, PASS_1) RECORD("b", LIMITS, PASS_2),
      "b: pass 1 is missing" },
};

static void test_bad(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        Error *err = NULL;

        g_assert_null(replay_parse(bad[i].text, &err));
        g_assert_nonnull(err);
        g_test_message("%s", error_get_pretty(err));
        g_assert_nonnull(strstr(error_get_pretty(err), bad[i].error));
        error_free(err);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/migration-replay/forms", test_forms);
    g_test_add_func("/migration-replay/several", test_several);
    g_test_add_func("/migration-replay/other-limits", test_other_limits);
    g_test_add_func("/migration-replay/text-over", test_text_over);
    g_test_add_func("/migration-replay/convert", test_convert);
    g_test_add_func("/migration-replay/absurd", test_absurd);
    g_test_add_func("/migration-replay/bad", test_bad);

    return g_test_run();
}
