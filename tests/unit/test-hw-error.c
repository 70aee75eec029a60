/*
 * Unit tests of hardware errors: policy, records, severities
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "../../hw-error/journal.h"
#include "../../hw-error/policy.h"
#include "../../hw-error/record.h"
#include "hw-error/severity.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-hw-error.h"
#include "qapi/util.h"

#define SECOND 1000000000LL

/* Policy */

#define RULE(...) (&(HwErrorRuleProperties) { __VA_ARGS__ })
#define SOURCE(s) .has_source = true, .source = HW_ERROR_SOURCE_##s
#define SEVERITY(s) .has_severity = true, .severity = HW_ERROR_SEVERITY_##s
#define ACTION(a) .action = HW_ERROR_ACTION_##a
#define THRESHOLD(n, s) .has_threshold = true, .threshold = n, \
                        .has_window = true, .window = s

static void rules_free(HwErrorRules *rules)
{
    HwErrorPolicyRule *rule;

    while ((rule = QTAILQ_FIRST(rules))) {
        hw_error_policy_remove(rules, rule);
    }
}

static void assert_chosen(HwErrorRules *rules, HwErrorSource source,
                          HwErrorSeverity severity, const char *component,
                          const char *expected)
{
    const HwErrorPolicyRule *rule =
        hw_error_policy_peek(rules, source, severity, component, 1, 0);

    g_assert_cmpstr(rule ? rule->id : NULL, ==, expected);
    g_assert_true(rule == hw_error_policy_choose(rules, source, severity,
                                                 component, 1, 0));
}

static void test_specific(void)
{
    HwErrorRules rules = QTAILQ_HEAD_INITIALIZER(rules);

    assert_chosen(&rules, HW_ERROR_SOURCE_KVM, HW_ERROR_SEVERITY_FATAL, NULL,
                  NULL);
    hw_error_policy_add(&rules, "any", RULE(ACTION(REPORT)), &error_abort);
    hw_error_policy_add(&rules, "fatal", RULE(SEVERITY(FATAL)), &error_abort);
    hw_error_policy_add(&rules, "kvm", RULE(SOURCE(KVM)), &error_abort);
    hw_error_policy_add(&rules, "kvm-fatal",
                        RULE(SOURCE(KVM), SEVERITY(FATAL)), &error_abort);
    hw_error_policy_add(&rules, "c", RULE(.component = (char *)"c"),
                        &error_abort);

    assert_chosen(&rules, HW_ERROR_SOURCE_KVM, HW_ERROR_SEVERITY_FATAL, NULL,
                  "kvm-fatal");
    assert_chosen(&rules, HW_ERROR_SOURCE_KVM, HW_ERROR_SEVERITY_FATAL, "b",
                  "kvm-fatal");
    assert_chosen(&rules, HW_ERROR_SOURCE_KVM, HW_ERROR_SEVERITY_FATAL, "c",
                  "c");
    assert_chosen(&rules, HW_ERROR_SOURCE_KVM, HW_ERROR_SEVERITY_CORRECTED,
                  NULL, "kvm");
    assert_chosen(&rules, HW_ERROR_SOURCE_HOST, HW_ERROR_SEVERITY_FATAL, NULL,
                  "fatal");
    assert_chosen(&rules, HW_ERROR_SOURCE_HOST, HW_ERROR_SEVERITY_CORRECTED,
                  NULL, "any");
    rules_free(&rules);
}

typedef struct BadRule {
    HwErrorRuleProperties props;
    const char *error;
} BadRule;

