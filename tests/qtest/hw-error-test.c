/*
 * Test of hardware errors: records, policy, and what is done about them
 *
 * Errors are reported as agents do it: what is tested here is not how they are
 * found.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw-error-util.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "qobject/qstring.h"
#include "vm-quiesce-util.h"

#define REPORT(args) \
    "{ 'execute': 'hw-error-report', 'arguments': {" \
    "  'agent': 'test', " args " } }"

static QTestState *start(const char *args)
{
    return hwe_start("-machine none -nodefaults %s", args);
}

static void report(QTestState *qts, const char *severity, const char *label)
{
    qtest_qmp_assert_success(qts, REPORT("'source': 'host', 'severity': %s,"
                                         "'label': %s"), severity, label);
}

/* Check the next HARDWARE_ERROR; returns its number */
static int64_t assert_error(QTestState *qts, const char *label,
                            const char *action, const char *outcome)
{
    QDict *data = hwe_event(qts, "HARDWARE_ERROR");
    QDict *info = qdict_get_qdict(data, "info");
    int64_t id = qdict_get_int(data, "id");

    g_assert_cmpstr(qdict_get_str(info, "component"), ==, label);
    g_assert_cmpstr(qdict_get_str(data, "action"), ==, action);
    g_assert_cmpstr(qdict_get_str(data, "outcome"), ==, outcome);
    g_assert_cmpint(qdict_get_bool(data, "contained"), ==,
                    g_str_equal(outcome, "quiesced"));
    qobject_unref(data);
    return id;
}

static QDict *query(QTestState *qts, int64_t since_id)
{
    return qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'query-hardware-errors',"
        "  'arguments': { 'since-id': %" PRId64 " } }", since_id);
}

static void assert_log(QTestState *qts, int64_t since_id, int errors,
                       int64_t last_id, int64_t dropped)
{
    QDict *log = query(qts, since_id);

    g_assert_cmpint(qlist_size(qdict_get_qlist(log, "errors")), ==, errors);
    g_assert_cmpint(qdict_get_int(log, "last-id"), ==, last_id);
    g_assert_cmpint(qdict_get_int(log, "dropped"), ==, dropped);
    qobject_unref(log);
}

/* Without rules: an event, and nothing else */
static void test_no_rule(void)
{
    QTestState *qts = start("");
    QDict *data;

    report(qts, "fatal", "DIMM_A2");
    data = hwe_event(qts, "HARDWARE_ERROR");
    g_assert_cmpint(qdict_get_int(data, "id"), ==, 1);
    g_assert_cmpstr(qdict_get_str(data, "action"), ==, "report");
    g_assert_cmpstr(qdict_get_str(data, "outcome"), ==, "none");
    g_assert_false(qdict_get_bool(data, "contained"));
    g_assert_false(qdict_haskey(data, "rule"));
    g_assert_false(qdict_haskey(data, "quiesce"));
    qobject_unref(data);
    vmq_assert_status(qts, "running");
    qtest_quit(qts);
}

