/*
 * Helpers for tests of the quiesced run state
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "vm-quiesce-util.h"

char *vmq_start(QTestState *qts, int deadline_ms)
{
    QDict *ret = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'vm-quiesce',"
        "  'arguments': { 'reason': 'test', 'deadline-ms': %d } }",
        deadline_ms);
    char *token = g_strdup(qdict_get_str(ret, "token"));

    qobject_unref(ret);
    return token;
}

QDict *vmq_wait(QTestState *qts, const char *event, const char *token)
{
    QDict *rsp = qtest_qmp_eventwait_ref(qts, event);
    QDict *data = qdict_get_qdict(rsp, "data");

    g_assert_cmpstr(qdict_get_str(data, "token"), ==, token);
    qobject_ref(data);
    qobject_unref(rsp);
    return data;
}

char *vmq_quiesce(QTestState *qts)
{
    char *token = vmq_start(qts, 60000);

    qobject_unref(vmq_wait(qts, "VM_QUIESCED", token));
    vmq_assert_status(qts, "quiesced");
    return token;
}

void vmq_unquiesce(QTestState *qts, const char *token)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'vm-unquiesce',"
                             "  'arguments': { 'token': %s } }", token);
    qobject_unref(vmq_wait(qts, "VM_UNQUIESCED", token));
}

void vmq_assert_unquiesce_fails(QTestState *qts, const char *token,
                                const char *text)
{
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'vm-unquiesce',"
                               "  'arguments': { 'token': %s } }", token),
                     text);
}

void vmq_assert_status(QTestState *qts, const char *status)
{
    QDict *ret = qtest_qmp_assert_success_ref(qts,
                                              "{ 'execute': 'query-status' }");

    g_assert_cmpstr(qdict_get_str(ret, "status"), ==, status);
    g_assert_cmpint(qdict_get_bool(ret, "running"), ==,
                    g_str_equal(status, "running"));
    qobject_unref(ret);
}

void vmq_assert_error(QDict *rsp, const char *text)
{
    const char *desc;

    g_assert_true(qdict_haskey(rsp, "error"));
    desc = qdict_get_str(qdict_get_qdict(rsp, "error"), "desc");
    if (!strstr(desc, text)) {
        g_error("\"%s\" does not contain \"%s\"", desc, text);
    }
    qobject_unref(rsp);
}

char *vmq_participant_error(QDict *data, const char *name)
{
    const QListEntry *e;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(data, "participants"), e) {
        QDict *p = qobject_to(QDict, qlist_entry_obj(e));

        if (g_str_equal(qdict_get_str(p, "name"), name)) {
            return g_strdup(qdict_get_str(p, "error"));
        }
    }
    g_error("participant %s is not named", name);
}

int64_t vmq_held_requests(QTestState *qts)
{
    QDict *ret = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'query-vm-quiesce' }");
    int64_t n = qdict_get_int(ret, "held-requests");

    qobject_unref(ret);
    return n;
}

void vmq_ide_write(QTestState *qts, uint8_t byte)
{
    int i;

    qtest_outb(qts, 0x1f6, 0xe0);
    qtest_outb(qts, 0x1f2, 1);
    qtest_outb(qts, 0x1f3, 0);
    qtest_outb(qts, 0x1f4, 0);
    qtest_outb(qts, 0x1f5, 0);
    qtest_outb(qts, 0x1f7, 0x30);
    for (i = 0; i < 256; i++) {
        qtest_outw(qts, 0x1f0, byte << 8 | byte);
    }
}