static void test_bad_rules(void)
{
    g_autofree char *long_name = g_strnfill(256, 'x');
    const BadRule bad[] = {
        { { .component = (char *)"" }, "'component' must have 1 to 255" },
        { { .component = long_name }, "'component' must have 1 to 255" },
        { { .component = (char *)"a\nb" }, "control characters" },
        { { THRESHOLD(0, 1) }, "'threshold' must be between 1 and 10000" },
        { { THRESHOLD(10001, 1) }, "'threshold' must be between" },
        { { THRESHOLD(2, 0) }, "'window' must be between 1 and 31536000" },
        { { THRESHOLD(2, 31536001) }, "'window' must be between" },
        { { THRESHOLD(1, 1) }, "'window' requires a 'threshold'" },
        { { .has_window = true, .window = 1 }, "requires a 'threshold'" },
        { { .has_threshold = true, .threshold = 2 }, "requires property "
          "'window'" },
        { { .has_stall_limit = true, .stall_limit = 10 },
          "requires source 'block-stall' or 'backend'" },
        { { SOURCE(KVM), .has_stall_limit = true, .stall_limit = 10 },
          "requires source 'block-stall' or 'backend'" },
        { { SOURCE(BLOCK_STALL), .has_stall_limit = true, .stall_limit = 9 },
          "must be between 10 and 86400000" },
        { { SOURCE(BLOCK_STALL), .has_stall_limit = true,
            .stall_limit = 86400001 }, "must be between 10 and 86400000" },
        { { SOURCE(BACKEND), .has_stall_limit = true, .stall_limit = 9 },
          "must be between 10 and 86400000" },
        { { SOURCE(BACKEND), .has_stall_limit = true,
            .stall_limit = 86400001 }, "must be between 10 and 86400000" },
        { { SOURCE(KVM), ACTION(INJECT) }, "cannot be injected" },
        /* The same errors as 'old' */
        { { SOURCE(KVM), ACTION(STOP), THRESHOLD(3, 5) }, "Rule 'old' is for" },
    };
    HwErrorRules rules = QTAILQ_HEAD_INITIALIZER(rules);
    int i;

    hw_error_policy_add(&rules, "old", RULE(SOURCE(KVM)), &error_abort);
    for (i = 0; i < ARRAY_SIZE(bad); i++) {
        Error *err = NULL;

        g_assert_null(hw_error_policy_add(&rules, "bad", &bad[i].props, &err));
        g_assert_nonnull(strstr(error_get_pretty(err), bad[i].error));
        error_free(err);
        g_assert_null(QTAILQ_NEXT(QTAILQ_FIRST(&rules), next));
    }
    rules_free(&rules);
}

static uint32_t stall_limit(HwErrorRules *rules, const char *component)
{
    return hw_error_policy_stall_limit(rules, HW_ERROR_SOURCE_BLOCK_STALL,
                                       component);
}

static void test_stall_limit(void)
{
    HwErrorRules rules = QTAILQ_HEAD_INITIALIZER(rules);

    g_assert_cmpint(stall_limit(&rules, "c"), ==, 0);
    hw_error_policy_add(&rules, "any", RULE(SOURCE(BLOCK_STALL)), &error_abort);
    g_assert_cmpint(stall_limit(&rules, "c"), ==, 0);
    hw_error_policy_add(&rules, "recoverable",
                        RULE(SOURCE(BLOCK_STALL), SEVERITY(RECOVERABLE),
                             .has_stall_limit = true, .stall_limit = 500),
                        &error_abort);
    g_assert_cmpint(stall_limit(&rules, "c"), ==, 500);
    hw_error_policy_add(&rules, "c",
                        RULE(SOURCE(BLOCK_STALL), .component = (char *)"c",
                             .has_stall_limit = true, .stall_limit = 700),
                        &error_abort);
    g_assert_cmpint(stall_limit(&rules, "c"), ==, 700);
    g_assert_cmpint(stall_limit(&rules, "b"), ==, 500);
    g_assert_cmpint(stall_limit(&rules, NULL), ==, 500);

    /* Each source has limits of its own */
    g_assert_cmpint(hw_error_policy_stall_limit(
                        &rules, HW_ERROR_SOURCE_BACKEND, NULL), ==, 0);
    hw_error_policy_add(&rules, "backend",
                        RULE(SOURCE(BACKEND), .has_stall_limit = true,
                             .stall_limit = 100),
                        &error_abort);
    g_assert_cmpint(hw_error_policy_stall_limit(
                        &rules, HW_ERROR_SOURCE_BACKEND, "c"), ==, 100);
    g_assert_cmpint(stall_limit(&rules, "c"), ==, 700);
    g_assert_cmpint(stall_limit(&rules, NULL), ==, 500);
    rules_free(&rules);
}

