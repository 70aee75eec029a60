/*
 * Helpers for tests of the quiesced run state
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "vm-quiesce-util.h"

static char *tmpdir;

void vmq_tmpdir_make(void)
{
    tmpdir = g_dir_make_tmp("vm-quiesce-test-XXXXXX", NULL);
    g_assert_nonnull(tmpdir);
}

void vmq_tmpdir_remove(void)
{
    rmdir(tmpdir);
    g_free(tmpdir);
}

char *vmq_tmpfile(const char *name)
{
    return g_strdup_printf("%s/%s", tmpdir, name);
}

int vmq_run(char **argv)
{
    g_autofree char *err = NULL;
    int status;

    g_assert_true(g_spawn_sync(NULL, argv, NULL,
                               G_SPAWN_SEARCH_PATH |
                               G_SPAWN_STDOUT_TO_DEV_NULL,
                               NULL, NULL, NULL, &err, &status, NULL));
    return status;
}

char *vmq_qemu_img(void)
{
    const char *path = getenv("QTEST_QEMU_IMG");

    g_assert_nonnull(path);
    return (char *)path;
}

char *vmq_make_image(const char *format, int64_t bytes)
{
    g_autofree char *size = g_strdup_printf("%" PRId64, bytes);
    char *path = vmq_tmpfile("image");
    char *argv[] = { vmq_qemu_img(), (char *)"create", (char *)"-q",
                     (char *)"-f", (char *)format, path, size, NULL };

    g_assert_cmpint(vmq_run(argv), ==, 0);
    return path;
}

bool vmq_can_write(const char *path, const char *format)
{
    /* One write, of what is there already in a new image: zeroes */
    char *argv[] = { vmq_qemu_img(), (char *)"bench", (char *)"-w",
                     (char *)"-q", (char *)"-c", (char *)"1",
                     (char *)"--pattern=0", (char *)"-o", (char *)"8M",
                     (char *)"-f", (char *)format, (char *)path, NULL };

    return vmq_run(argv) == 0;
}

char *vmq_checksum(const char *path)
{
    g_autofree char *data = NULL;
    gsize len;

    g_assert_true(g_file_get_contents(path, &data, &len, NULL));
    return g_compute_checksum_for_data(G_CHECKSUM_SHA256, (guchar *)data, len);
}

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

void vmq_wait_migration(QTestState *qts, const char *expected)
{
    while (true) {
        g_autoptr(QDict) ret = qtest_qmp_assert_success_ref(
            qts, "{ 'execute': 'query-migrate' }");
        const char *status = qdict_get_try_str(ret, "status");

        if (!g_strcmp0(status, expected)) {
            break;
        }
        g_assert_cmpstr(status, !=, "failed");
        g_assert_cmpstr(status, !=, "completed");
        g_usleep(1000);
    }
}

void vmq_migrate(QTestState *qts, const char *uri)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate',"
                             "  'arguments': { 'uri': %s } }", uri);
    vmq_wait_migration(qts, "completed");
}

void vmq_wait_status(QTestState *qts, const char *status)
{
    while (true) {
        g_autoptr(QDict) ret = qtest_qmp_assert_success_ref(
            qts, "{ 'execute': 'query-status' }");

        if (g_str_equal(qdict_get_str(ret, "status"), status)) {
            break;
        }
        g_usleep(1000);
    }
}