/* What every source can say comes back as it was said */
static void test_sources(void)
{
    static const char *const infos[] = {
        "'source': 'guest-memory', 'ram-block': 'pc.ram', 'ram-offset': 4096,"
        "'guest-address': 4096, 'host-address': 139637976727552,"
        "'host-physical-address': 8192, 'page-size': 2097152, 'numa-node': 1,"
        "'vcpu': 3, 'action-required': true",
        "'source': 'qemu-memory', 'host-address': 139637976727552",
        "'source': 'kvm', 'reason': 'internal-error', 'vcpu': 1, 'code': 3,"
        "'qom-path': '/machine/unattached/device[0]', 'data': [ 1, 2 ],"
        "'guest-address': 0",
        "'source': 'pcie-aer', 'qom-path': '/machine/peripheral/port',"
        "'guest-address': '0000:00:1c.0', 'correctable-status': 1",
        "'source': 'vfio', 'host-address': '0000:3b:00.1',"
        "'uncorrectable-status': 16384, 'tlp-header': [ 1, 2, 3, 4 ],"
        "'unplug-requested': false",
        "'source': 'block-io', 'qom-path': '/machine/peripheral/disk',"
        "'node-name': 'disk', 'operation': 'write', 'offset': 4096,"
        "'length': 512, 'errno': 5, 'error': 'Input/output error',"
        "'age-ms': 12, 'action': 'stop'",
        "'source': 'block-stall', 'node-name': 'disk', 'operation': 'flush',"
        "'age-ms': 10000, 'ended': false",
        "'source': 'backend', 'type': 'nbd', 'state': 'lost',"
        "'node-name': 'disk', 'chardev': 'c'",
        "'source': 'guest-panic', 'kdump': true, 'action': 'run'",
        "'source': 'watchdog', 'qom-path': '/machine/peripheral/wdt',"
        "'action': 'reset'",
        "'source': 'host', 'subsystem': 'edac', 'label': 'DIMM_A2', 'cpu': 1,"
        "'bank': 7, 'status': 12393906174523604992,"
        "'host-physical-address': 4096",
    };
    static const char *const severities[] = {
        "corrected", "recoverable", "fatal",
    };
    QTestState *qts = start("");
    int i;

    for (i = 0; i < ARRAY_SIZE(infos); i++) {
        g_autofree char *json = g_strdup_printf(
            "{ 'agent': 'test', 'severity': '%s', 'count': %d,"
            "  'component': 'c', 'description': 'd', %s }",
            severities[i % 3], i + 1, infos[i]);
        QDict *info = qdict_from_jsonf_nofail("%p", qobject_from_json(
                                                  json, &error_abort));
        QDict *data;

        qtest_qmp_assert_success(qts, "{ 'execute': 'hw-error-report',"
                                 "  'arguments': %p }",
                                 qobject_ref(QOBJECT(info)));
        data = hwe_event(qts, "HARDWARE_ERROR");
        g_assert_cmpint(qdict_get_int(data, "id"), ==, i + 1);
        g_assert_cmpint(qdict_haskey(data, "last-time"), ==, i > 0);
        g_assert_true(qobject_is_equal(qdict_get(data, "info"),
                                       QOBJECT(info)));
        qobject_unref(data);
        qobject_unref(info);
    }
    assert_log(qts, 0, ARRAY_SIZE(infos), ARRAY_SIZE(infos), 0);
    qtest_quit(qts);
}

typedef struct BadInput {
    const char *args;
    const char *error;
} BadInput;