/* Any set of rules gives the same policy, in whatever order it is made */
static void test_order(void)
{
    static const char *const components[] = { NULL, "a", "b" };
    int round;

    for (round = 0; round < 500; round++) {
        HwErrorRules rules[2] = {
            QTAILQ_HEAD_INITIALIZER(rules[0]),
            QTAILQ_HEAD_INITIALIZER(rules[1]),
        };
        HwErrorRuleProperties props[12];
        char ids[12][4];
        int order[12];
        int n = g_test_rand_int_range(1, 13);
        int kept = 0, i, k, time;

        for (i = 0; i < n; i++) {
            HwErrorRuleProperties p = {
                .action = g_test_rand_int_range(0, HW_ERROR_ACTION__MAX),
                .has_source = g_test_rand_int_range(0, 2),
                .has_severity = g_test_rand_int_range(0, 2),
                .component = (char *)components[g_test_rand_int_range(0, 3)],
                .has_threshold = true,
                .threshold = g_test_rand_int_range(2, 6),
                .has_window = true,
                .window = g_test_rand_int_range(1, 10),
            };

            if (p.has_source) {
                p.source = g_test_rand_int_range(0, 3);
            }
            if (p.has_severity) {
                p.severity = g_test_rand_int_range(0, 3);
            }
            sprintf(ids[kept], "r%d", kept);
            if (hw_error_policy_add(&rules[0], ids[kept], &p, NULL)) {
                props[kept++] = p;
            }
        }
        for (i = 0; i < kept; i++) {
            order[i] = i;
        }
        for (i = kept - 1; i > 0; i--) {
            k = g_test_rand_int_range(0, i + 1);
            n = order[i];
            order[i] = order[k];
            order[k] = n;
        }
        for (i = 0; i < kept; i++) {
            hw_error_policy_add(&rules[1], ids[order[i]], &props[order[i]],
                                &error_abort);
        }

        for (i = time = 0; i < 100; i++) {
            HwErrorSource source = g_test_rand_int_range(0, 3);
            HwErrorSeverity severity = g_test_rand_int_range(0, 3);
            const char *component = components[g_test_rand_int_range(0, 3)];
            uint64_t count = g_test_rand_int_range(1, 4);
            const HwErrorPolicyRule *peeked, *chosen[2];

            time += g_test_rand_int_range(0, 3);
            peeked = hw_error_policy_peek(&rules[0], source, severity,
                                          component, count, time * SECOND);
            for (k = 0; k < 2; k++) {
                chosen[k] = hw_error_policy_choose(&rules[k], source, severity,
                                                   component, count,
                                                   time * SECOND);
            }
            g_assert_true(peeked == chosen[0]);
            g_assert_cmpstr(chosen[0] ? chosen[0]->id : NULL, ==,
                            chosen[1] ? chosen[1]->id : NULL);
        }
        rules_free(&rules[0]);
        rules_free(&rules[1]);
    }
}

/* A bucket fires when, and only when, n errors are within the window */
static void test_bucket(void)
{
    int round;

    for (round = 0; round < 300; round++) {
        g_autofree int64_t *times = NULL;
        g_autofree int64_t *seen = g_new(int64_t, 300);
        HwErrorBucket b = {
            .size = g_test_rand_int_range(1, 20),
            .window_ns = g_test_rand_int_range(1, 50),
        };
        int64_t now = 0;
        int n = 0, i, k, recent;

        times = b.times = g_new(int64_t, b.size);
        for (i = 0; i < 300; i++) {
            now += g_test_rand_int_range(0, 6);
            seen[n++] = now;
            for (k = recent = 0; k < n; k++) {
                recent += now - seen[k] <= b.window_ns;
            }
            if (hw_error_bucket_add(&b, 1, now)) {
                g_assert_cmpint(recent, ==, b.size);
                n = 0;
            } else {
                g_assert_cmpint(recent, <, b.size);
            }
        }
        g_assert_true(hw_error_bucket_add(&b, UINT64_MAX, now));
        g_assert_cmpint(b.level, ==, 0);
    }
}

/* Journal */

static HwErrorInfo host_error(HwErrorSeverity severity, const char *label)
{
    return (HwErrorInfo) {
        .source = HW_ERROR_SOURCE_HOST,
        .severity = severity,
        .u.host.label = (char *)label,
    };
}

