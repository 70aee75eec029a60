/*
 * Tests of migration convergence: parameters and capabilities
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/convergence-util.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "qobject/qjson.h"
#include "vm-quiesce-util.h"

static QDict *parameters(QTestState *qts)
{
    return qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'query-migrate-parameters' }");
}

static void set_failing(QTestState *qts, QDict *args, const char *error)
{
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'migrate-set-parameters',"
                               "  'arguments': %p }", args), error);
}

static void test_defaults(void)
{
    QTestState *qts = qtest_init("-machine none");
    g_autoptr(QDict) p = parameters(qts);
    g_autofree char *caps = qtest_hmp(qts, "info migrate_capabilities");
    g_autofree char *text = qtest_hmp(qts, "info migrate_parameters");
    g_autofree char *history = qtest_hmp(qts, "info migrate-history");

    g_assert_cmpstr(qdict_get_str(p, "convergence-mode"), ==, "enforce");
    g_assert_cmpint(qdict_get_int(p, "convergence-time-limit"), ==, 100000);
    g_assert_cmpstr(qdict_get_str(p, "convergence-fallback"), ==, "abort");
    g_assert_cmpint(qdict_get_int(p, "convergence-max-slowdown"), ==, 99);
    g_assert_cmpstr(qdict_get_str(p, "migration-id"), ==, "");
    cvg_assert_contains(caps, "convergence: off\r\n");
    cvg_assert_contains(text, "convergence-mode: enforce\r\n");
    cvg_assert_contains(text, "convergence-time-limit: 100000 ms\r\n");
    cvg_assert_contains(text, "convergence-fallback: abort\r\n");
    cvg_assert_contains(text, "convergence-max-slowdown: 99\r\n");
    cvg_assert_contains(text, "migration-id: ''\r\n");
    g_assert_cmpstr(history, ==, "No migrations\r\n");
    g_assert_cmpint(cvg_history_length(qts), ==, 0);
    qtest_quit(qts);
}

typedef struct Value {
    const char *name;
    /* JSON, and what HMP takes, NULL if that has no such value */
    const char *json;
    const char *hmp;
    /* Part of QMP's error and of HMP's, NULL if it is accepted */
    const char *error;
    const char *hmp_error;
} Value;

#define ID64 "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"

static const Value values[] = {
    { "convergence-mode", "\"observe\"", "observe" },
    { "convergence-mode", "\"enforce\"", "enforce" },
    { "convergence-time-limit", "1", "1" },
    { "convergence-time-limit", "86400000", "86400000" },
    { "convergence-fallback", "\"postcopy\"", "postcopy" },
    { "convergence-fallback", "\"abort\"", "abort" },
    { "convergence-max-slowdown", "0", "0" },
    { "convergence-max-slowdown", "99", "99" },
    { "migration-id", "\"" ID64 "\"", ID64 },
    { "migration-id", "\"a.b:c\"", "a.b:c" },
    { "migration-id", "\"\"", NULL },

    { "convergence-mode", "\"off\"", "off",
      "'convergence-mode' does not accept value 'off'" },
    { "convergence-mode", "\"\"", NULL, "does not accept value ''" },
    { "convergence-mode", "1", NULL, "expected: string" },
    { "convergence-time-limit", "0", "0",
      "'convergence-time-limit' expects an integer in the range of 1 to" },
    { "convergence-time-limit", "86400001", "86400001",
      "'convergence-time-limit' expects an integer in the range of 1 to" },
    { "convergence-time-limit", "18446744073709551615",
      "18446744073709551615",
      "'convergence-time-limit' expects an integer in the range of 1 to" },
    { "convergence-time-limit", "-1", "-1", "'convergence-time-limit' expects",
      "'convergence-time-limit' expects" },
    { "convergence-time-limit", "1.5", "1.5", "'convergence-time-limit'" },
    { "convergence-time-limit", "\"x\"", "x", "'convergence-time-limit'" },
    { "convergence-fallback", "\"continue\"", "continue",
      "'convergence-fallback' does not accept value 'continue'" },
    { "convergence-max-slowdown", "100", "100",
      "'convergence-max-slowdown' expects an integer in the range of 0 to 99" },
    { "convergence-max-slowdown", "256", "256",
      "'convergence-max-slowdown' expects" },
    { "convergence-max-slowdown", "-1", "-1",
      "'convergence-max-slowdown' expects" },
    { "convergence-max-slowdown", "\"x\"", "x", "'convergence-max-slowdown'" },
    { "migration-id", "\"" ID64 "x\"", ID64 "x",
      "'migration-id' expects up to 64 letters" },
    { "migration-id", "\"a b\"", NULL, "'migration-id' expects up to 64" },
    { "migration-id", "\"a/b\"", "a/b", "'migration-id' expects up to 64" },
    { "migration-id", "\"\\u00e4\"", "\xc3\xa4",
      "'migration-id' expects up to 64" },
    { "migration-id", "\"a\\n\"", NULL, "'migration-id' expects up to 64" },
    { "migration-id", "7", NULL, "expected: string" },
    { "migration-id", "null", NULL, "expected: string" },
};