/* A wrong member is named; nothing is recorded, sent or counted */
static void test_bad_reports(void)
{
    static const BadInput bad[] = {
        { "'source': 'host'", "'severity' is missing" },
        { "'severity': 'fatal'", "'source' is missing" },
        { "'source': 'moon', 'severity': 'fatal'", "'source'" },
        { "'source': 'host', 'severity': 'bad'", "'severity'" },
        { "'source': 'host', 'severity': 'fatal', 'agent': ''", "'agent'" },
        { "'source': 'host', 'severity': 'fatal', 'count': 0", "'count'" },
        { "'source': 'host', 'severity': 'fatal', 'count': -1", "'count'" },
        { "'source': 'host', 'severity': 'fatal', 'count': 1000000001",
          "'count' must be between 1 and 1000000000" },
        { "'source': 'host', 'severity': 'fatal', 'component': ''",
          "'component'" },
        { "'source': 'host', 'severity': 'fatal', 'component': 'a\\nb'",
          "'component' must not have control characters" },
        { "'source': 'host', 'severity': 'fatal', 'description': ''",
          "'description' must have 1 to 1024 bytes" },
        { "'source': 'host', 'severity': 'fatal', 'moon': 1", "'moon'" },
        { "'source': 'host', 'severity': 'fatal', 'label': ''", "'label'" },
        { "'source': 'host', 'severity': 'fatal', 'subsystem': ''",
          "'subsystem'" },
        { "'source': 'host', 'severity': 'fatal', 'cpu': 4294967296",
          "'cpu'" },
        { "'source': 'host', 'severity': 'fatal', 'operation': 'read'",
          "'operation'" },
        { "'source': 'guest-memory', 'severity': 'fatal', 'page-size': 3",
          "'page-size' must be a power of two" },
        { "'source': 'guest-memory', 'severity': 'fatal', 'page-size': 0",
          "'page-size' must be a power of two" },
        { "'source': 'guest-memory', 'severity': 'fatal', 'ram-block': ''",
          "'ram-block'" },
        { "'source': 'qemu-memory', 'severity': 'fatal', 'ram-offset': 1",
          "'ram-offset' requires 'ram-block'" },
        { "'source': 'kvm', 'severity': 'fatal'", "'reason' is missing" },
        { "'source': 'kvm', 'severity': 'fatal', 'reason': 'internal-error',"
          "'qom-path': ''", "'qom-path'" },
        { "'source': 'kvm', 'severity': 'fatal', 'reason': 'internal-error',"
          "'data': [ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,"
          "17 ]", "'data' must have at most 16" },
        { "'source': 'vfio', 'severity': 'fatal', 'host-address': '3b:00.1'",
          "'host-address' expects domain:bus:slot.function" },
        { "'source': 'vfio', 'severity': 'fatal',"
          "'guest-address': '0000:00:20.0'", "'guest-address' expects" },
        { "'source': 'pcie-aer', 'severity': 'fatal',"
          "'guest-address': '0000:00:1c.8'", "'guest-address' expects" },
        { "'source': 'pcie-aer', 'severity': 'fatal', 'qom-path': ''",
          "'qom-path'" },
        { "'source': 'vfio', 'severity': 'fatal', 'tlp-header': [ 1, 2, 3 ]",
          "'tlp-header' must have 4" },
        { "'source': 'block-io', 'severity': 'fatal'",
          "'operation' is missing" },
        { "'source': 'block-io', 'severity': 'fatal', 'operation': 'read',"
          "'errno': 0", "'errno' must be between 1 and 4095" },
        { "'source': 'block-io', 'severity': 'fatal', 'operation': 'read',"
          "'errno': 4096", "'errno' must be between 1 and 4095" },
        { "'source': 'block-io', 'severity': 'fatal', 'operation': 'read',"
          "'offset': 9223372036854775807, 'length': 1", "'offset'" },
        { "'source': 'block-stall', 'severity': 'fatal', 'operation': 'read',"
          "'node-name': ''", "'node-name'" },
        { "'source': 'block-stall', 'severity': 'fatal', 'operation': 'read',"
          "'error': ''", "'error'" },
        { "'source': 'backend', 'severity': 'fatal', 'type': 'nbd'",
          "'state' is missing" },
        { "'source': 'backend', 'severity': 'fatal', 'type': 'nbd',"
          "'state': 'lost', 'chardev': ''", "'chardev'" },
        { "'source': 'watchdog', 'severity': 'fatal', 'action': ''",
          "'action'" },
        { "'source': 'guest-panic', 'severity': 'fatal', 'qom-path': ''",
          "'qom-path'" },
    };
    QTestState *qts = start("-object hw-error-rule,id=all,action=quiesce");
    g_autofree char *name = g_strnfill(256, 'x');
    g_autofree char *text = g_strnfill(1025, 'x');
    QDict *policy, *rule;
    int i;

    for (i = 0; i < ARRAY_SIZE(bad); i++) {
        bool has_agent = strstr(bad[i].args, "'agent'");
        g_autofree char *json = g_strdup_printf(
            "{ 'execute': 'hw-error-report', 'arguments': { %s %s } }",
            has_agent ? "" : "'agent': 'test',", bad[i].args);

        vmq_assert_error(qtest_qmp(qts, "%p", qobject_from_json(json,
                                                                &error_abort)),
                         bad[i].error);
    }
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'hw-error-report',"
                               "  'arguments': { 'source': 'host',"
                               "    'severity': 'fatal' } }"),
                     "'agent' is missing");
    vmq_assert_error(qtest_qmp(qts, REPORT("'source': 'host',"
                                           "'severity': 'fatal',"
                                           "'label': %s"), name), "'label'");
    vmq_assert_error(qtest_qmp(qts, REPORT("'source': 'host',"
                                           "'severity': 'fatal',"
                                           "'description': %s"), text),
                     "'description'");
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'hw-error-clear',"
                               "  'arguments': { 'up-to-id': 1 } }"),
                     "There is no hardware error 1 yet");
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'query-hw-error-policy',"
                               "  'arguments': { 'error': {"
                               "    'source': 'host', 'severity': 'fatal',"
                               "    'count': 0 } } }"), "'count'");

    assert_log(qts, 0, 0, 0, 0);
    hwe_expect_none(qts);
    policy = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'query-hw-error-policy' }");
    rule = qobject_to(QDict, qlist_peek(qdict_get_qlist(policy, "rules")));
    g_assert_cmpint(qdict_get_int(rule, "hits"), ==, 0);
    qobject_unref(policy);
    qtest_quit(qts);
}