static void add(HwErrorJournal *j, HwErrorSeverity severity, const char *label,
                HwErrorAction action, int64_t ms)
{
    HwErrorInfo info = host_error(severity, label);

    hw_error_journal_add(j, &info, action, NULL, false, ms * 1000000,
                         ms * 1000);
}

#define CORRECTED HW_ERROR_SEVERITY_CORRECTED
#define FATAL HW_ERROR_SEVERITY_FATAL
#define REPORT HW_ERROR_ACTION_REPORT

/* The next record; 0 if there is none */
static uint64_t take_count(HwErrorJournal *j)
{
    const HwError *e = hw_error_journal_take(j);

    return e ? hw_error_count(e->info) : 0;
}

static void test_coalesce(void)
{
    HwErrorJournal j;
    int i;

    hw_error_journal_init(&j);
    add(&j, CORRECTED, "a", REPORT, 0);
    add(&j, CORRECTED, "b", REPORT, 0);
    add(&j, FATAL, "a", REPORT, 0);
    for (i = 0; i < 3; i++) {
        g_assert_cmpint(take_count(&j), ==, 1);
    }
    for (i = 0; i < 1000; i++) {
        add(&j, CORRECTED, "a", REPORT, 500);
    }
    g_assert_cmpint(take_count(&j), ==, 0);
    g_assert_cmpint(hw_error_journal_expire(&j, 999000000), ==, SECOND);
    g_assert_cmpint(take_count(&j), ==, 0);

    /* Due, and one second later; the others are over */
    g_assert_cmpint(hw_error_journal_expire(&j, SECOND), ==, 2 * SECOND);
    g_assert_cmpint(take_count(&j), ==, 1000);
    g_assert_cmpint(take_count(&j), ==, 0);
    g_assert_cmpint(hw_error_journal_expire(&j, 2 * SECOND), ==, -1);
    add(&j, CORRECTED, "a", REPORT, 2001);
    g_assert_cmpint(take_count(&j), ==, 1);
    hw_error_journal_destroy(&j);
}

/* What is urgent has its record at once, with what came before it */
static void test_urgent(void)
{
    HwErrorInfo info = host_error(FATAL, "a");
    HwErrorJournal j;

    hw_error_journal_init(&j);
    add(&j, FATAL, "a", HW_ERROR_ACTION_STOP, 0);
    g_assert_cmpint(take_count(&j), ==, 1);
    add(&j, FATAL, "a", HW_ERROR_ACTION_STOP, 1);
    g_assert_cmpint(take_count(&j), ==, 0);
    hw_error_journal_add(&j, &info, HW_ERROR_ACTION_STOP, NULL, true, 2000000,
                         2000);
    g_assert_cmpint(take_count(&j), ==, 2);
    g_assert_cmpint(hw_error_journal_expire(&j, SECOND), ==, -1);
    hw_error_journal_destroy(&j);
}

/* Numbers are without gaps; what is missing is counted */
static void test_numbers(void)
{
    HwErrorJournal j;
    HwErrorLog *log;
    uint64_t id = 0;
    HwErrorList *l;
    int i;

    hw_error_journal_init(&j);
    for (i = 0; i < 3000; i++) {
        g_autofree char *label = g_strdup_printf("l%d", i);
        const HwError *e;

        add(&j, i % 3 ? CORRECTED : FATAL, label, REPORT, 2000 * i);
        hw_error_journal_expire(&j, 2 * SECOND * i);
        while ((e = hw_error_journal_take(&j))) {
            g_assert_cmpint(e->id, ==, ++id);
        }
    }
    g_assert_cmpint(id, ==, 3000);

    log = hw_error_journal_query(&j, 0);
    g_assert_cmpint(log->last_id, ==, 3000);
    g_assert_cmpint(log->pending, ==, 0);
    /* All 1000 fatal ones, and the last corrected ones */
    g_assert_cmpint(QAPI_LIST_LENGTH(log->errors), ==,
                    1000 + HW_ERROR_KEEP_CORRECTED);
    g_assert_cmpint(log->dropped, ==, 2000 - HW_ERROR_KEEP_CORRECTED);
    for (l = log->errors, id = 0; l; l = l->next) {
        g_assert_cmpint(l->value->id, >, id);
        id = l->value->id;
    }
    qapi_free_HwErrorLog(log);

    log = hw_error_journal_query(&j, 2990);
    g_assert_cmpint(QAPI_LIST_LENGTH(log->errors), ==, 10);
    g_assert_cmpint(log->errors->value->id, ==, 2991);
    g_assert_cmpint(log->dropped, ==, 0);
    qapi_free_HwErrorLog(log);

    hw_error_journal_clear(&j, 2995);
    log = hw_error_journal_query(&j, 0);
    g_assert_cmpint(QAPI_LIST_LENGTH(log->errors), ==, 5);
    g_assert_cmpint(log->dropped, ==, 0);
    qapi_free_HwErrorLog(log);

    log = hw_error_journal_query(&j, 4000);
    g_assert_null(log->errors);
    g_assert_cmpint(log->dropped, ==, 0);
    qapi_free_HwErrorLog(log);
    hw_error_journal_destroy(&j);
}