static void check_hmp(QTestState *qts, const Value *v, const char *error)
{
    g_autofree char *reply = qtest_hmp(qts, "migrate_set_parameter %s %s",
                                       v->name, v->hmp);

    if (!error) {
        g_assert_cmpstr(reply, ==, "");
        return;
    }
    /* One line */
    g_assert_true(g_str_has_prefix(reply, "Error: "));
    cvg_assert_contains(reply, error);
    g_assert_true(strchr(reply, '\n') == reply + strlen(reply) - 1);
}

/* Each value over QMP and HMP; a bad one is refused and changes nothing */
static void test_values(void)
{
    QTestState *qts = qtest_init("-machine none");
    int i;

    for (i = 0; i < ARRAY_SIZE(values); i++) {
        const Value *v = &values[i];
        g_autofree char *json = g_strdup_printf("{ \"%s\": %s }", v->name,
                                                v->json);
        QDict *args = qobject_to(QDict, qobject_from_json(json, NULL));
        g_autoptr(QDict) expected = qdict_clone_shallow(args);
        g_autoptr(QDict) before = parameters(qts);
        g_autoptr(QDict) after = NULL;

        g_test_message("%s", json);
        if (v->error) {
            /* All or nothing */
            qdict_put_int(args, "downtime-limit", 77);
            set_failing(qts, args, v->error);
            if (v->hmp) {
                check_hmp(qts, v, v->hmp_error ?: v->error);
            }
            after = parameters(qts);
            g_assert_true(qobject_is_equal(QOBJECT(before), QOBJECT(after)));
            continue;
        }
        qtest_qmp_assert_success(qts, "{ 'execute': 'migrate-set-parameters',"
                                 "  'arguments': %p }", args);
        if (v->hmp) {
            check_hmp(qts, v, NULL);
        }
        after = parameters(qts);
        g_assert_true(qobject_is_equal(qdict_get(expected, v->name),
                                       qdict_get(after, v->name)));
        g_autofree char *text = qtest_hmp(qts, "info migrate_parameters");

        cvg_assert_contains(text, v->hmp ?: "''");
    }
    qtest_quit(qts);
}

typedef struct Combination {
    const char *name;
    const char *caps[3];
    /* What refuses it: the capability, or the migration; NULL if nothing */
    const char *cap_error;
    const char *migrate_error;
    const char *mode;
    /* A parameter, besides */
    const char *param, *value;
    bool mapped_ram;
    bool postcopy;
} Combination;