/* A wrong rule changes nothing */
static void test_bad_rules(void)
{
    static const BadInput bad[] = {
        { "'id': 'x'", "'action' is missing" },
        { "'id': 'x', 'action': 'fly'", "'action'" },
        { "'id': 'x', 'action': 'stop', 'source': 'moon'", "'source'" },
        { "'id': 'x', 'action': 'stop', 'severity': 'bad'", "'severity'" },
        { "'id': 'x', 'action': 'stop', 'component': ''", "'component'" },
        { "'id': 'x', 'action': 'stop', 'threshold': 0, 'window': 1",
          "'threshold' must be between 1 and 10000" },
        { "'id': 'x', 'action': 'stop', 'threshold': -1", "'threshold'" },
        { "'id': 'x', 'action': 'stop', 'threshold': 2", "'window'" },
        { "'id': 'x', 'action': 'stop', 'window': 2", "'window'" },
        { "'id': 'x', 'action': 'stop', 'stall-limit': 1000",
          "requires source 'block-stall'" },
        { "'id': 'x', 'action': 'inject', 'source': 'kvm'",
          "cannot be injected" },
        { "'id': 'x', 'action': 'stop', 'source': 'kvm', 'severity': 'fatal'",
          "Rule 'old' is for the same errors" },
        { "'id': 'old', 'action': 'stop'", "old" },
        { "'id': 'x', 'action': 'stop', 'moon': 1", "'moon'" },
    };
    QTestState *qts = start("-object hw-error-rule,id=old,action=quiesce,"
                            "source=kvm,severity=fatal");
    QDict *policy;
    int i;

    for (i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autofree char *json = g_strdup_printf(
            "{ 'execute': 'object-add', 'arguments': {"
            "  'qom-type': 'hw-error-rule', %s } }", bad[i].args);

        vmq_assert_error(qtest_qmp(qts, "%p", qobject_from_json(json,
                                                                &error_abort)),
                         bad[i].error);
    }
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'qom-set', 'arguments': {"
                               "  'path': '/objects/old',"
                               "  'property': 'action', 'value': 'stop' } }"),
                     "cannot be changed");

    policy = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'query-hw-error-policy', 'arguments': { 'error': {"
        "  'source': 'kvm', 'severity': 'fatal',"
        "  'reason': 'fail-entry' } } }");
    g_assert_cmpint(qlist_size(qdict_get_qlist(policy, "rules")), ==, 1);
    g_assert_cmpstr(qdict_get_str(policy, "action"), ==, "quiesce");
    g_assert_cmpstr(qdict_get_str(policy, "rule"), ==, "old");
    qobject_unref(policy);
    qtest_quit(qts);
}