/* However many: bounded, counted, and a fatal one is out at once */
static void test_flood(void)
{
    HwErrorJournal j;
    uint64_t total = 0, n;
    HwErrorLog *log;
    HwError *e;
    int i;

    hw_error_journal_init(&j);
    for (i = 0; i < 1000000; i++) {
        char label[16];

        sprintf(label, "l%d", i % 5000);
        add(&j, CORRECTED, label, REPORT, i / 1000);
        if (i == 500000) {
            while ((n = take_count(&j))) {
                total += n;
            }
            add(&j, FATAL, "l0", REPORT, i / 1000);
            add(&j, FATAL, "l1", REPORT, i / 1000);
            e = hw_error_journal_take(&j);
            g_assert_cmpstr(e->info->u.host.label, ==, "l0");
            e = hw_error_journal_take(&j);
            g_assert_cmpstr(e->info->u.host.label, ==, "l1");
            g_assert_null(hw_error_journal_take(&j));
        }
        if (i % 100000 == 0) {
            hw_error_journal_expire(&j, i * 1000LL);
            g_assert_cmpint(g_hash_table_size(j.kinds[true]), <=,
                            HW_ERROR_MAX_KINDS);
            g_assert_cmpint(g_hash_table_size(j.shared), <=, 2);
            g_assert_cmpint(j.ready.length, <=, 2 * HW_ERROR_MAX_KINDS);
        }
    }
    hw_error_journal_expire(&j, 10 * SECOND);
    while ((n = take_count(&j))) {
        total += n;
    }
    g_assert_cmpint(total, ==, 1000000);

    log = hw_error_journal_query(&j, 0);
    g_assert_cmpint(QAPI_LIST_LENGTH(log->errors), ==,
                    HW_ERROR_KEEP_CORRECTED + 2);
    g_assert_cmpint(log->errors->value->info->severity, ==, FATAL);
    g_assert_cmpint(log->pending, ==, 0);
    qapi_free_HwErrorLog(log);
    hw_error_journal_destroy(&j);
}

static void test_waiting(void)
{
    VmQuiesceInfo quiesce = {
        .phase = VM_QUIESCE_PHASE_QUIESCED,
        .token = (char *)"token",
    };
    HwErrorInfo last = host_error(FATAL, "last");
    HwErrorJournal j;
    HwErrorLog *log;
    HwError *e;

    hw_error_journal_init(&j);
    g_assert_null(hw_error_journal_waiting(&j));
    add(&j, FATAL, "a", HW_ERROR_ACTION_QUIESCE, 0);
    add(&j, FATAL, "b", REPORT, 1);
    add(&j, FATAL, "a", HW_ERROR_ACTION_QUIESCE, 2);
    g_assert_cmpstr(hw_error_journal_waiting(&j)->info->u.host.label, ==, "a");

    /* Others do not wait, and have their numbers in the order of events */
    e = hw_error_journal_take(&j);
    g_assert_cmpstr(e->info->u.host.label, ==, "b");
    g_assert_cmpint(e->id, ==, 1);
    g_assert_null(hw_error_journal_take(&j));
    log = hw_error_journal_query(&j, 0);
    g_assert_cmpint(log->pending, ==, 2);
    qapi_free_HwErrorLog(log);

    hw_error_journal_settle(&j, HW_ERROR_OUTCOME_QUIESCED, &quiesce, NULL);
    e = hw_error_journal_take(&j);
    g_assert_cmpint(e->id, ==, 2);
    g_assert_true(e->contained);
    g_assert_cmpint(e->outcome, ==, HW_ERROR_OUTCOME_QUIESCED);
    g_assert_cmpstr(e->quiesce->token, ==, "token");

    hw_error_journal_expire(&j, SECOND);
    hw_error_journal_settle(&j, HW_ERROR_OUTCOME_QUIESCE_FAILED, NULL, "no");
    e = hw_error_journal_take(&j);
    g_assert_false(e->contained);
    g_assert_cmpstr(e->error, ==, "no");

    /* At the end nothing waits */
    add(&j, FATAL, "c", HW_ERROR_ACTION_QUIESCE, 3000);
    hw_error_journal_add_last(&j, &last, REPORT, NULL, 0);
    e = hw_error_journal_take(&j);
    g_assert_cmpstr(e->info->u.host.label, ==, "c");
    g_assert_cmpint(e->outcome, ==, HW_ERROR_OUTCOME_EXITING);
    e = hw_error_journal_take(&j);
    g_assert_cmpstr(e->info->u.host.label, ==, "last");
    g_assert_cmpint(e->outcome, ==, HW_ERROR_OUTCOME_EXITING);
    hw_error_journal_destroy(&j);
}

