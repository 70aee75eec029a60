/*
 * Helpers for tests of hardware errors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw-error-util.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "vm-quiesce-util.h"

typedef struct Event {
    QDict *data;
    char *name;
    bool taken;
} Event;

/* All events, in the order in which they came */
static GPtrArray *events;

static void free_event(void *opaque)
{
    Event *e = opaque;

    qobject_unref(e->data);
    g_free(e->name);
    g_free(e);
}

static bool note_event(QTestState *qts, const char *name, QDict *event,
                       void *opaque)
{
    Event *e = g_new0(Event, 1);

    e->name = g_strdup(name);
    e->data = qdict_haskey(event, "data") ? qdict_get_qdict(event, "data")
                                          : NULL;
    qobject_ref(e->data);
    g_ptr_array_add(events, e);
    return true;
}

const char *hwe_action_name(HweAction action)
{
    static const char *const names[] = {
        [HWE_NONE] = "none", [HWE_IGNORE] = "ignore", [HWE_REPORT] = "report",
        [HWE_INJECT] = "inject", [HWE_STOP] = "stop",
        [HWE_QUIESCE] = "quiesce",
    };

    return names[action];
}

bool hwe_contains(HweAction action)
{
    return action == HWE_STOP || action == HWE_QUIESCE;
}

QTestState *hwe_start(const char *fmt, ...)
{
    QTestState *qts;
    va_list ap;

    va_start(ap, fmt);
    qts = qtest_vinitf(fmt, ap);
    va_end(ap);

    g_clear_pointer(&events, g_ptr_array_unref);
    events = g_ptr_array_new_with_free_func(free_event);
    qtest_qmp_set_event_callback(qts, note_event, NULL);
    return qts;
}

QTestState *hwe_init(const char *args, const char *source, HweAction action)
{
    g_autoptr(GString) command = g_string_new(args);

    if (action != HWE_NONE) {
        g_string_append_printf(command, " -object hw-error-rule,id=rule,"
                               "action=%s", hwe_action_name(action));
    }
    /* Not every source may have a rule for this action of its own */
    if (action != HWE_NONE && action != HWE_INJECT) {
        g_string_append_printf(command, ",source=%s", source);
    }
    return hwe_start("%s", command->str);
}

void hwe_add_rule(QTestState *qts, const char *fmt, ...)
{
    va_list ap;
    QDict *args;

    va_start(ap, fmt);
    args = qdict_from_vjsonf_nofail(fmt, ap);
    va_end(ap);
    qdict_put_str(args, "qom-type", "hw-error-rule");
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-add',"
                             "  'arguments': %p }", args);
}

void hwe_remove_rule(QTestState *qts, const char *id)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'object-del',"
                             "  'arguments': { 'id': %s } }", id);
}

QDict *hwe_event(QTestState *qts, const char *name)
{
    int i = 0;

    while (true) {
        QDict *rsp;
        Event *e;

        for (; i < events->len; i++) {
            e = g_ptr_array_index(events, i);
            if (!e->taken && g_str_equal(e->name, name)) {
                e->taken = true;
                return qobject_ref(e->data);
            }
        }
        rsp = qtest_qmp_receive_dict(qts);
        note_event(qts, qdict_get_str(rsp, "event"), rsp, NULL);
        qobject_unref(rsp);
    }
}

int hwe_count(const char *name)
{
    int i, n = 0;

    for (i = 0; i < events->len; i++) {
        Event *e = g_ptr_array_index(events, i);

        n += g_str_equal(e->name, name);
    }
    return n;
}

static int last_index(const char *name)
{
    int i;

    for (i = events->len - 1; i >= 0; i--) {
        Event *e = g_ptr_array_index(events, i);

        if (g_str_equal(e->name, name)) {
            return i;
        }
    }
    g_error("there was no event %s", name);
}

void hwe_assert_order(const char *first, const char *second)
{
    g_assert_cmpint(last_index(first), <, last_index(second));
}