static const Combination combinations[] = {
    { "multifd", { "multifd" } },
    { "xbzrle", { "xbzrle" } },
    { "postcopy-ram", { "postcopy-ram" }, .postcopy = true },
    { "postcopy-preempt", { "postcopy-ram", "postcopy-preempt" },
      .postcopy = true },
    { "release-ram", { "postcopy-ram", "release-ram" }, .postcopy = true },
    { "return-path", { "return-path" } },
    { "switchover-ack", { "return-path", "switchover-ack" } },
    { "zero-page-legacy", { },
      .param = "zero-page-detection", .value = "legacy" },
    { "zero-page-none", { }, .param = "zero-page-detection", .value = "none" },
    { "mapped-ram", { "mapped-ram" }, .mapped_ram = true },
    { "mapped-ram-multifd", { "mapped-ram", "multifd" }, .mapped_ram = true },

    { "auto-converge", { "auto-converge" },
      .migrate_error = "conflicts with capability 'auto-converge'" },
    { "auto-converge-observe", { "auto-converge" }, .mode = "observe" },
    { "x-colo", { "x-colo" }, "conflicts with capability 'x-colo'" },
    { "cpr-reboot", { }, .param = "mode", .value = "cpr-reboot",
      .migrate_error = "needs migration mode 'normal'" },
    { "cpr-reboot-observe", { }, .param = "mode", .value = "cpr-reboot",
      .mode = "observe", .migrate_error = "needs migration mode 'normal'" },
    { "fallback-postcopy", { },
      .param = "convergence-fallback", .value = "postcopy",
      .migrate_error = "'convergence-fallback' is 'postcopy': needs "
                       "capability 'postcopy-ram'" },
    { "fallback-postcopy-observe", { }, .mode = "observe",
      .param = "convergence-fallback", .value = "postcopy" },
};

static void set_both(Cvg *c, const char *name, const char *value)
{
    migrate_set_parameter_str(c->from, name, value);
    migrate_set_parameter_str(c->to, name, value);
}

static void combination_setup(Cvg *c, const Combination *k)
{
    int i;

    cvg_set_capability(c, "convergence");
    for (i = 0; i < ARRAY_SIZE(k->caps) && k->caps[i]; i++) {
        cvg_set_capability(c, k->caps[i]);
        /* Its threads count for themselves */
        c->counts_late |= g_str_equal(k->caps[i], "multifd");
    }
    if (k->mode) {
        migrate_set_parameter_str(c->from, "convergence-mode", k->mode);
    }
    if (k->param) {
        set_both(c, k->param, k->value);
    }
}

static void assert_refused(Cvg *c, const Combination *k)
{
    vmq_assert_error(qtest_qmp(c->from, "{ 'execute': 'migrate',"
                               "  'arguments': { 'uri': 'tcp:127.0.0.1:1' } }"),
                     k->migrate_error);
    g_assert_cmpint(cvg_history_length(c->from), ==, 0);
    vmq_assert_status(c->from, "running");
}

/* Only one is refused, and both orders are */
static void assert_capability_refused(Cvg *c, const Combination *k)
{
    static const char set[] = "{ 'execute': 'migrate-set-capabilities',"
                              "  'arguments': { 'capabilities': [ {"
                              "    'capability': %s, 'state': true } ] } }";
    g_autofree char *caps = NULL;

    migrate_set_capability(c->from, "convergence", true);
    vmq_assert_error(qtest_qmp(c->from, set, k->caps[0]), k->cap_error);
    migrate_set_capability(c->from, "convergence", false);
    migrate_set_capability(c->from, k->caps[0], true);
    vmq_assert_error(qtest_qmp(c->from, set, "convergence"), k->cap_error);
    caps = qtest_hmp(c->from, "info migrate_capabilities");
    cvg_assert_contains(caps, "convergence: off\r\n");
}

static void test_combination(const void *opaque)
{
    const Combination *k = opaque;
    Cvg c;

    if (k->postcopy && !ufd_version_check(NULL)) {
        g_test_skip("userfaultfd is not available");
        return;
    }
    cvg_start(&c, "");
    if (k->cap_error) {
        assert_capability_refused(&c, k);
    } else {
        combination_setup(&c, k);
    }
    if (k->migrate_error) {
        assert_refused(&c, k);
    }
    if (!k->cap_error && !k->migrate_error) {
        if (k->mapped_ram) {
            g_autofree char *path = vmq_tmpfile("state");

            c.uri = g_strdup_printf("file:%s", path);
            cvg_migrate(&c);
            cvg_run_to(&c, &cvg_converging, "completed");
            migrate_incoming_qmp(c.to, c.uri, NULL, "{}");
            unlink(path);
        } else {
            cvg_listen(&c);
            cvg_migrate(&c);
            cvg_run_to(&c, &cvg_converging, "completed");
        }
        cvg_assert_memory(&c);
        g_assert_cmpint(cvg_passes(&c), >=, 1);
        qobject_unref(cvg_assert_history(&c, "completed"));
    }
    cvg_free(&c);
}