/* Rules come and go between errors */
static void test_hot_rules(void)
{
    QTestState *qts = start("");
    int64_t id;

    id = (report(qts, "fatal", "a"), assert_error(qts, "a", "report", "none"));
    hwe_add_rule(qts, "{ 'id': 'r', 'action': 'ignore',"
                 "  'severity': 'fatal' }");
    report(qts, "fatal", "b");
    report(qts, "recoverable", "c");
    g_assert_cmpint(assert_error(qts, "c", "report", "none"), ==, id + 1);

    /* More specific */
    hwe_add_rule(qts, "{ 'id': 's', 'action': 'stop', 'component': 'd' }");
    report(qts, "fatal", "b");
    vmq_assert_status(qts, "running");
    report(qts, "fatal", "d");
    assert_error(qts, "d", "stop", "stopping");
    qobject_unref(hwe_event(qts, "STOP"));
    hwe_assert_order("HARDWARE_ERROR", "STOP");
    vmq_assert_status(qts, "paused");

    /* It is stopped already */
    report(qts, "recoverable", "d");
    assert_error(qts, "d", "stop", "none");
    vmq_cont(qts);

    hwe_remove_rule(qts, "s");
    hwe_remove_rule(qts, "r");
    report(qts, "fatal", "e");
    assert_error(qts, "e", "report", "none");
    vmq_assert_status(qts, "running");
    qtest_quit(qts);
}

/* Corrected errors are a reason to act when there are many */
static void test_threshold(void)
{
    QTestState *qts = start("-object hw-error-rule,id=many,action=stop,"
                            "severity=corrected,threshold=100,window=3600");

    qtest_qmp_assert_success(qts, REPORT("'source': 'host', 'label': 'a',"
                                         "'severity': 'corrected',"
                                         "'count': 98"));
    assert_error(qts, "a", "report", "none");
    report(qts, "corrected", "b");
    assert_error(qts, "b", "report", "none");
    vmq_assert_status(qts, "running");
    report(qts, "corrected", "c");
    assert_error(qts, "c", "stop", "stopping");
    vmq_wait_status(qts, "paused");

    /* Then they are counted anew; and if told so */
    qtest_qmp_assert_success(qts, REPORT("'source': 'host', 'label': 'd',"
                                         "'severity': 'corrected',"
                                         "'count': 99"));
    assert_error(qts, "d", "report", "none");
    qtest_qmp_assert_success(qts, "{ 'execute': 'hw-error-clear' }");
    report(qts, "corrected", "e");
    assert_error(qts, "e", "report", "none");
    qtest_quit(qts);
}

/* Many are one event with their count; others are not kept waiting */
static void test_flood(void)
{
    QTestState *qts = start("");
    int64_t total = 0, id = 0;
    bool seen = false;
    int i;

    for (i = 0; i < 5000; i++) {
        g_autofree char *label = g_strdup_printf("l%d", i % 1000);

        report(qts, "corrected", label);
        if (i == 2500) {
            report(qts, "fatal", "l0");
        }
    }
    while (total < 5000 || !seen) {
        QDict *data = hwe_event(qts, "HARDWARE_ERROR");
        QDict *info = qdict_get_qdict(data, "info");

        g_assert_cmpint(qdict_get_int(data, "id"), >, id);
        id = qdict_get_int(data, "id");
        if (g_str_equal(qdict_get_str(info, "severity"), "fatal")) {
            g_assert_false(seen);
            seen = true;
        } else {
            total += qdict_get_try_int(info, "count", 1);
        }
        qobject_unref(data);
    }
    g_assert_cmpint(total, ==, 5000);
    qtest_quit(qts);
}

/* One that was not connected can tell what it missed */
static void test_reconnect(void)
{
    QTestState *qts = start("");
    QDict *log, *record;
    int i;

    for (i = 0; i < 10; i++) {
        g_autofree char *label = g_strdup_printf("l%d", i);

        report(qts, "fatal", label);
        g_assert_cmpint(assert_error(qts, label, "report", "none"), ==, i + 1);
    }
    assert_log(qts, 0, 10, 10, 0);
    assert_log(qts, 7, 3, 10, 0);
    assert_log(qts, 10, 0, 10, 0);
    assert_log(qts, 999, 0, 10, 0);
    log = query(qts, 7);
    record = qobject_to(QDict, qlist_peek(qdict_get_qlist(log, "errors")));
    g_assert_cmpint(qdict_get_int(record, "id"), ==, 8);
    qobject_unref(log);

    qtest_qmp_assert_success(qts, "{ 'execute': 'hw-error-clear',"
                             "  'arguments': { 'up-to-id': 8 } }");
    assert_log(qts, 0, 2, 10, 0);
    qtest_qmp_assert_success(qts, "{ 'execute': 'hw-error-clear' }");
    assert_log(qts, 0, 0, 10, 0);

    /* More corrected ones than are kept */
    for (i = 0; i < 300; i++) {
        g_autofree char *label = g_strdup_printf("l%d", i);

        report(qts, "corrected", label);
        assert_error(qts, label, "report", "none");
    }
    assert_log(qts, 0, 256, 310, 44);
    assert_log(qts, 60, 250, 310, 0);
    qtest_quit(qts);
}

