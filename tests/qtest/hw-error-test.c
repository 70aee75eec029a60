/*
 * Test of hardware errors: records, policy, and what is done about them
 *
 * Errors are reported as agents do it: what is tested here is not how they are
 * found.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "vm-quiesce-util.h"

static QTestState *start(const char *args)
{
    return qtest_initf("-machine none -nodefaults %s", args);
}

static QDict *report(QTestState *qts, const char *source, const char *severity,
                     const char *label)
{
    return qtest_qmp(qts, "{ 'execute': 'hw-error-report', 'arguments': {"
                     "  'source': %s, 'severity': %s, 'agent': 'test',"
                     "  'label': %s } }", source, severity, label);
}

static void report_host(QTestState *qts, const char *severity,
                        const char *label)
{
    QDict *rsp = report(qts, "host", severity, label);

    g_assert_true(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);
}

/* The data of the next HARDWARE_ERROR */
static QDict *wait_error(QTestState *qts)
{
    QDict *event = qtest_qmp_eventwait_ref(qts, "HARDWARE_ERROR");
    QDict *data = qdict_get_qdict(event, "data");

    qobject_ref(data);
    qobject_unref(event);
    return data;
}

static void add_rule(QTestState *qts, const char *json)
{
    g_autofree char *command = g_strdup_printf(
        "{ 'execute': 'object-add', 'arguments': {"
        "  'qom-type': 'hw-error-rule', %s } }", json);
    QDict *args = qdict_from_jsonf_nofail(command);

    qobject_unref(args);
    qtest_qmp_assert_success(qts, command);
}

static QDict *query(QTestState *qts, int64_t since_id)
{
    return qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'query-hardware-errors',"
        "  'arguments': { 'since-id': %" PRId64 " } }", since_id);
}

/* Without rules: an event, and nothing else */
static void test_no_rule(void)
{
    QTestState *qts = start("");
    QDict *data, *info;

    report_host(qts, "fatal", "DIMM_A2");
    data = wait_error(qts);
    info = qdict_get_qdict(data, "info");
    g_assert_cmpint(qdict_get_int(data, "id"), ==, 1);
    g_assert_cmpstr(qdict_get_str(data, "action"), ==, "report");
    g_assert_cmpstr(qdict_get_str(data, "outcome"), ==, "none");
    g_assert_false(qdict_get_bool(data, "contained"));
    g_assert_false(qdict_haskey(data, "rule"));
    g_assert_cmpstr(qdict_get_str(info, "component"), ==, "DIMM_A2");
    g_assert_cmpstr(qdict_get_str(info, "label"), ==, "DIMM_A2");
    qobject_unref(data);
    vmq_assert_status(qts, "running");
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/hw-error/no-rule", test_no_rule);
    (void)add_rule; (void)query;
    return g_test_run();
}