/* Only where the host can write-protect memory; else it is refused before */
static void test_background_snapshot(void)
{
    QTestState *qts = qtest_init("-machine none");
    QDict *rsp;

    rsp = qtest_qmp(qts, "{ 'execute': 'migrate-set-capabilities',"
                    "  'arguments': { 'capabilities': [ {"
                    "    'capability': 'background-snapshot',"
                    "    'state': true } ] } }");
    if (qdict_haskey(rsp, "error")) {
        g_test_skip("the host does not support background-snapshot");
    } else {
        vmq_assert_error(qtest_qmp(qts,
                                   "{ 'execute': 'migrate-set-capabilities',"
                                   "  'arguments': { 'capabilities': [ {"
                                   "    'capability': 'convergence',"
                                   "    'state': true } ] } }"),
                         "conflicts with capability 'background-snapshot'");
    }
    qobject_unref(rsp);
    qtest_quit(qts);
}

static void test_cpr_transfer(void)
{
    QTestState *qts = qtest_init("-machine none");

    migrate_set_capability(qts, "convergence", true);
    migrate_set_parameter_str(qts, "mode", "cpr-transfer");
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'migrate', 'arguments': {"
                               "  'channels': [ { 'channel-type': 'main',"
                               "    'addr': { 'transport': 'socket',"
                               "      'type': 'unix', 'path': '/none' } }, {"
                               "    'channel-type': 'cpr',"
                               "    'addr': { 'transport': 'socket',"
                               "      'type': 'unix', 'path': '/none' }"
                               "  } ] } }"),
                     "needs migration mode 'normal'");
    g_assert_cmpint(cvg_history_length(qts), ==, 0);
    qtest_quit(qts);
}

static void test_cpr_exec(void)
{
    QTestState *qts = qtest_init("-machine none");

    migrate_set_capability(qts, "convergence", true);
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate-set-parameters',"
                             "  'arguments': { 'mode': 'cpr-exec',"
                             "    'cpr-exec-command': [ '/bin/false' ] } }");
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'migrate',"
                               "  'arguments': { 'uri': 'file:/none' } }"),
                     "needs migration mode 'normal'");
    g_assert_cmpint(cvg_history_length(qts), ==, 0);
    qtest_quit(qts);
}

/* The capability needs a dirty ring, and that KVM; no vCPU runs */
static void test_dirty_limit(void)
{
    QTestState *qts;

    if (!qtest_has_accel("kvm") || !kvm_dirty_ring_supported()) {
        g_test_skip("KVM has no dirty ring");
        return;
    }
    qts = qtest_init("-accel kvm,dirty-ring-size=4096 -machine pc -m 16 -S");
    migrate_set_capability(qts, "dirty-limit", true);
    migrate_set_capability(qts, "convergence", true);
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'migrate',"
                               "  'arguments': { 'uri': 'exec:cat' } }"),
                     "conflicts with capability 'dirty-limit'");
    g_assert_cmpint(cvg_history_length(qts), ==, 0);
    qtest_quit(qts);
}

static void test_rdma(void)
{
#ifdef CONFIG_RDMA
    QTestState *qts = qtest_init("-machine none");

    migrate_set_capability(qts, "convergence", true);
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'migrate',"
                               "  'arguments': {"
                               "    'uri': 'rdma:127.0.0.1:1' } }"),
                     "RDMA and convergence can't be used together");
    qtest_quit(qts);
#else
    g_test_skip("RDMA is not compiled in");
#endif
}

void cvg_add_parameter_tests(void)
{
    qtest_add_func("convergence/parameters/defaults", test_defaults);
    qtest_add_func("convergence/parameters/values", test_values);
}

void cvg_add_combination_tests(void)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(combinations); i++) {
        g_autofree char *path = g_strdup_printf("convergence/with/%s",
                                                combinations[i].name);

        qtest_add_data_func(path, &combinations[i], test_combination);
    }
    qtest_add_func("convergence/with/background-snapshot",
                   test_background_snapshot);
    qtest_add_func("convergence/with/cpr-transfer", test_cpr_transfer);
    qtest_add_func("convergence/with/cpr-exec", test_cpr_exec);
    qtest_add_func("convergence/with/dirty-limit", test_dirty_limit);
    qtest_add_func("convergence/with/rdma", test_rdma);
}