void hwe_unquiesce(QTestState *qts, QDict *record)
{
    const char *token = qdict_get_str(qdict_get_qdict(record, "quiesce"),
                                      "token");
    g_autoptr(QDict) data = NULL;

    qtest_qmp_assert_success(qts, "{ 'execute': 'vm-unquiesce',"
                             "  'arguments': { 'token': %s } }", token);
    data = hwe_event(qts, "VM_UNQUIESCED");
    g_assert_cmpstr(qdict_get_str(data, "token"), ==, token);
    vmq_assert_status(qts, "paused");
}

void hwe_assert_records(QTestState *qts, int n)
{
    g_autoptr(QDict) log = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'query-hardware-errors' }");

    g_assert_cmpint(qlist_size(qdict_get_qlist(log, "errors")), ==, n);
    g_assert_cmpint(qdict_get_int(log, "last-id"), ==, n);
    g_assert_cmpint(qdict_get_int(log, "pending"), ==, 0);
}

void hwe_expect_none(QTestState *qts)
{
    hwe_assert_records(qts, 0);
    g_assert_cmpint(hwe_count("HARDWARE_ERROR"), ==, 0);
    vmq_assert_status(qts, "running");
}

QDict *hwe_expect_quiesced(QTestState *qts, QDict *record)
{
    QDict *quiesce = qdict_get_qdict(record, "quiesce");
    const char *token = qdict_get_str(quiesce, "token");
    QDict *data;

    g_assert_cmpstr(qdict_get_str(record, "outcome"), ==, "quiesced");
    g_assert_true(qdict_get_bool(record, "contained"));
    g_assert_cmpstr(qdict_get_str(quiesce, "phase"), ==, "quiesced");
    data = hwe_event(qts, "VM_QUIESCED");
    g_assert_cmpstr(qdict_get_str(data, "token"), ==, token);
    hwe_assert_order("VM_QUIESCED", "HARDWARE_ERROR");
    vmq_assert_status(qts, "quiesced");
    return data;
}

QDict *hwe_expect(QTestState *qts, HweAction action, bool injects,
                  const char *stop_state)
{
    g_autoptr(QDict) record = NULL;
    QDict *info;
    const char *outcome = "none";

    if (action == HWE_IGNORE) {
        hwe_expect_none(qts);
        return NULL;
    }

    if (action == HWE_NONE || (action == HWE_INJECT && !injects)) {
        action = HWE_REPORT;
    }
    record = hwe_event(qts, "HARDWARE_ERROR");
    g_assert_cmpstr(qdict_get_str(record, "action"), ==,
                    hwe_action_name(action));
    g_assert_cmpint(qdict_get_bool(record, "contained"), ==,
                    action == HWE_QUIESCE);
    switch (action) {
    case HWE_QUIESCE:
        qobject_unref(hwe_expect_quiesced(qts, record));
        break;
    case HWE_STOP:
        g_assert_cmpstr(qdict_get_str(record, "outcome"), ==, "stopping");
        qobject_unref(hwe_event(qts, "STOP"));
        vmq_assert_status(qts, stop_state);
        break;
    case HWE_INJECT:
        outcome = "injected";
        /* fall through */
    default:
        g_assert_cmpstr(qdict_get_str(record, "outcome"), ==, outcome);
        g_assert_false(qdict_haskey(record, "quiesce"));
        break;
    }
    hwe_assert_records(qts, 1);
    info = qdict_get_qdict(record, "info");
    qobject_ref(info);
    return info;
}

void hwe_add_cases(void (*func)(const void *), const void *data,
                   const char *fmt, ...)
{
    g_autofree char *name = NULL;
    HweAction action;
    va_list ap;

    va_start(ap, fmt);
    name = g_strdup_vprintf(fmt, ap);
    va_end(ap);

    for (action = HWE_NONE; action < HWE_MAX; action++) {
        g_autofree char *path = g_strdup_printf("hw-error/%s/%s", name,
                                                hwe_action_name(action));
        HweCase *c = g_new0(HweCase, 1);

        c->action = action;
        c->data = data;
        qtest_add_data_func_full(path, c, func, g_free);
    }
}