static QTestState *start_disk(const char *image, const char *debug)
{
    return hwe_start("-machine pc -m 16 "
                     "-object hw-error-rule,id=r,action=quiesce,severity=fatal "
                     "-blockdev file,node-name=file,filename=%s "
                     "-blockdev blkdebug,node-name=debug,image=file%s "
                     "-blockdev raw,node-name=disk,file=debug "
                     "-device virtio-blk-pci,id=dev,drive=disk", image, debug);
}

/* The event comes after the state, and says so */
static void test_quiesce(void)
{
    g_autofree char *image = vmq_make_image("raw", VMQ_IMAGE_SIZE);
    QTestState *qts = start_disk(image, "");
    g_autoptr(QDict) record = NULL, quiesced = NULL, again = NULL;

    report(qts, "fatal", "a");
    record = hwe_event(qts, "HARDWARE_ERROR");
    g_assert_cmpstr(qdict_get_str(record, "rule"), ==, "r");
    quiesced = hwe_expect_quiesced(qts, record);
    g_assert_cmpstr(qdict_get_str(quiesced, "reason"), ==,
                    "Hardware error (host, fatal, a), rule 'r'");
    g_assert_true(vmq_can_write(image, "raw"));

    /* What comes then finds it contained */
    report(qts, "fatal", "b");
    assert_error(qts, "b", "quiesce", "quiesced");
    report(qts, "corrected", "b");
    assert_error(qts, "b", "report", "none");

    hwe_unquiesce(qts, record);
    vmq_cont(qts);

    /* The first of them has the record: it was not waited for more */
    report(qts, "fatal", "a");
    report(qts, "fatal", "a");
    again = hwe_event(qts, "HARDWARE_ERROR");
    g_assert_false(qdict_haskey(qdict_get_qdict(again, "info"), "count"));
    qobject_unref(hwe_expect_quiesced(qts, again));
    qtest_quit(qts);
    unlink(image);
}

/* If the state is not reached, the event says what is missing */
static void test_quiesce_failed(void)
{
    g_autofree char *image = vmq_make_image("raw", VMQ_IMAGE_SIZE);
    QTestState *qts = start_disk(
        image, ",inject-error.0.event=flush_to_disk");
    QDict *data, *quiesce;
    g_autofree char *error = NULL;

    g_free(qtest_hmp(qts, "qemu-io -d /machine/peripheral/dev/virtio-backend "
                     "\"aio_write -q 0 64k\""));
    report(qts, "fatal", "a");
    data = hwe_event(qts, "HARDWARE_ERROR");
    hwe_assert_order("VM_QUIESCE_FAILED", "HARDWARE_ERROR");
    g_assert_cmpstr(qdict_get_str(data, "outcome"), ==, "quiesce-failed");
    g_assert_false(qdict_get_bool(data, "contained"));
    g_assert_true(qdict_haskey(data, "error"));
    quiesce = qdict_get_qdict(data, "quiesce");
    g_assert_cmpstr(qdict_get_str(quiesce, "phase"), ==, "failed");
    error = vmq_participant_error(quiesce, "block");
    g_assert_nonnull(strstr(error, "flush failed"));
    qobject_unref(data);

    report(qts, "fatal", "b");
    assert_error(qts, "b", "quiesce", "quiesce-failed");
    qtest_quit(qts);
    unlink(image);
}