/* Descriptions */

static void test_components(void)
{
    HwErrorInfo info = { .source = HW_ERROR_SOURCE_BLOCK_IO };

    g_assert_null(hw_error_component(&info));
    info.u.block_io.node_name = (char *)"node";
    g_assert_cmpstr(hw_error_component(&info), ==, "node");
    info.u.block_io.qom_path = (char *)"/dev";
    g_assert_cmpstr(hw_error_component(&info), ==, "/dev");
    info.component = (char *)"c";
    g_assert_cmpstr(hw_error_component(&info), ==, "c");

    /* Whatever the source, there is an answer */
    for (info.source = 0; info.source < HW_ERROR_SOURCE__MAX; info.source++) {
        memset(&info.u, 0, sizeof(info.u));
        hw_error_detail(&info);
        g_assert_cmpstr(hw_error_component(&info), ==, "c");
        g_assert_true(hw_error_check(&info, &error_abort));
    }
}

/* Severities */

static void test_severities(void)
{
    HwErrorSeverityInfoList *list = qmp_query_hw_error_severities(&error_abort);
    bool seen[HW_ERROR_SCHEME__MAX] = { };
    HwErrorSeverityInfoList *l;
    int i;

    for (l = list; l; l = l->next) {
        g_assert_cmpint(hw_error_severity(l->value->scheme, l->value->word),
                        ==, l->value->severity);
        seen[l->value->scheme] = true;
    }
    for (i = 0; i < HW_ERROR_SCHEME__MAX; i++) {
        g_assert_true(seen[i]);
    }
    qapi_free_HwErrorSeverityInfoList(list);

    g_assert_cmpint(hw_error_severity_errno(EIO), ==,
                    HW_ERROR_SEVERITY_RECOVERABLE);
    g_assert_cmpint(hw_error_severity_errno(ENODEV), ==, FATAL);
    g_assert_cmpint(hw_error_severity_errno(ENXIO), ==, FATAL);
    g_assert_cmpint(hw_error_severity_errno(ESHUTDOWN), ==, FATAL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/hw-error/policy/specific", test_specific);
    g_test_add_func("/hw-error/policy/bad-rules", test_bad_rules);
    g_test_add_func("/hw-error/policy/stall-limit", test_stall_limit);
    g_test_add_func("/hw-error/policy/order", test_order);
    g_test_add_func("/hw-error/policy/bucket", test_bucket);
    g_test_add_func("/hw-error/journal/coalesce", test_coalesce);
    g_test_add_func("/hw-error/journal/urgent", test_urgent);
    g_test_add_func("/hw-error/journal/numbers", test_numbers);
    g_test_add_func("/hw-error/journal/flood", test_flood);
    g_test_add_func("/hw-error/journal/waiting", test_waiting);
    g_test_add_func("/hw-error/record/components", test_components);
    g_test_add_func("/hw-error/severities", test_severities);
    return g_test_run();
}