/* Where a VM cannot be quiesced, the event says why */
static void test_quiesce_impossible(void)
{
    QTestState *qts = start("-incoming defer "
                            "-object hw-error-rule,id=r,action=quiesce");
    QDict *data;

    report(qts, "fatal", "a");
    data = hwe_event(qts, "HARDWARE_ERROR");
    g_assert_cmpstr(qdict_get_str(data, "outcome"), ==, "quiesce-failed");
    g_assert_false(qdict_get_bool(data, "contained"));
    g_assert_false(qdict_haskey(data, "quiesce"));
    g_assert_nonnull(strstr(qdict_get_str(data, "error"),
                            "incoming migration"));
    qobject_unref(data);
    vmq_assert_status(qts, "inmigrate");
    qtest_quit(qts);
}

/* A guest that writes its own dump is left alone */
static void test_kdump(void)
{
    QTestState *qts = start("-object hw-error-rule,id=r,action=quiesce");

    qtest_qmp_assert_success(qts, REPORT("'source': 'guest-panic',"
                                         "'severity': 'fatal',"
                                         "'component': 'c', 'kdump': true"));
    assert_error(qts, "c", "report", "none");
    vmq_assert_status(qts, "running");
    qtest_qmp_assert_success(qts, REPORT("'source': 'guest-panic',"
                                         "'severity': 'fatal',"
                                         "'component': 'c',"
                                         "'kdump': false"));
    assert_error(qts, "c", "quiesce", "quiesced");
    hwe_assert_order("VM_QUIESCED", "HARDWARE_ERROR");
    qtest_quit(qts);
}

/* Whatever the rule, an agent's report does not reach the guest */
static void test_agent_inject(void)
{
    QTestState *qts = start("-object hw-error-rule,id=r,action=inject");

    qtest_qmp_assert_success(qts, REPORT("'source': 'guest-memory',"
                                         "'severity': 'fatal',"
                                         "'ram-block': 'b'"));
    assert_error(qts, "b", "report", "none");
    qtest_quit(qts);
}

static void test_hmp(void)
{
    QTestState *qts = start("-object hw-error-rule,id=r,action=stop,"
                            "severity=fatal");
    g_autofree char *text = NULL;

    report(qts, "corrected", "a");
    qtest_qmp_assert_success(qts, REPORT("'source': 'host', 'label': 'b',"
                                         "'severity': 'fatal', 'count': 2,"
                                         "'description': 'words'"));
    assert_error(qts, "a", "report", "none");
    assert_error(qts, "b", "stop", "stopping");
    text = qtest_hmp(qts, "info hw-errors");
    g_assert_nonnull(strstr(text, "Last: 2, dropped: 0, pending: 0"));
    g_assert_nonnull(strstr(text, "host, corrected, a: report, none"));
    g_assert_nonnull(strstr(text, "host, fatal, b, 2 times: stop (r), "
                            "stopping"));
    g_assert_nonnull(strstr(text, "words"));
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    vmq_tmpdir_make();
    qtest_add_func("/hw-error/core/no-rule", test_no_rule);
    qtest_add_func("/hw-error/core/sources", test_sources);
    qtest_add_func("/hw-error/core/bad-reports", test_bad_reports);
    qtest_add_func("/hw-error/core/bad-rules", test_bad_rules);
    qtest_add_func("/hw-error/core/hot-rules", test_hot_rules);
    qtest_add_func("/hw-error/core/threshold", test_threshold);
    qtest_add_func("/hw-error/core/flood", test_flood);
    qtest_add_func("/hw-error/core/reconnect", test_reconnect);
    qtest_add_func("/hw-error/core/quiesce", test_quiesce);
    qtest_add_func("/hw-error/core/quiesce-failed", test_quiesce_failed);
    qtest_add_func("/hw-error/core/quiesce-impossible",
                   test_quiesce_impossible);
    qtest_add_func("/hw-error/core/kdump", test_kdump);
    qtest_add_func("/hw-error/core/agent-inject", test_agent_inject);
    qtest_add_func("/hw-error/core/hmp", test_hmp);
    ret = g_test_run();
    vmq_tmpdir_remove();
    return ret;
}
