/*
 * Test of the quiesced run state: block jobs and exports
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "vm-quiesce-util.h"

typedef struct JobCase {
    const char *name;
    const char *command;
    /* The job's state when the VM is quiesced */
    const char *state;
    int64_t speed;
    bool auto_finalize;
} JobCase;

static const JobCase job_cases[] = {
    { "mirror", "blockdev-mirror", "running", 65536, true },
    { "mirror-ready", "blockdev-mirror", "ready", 0, true },
    { "backup", "blockdev-backup", "running", 65536, true },
    { "backup-pending", "blockdev-backup", "pending", 0, false },
};

static void wait_job(QTestState *qts, const char *state)
{
    while (true) {
        g_autoptr(QDict) rsp = qtest_qmp(qts, "{ 'execute': 'query-jobs' }");
        const QListEntry *e = qlist_first(qdict_get_qlist(rsp, "return"));
        QDict *job = qobject_to(QDict, qlist_entry_obj(e));

        if (g_str_equal(qdict_get_str(job, "status"), state)) {
            break;
        }
        g_usleep(1000);
    }
}

/* The only entry of a list that query-vm-quiesce returns */
static QDict *only_entry(QTestState *qts, const char *list)
{
    g_autoptr(QDict) ret = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'query-vm-quiesce' }");
    QList *entries = qdict_get_qlist(ret, list);
    QDict *entry;

    g_assert_cmpint(qlist_size(entries), ==, 1);
    entry = qobject_to(QDict, qlist_entry_obj(qlist_first(entries)));
    return qobject_ref(entry);
}

static void assert_empty(QTestState *qts, const char *query)
{
    g_autoptr(QDict) rsp = qtest_qmp(qts, "{ 'execute': %s }", query);

    g_assert_true(qlist_empty(qdict_get_qlist(rsp, "return")));
}

static void test_job(const void *opaque)
{
    const JobCase *c = opaque;
    g_autofree char *image = vmq_make_image("qcow2", VMQ_IMAGE_SIZE);
    g_autofree char *target = g_strdup_printf("%s-target", image);
    QTestState *qts = qtest_initf(
        "-machine pc -blockdev file,node-name=file,filename=%s "
        "-blockdev qcow2,node-name=disk,file=file "
        "-device virtio-blk-pci,id=dev,drive=disk", image);
    g_autofree char *token = NULL, *before = NULL, *after = NULL;
    QDict *rsp;

    g_assert_true(g_file_set_contents(target, "", 0, NULL));
    g_assert_cmpint(truncate(target, VMQ_IMAGE_SIZE), ==, 0);
    g_free(qtest_hmp(qts, "qemu-io -d /machine/peripheral/dev/virtio-backend "
                     "\"write -q -P 1 0 8M\""));
    qtest_qmp_assert_success(qts, "{ 'execute': 'blockdev-add', 'arguments': {"
                             "  'driver': 'file', 'node-name': 'target',"
                             "  'filename': %s } }", target);
    rsp = qtest_qmp(qts, "{ 'execute': %s, 'arguments': {"
                    "  'job-id': 'job', 'device': 'disk', 'target': 'target',"
                    "  'sync': 'full', 'speed': %" PRId64 ","
                    "  'auto-finalize': %i } }",
                    c->command, c->speed, c->auto_finalize);
    g_assert_true(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);
    wait_job(qts, c->state);

    token = vmq_quiesce(qts);
    assert_empty(qts, "query-jobs");
    rsp = only_entry(qts, "cancelled-jobs");
    g_assert_cmpstr(qdict_get_str(rsp, "id"), ==, "job");
    g_assert_cmpstr(qdict_get_str(rsp, "status"), ==, c->state);
    qobject_unref(rsp);

    before = vmq_checksum(target);
    g_assert_true(vmq_can_write(image, "qcow2"));
    g_assert_true(vmq_can_write(target, "raw"));
    vmq_abuse(qts, image);
    after = vmq_checksum(target);
    g_assert_cmpstr(before, ==, after);

    vmq_unquiesce(qts, token);
    vmq_cont(qts);
    qtest_quit(qts);
    unlink(image);
    unlink(target);
}

/*
 * Jobs drain their nodes when they end, so they must not be ended while a
 * guest's request hangs, and must not keep the process.
 */
static void test_job_hung(const void *opaque)
{
    bool quit = opaque;
    g_autofree char *image = vmq_make_image("raw", VMQ_IMAGE_SIZE);
    g_autofree char *sock = vmq_tmpfile("nbd");
    GPid server = vmq_start_nbd(image, sock);
    QTestState *qts = qtest_initf(
        "-machine pc -blockdev nbd,node-name=disk,export=n,server.type=unix,"
        "server.path=%s -device ide-hd,id=dev,drive=disk "
        "-blockdev null-co,node-name=target,size=%d", sock, VMQ_IMAGE_SIZE);
    g_autofree char *token = NULL, *error = NULL;
    QDict *job;

    qtest_qmp_assert_success(qts, "{ 'execute': 'blockdev-mirror',"
                             "  'arguments': { 'job-id': 'job',"
                             "    'device': 'disk', 'target': 'target',"
                             "    'sync': 'full' } }");
    wait_job(qts, "ready");
    kill(server, SIGSTOP);
    g_free(qtest_hmp(qts, "qemu-io -d /machine/peripheral/dev "
                     "\"aio_write -q -P 90 0 64k\""));

    token = vmq_start(qts, 200);
    error = vmq_wait_hung(qts, token, "block-jobs");
    g_assert_cmpstr(error, ==, "job 'job' (mirror) has not ended");
    vmq_assert_status(qts, "paused");

    if (quit) {
        qtest_qmp_assert_success(qts, "{ 'execute': 'quit' }");
        qtest_wait_qemu(qts);
    } else {
        kill(server, SIGCONT);
        qobject_unref(vmq_wait(qts, "VM_QUIESCED", token));
        job = only_entry(qts, "cancelled-jobs");
        g_assert_cmpstr(qdict_get_str(job, "status"), ==, "ready");
        qobject_unref(job);
        g_assert_cmpint(vmq_byte_at(image, 0), ==, 90);
        vmq_unquiesce(qts, token);
        vmq_cont(qts);
    }
    qtest_quit(qts);
    vmq_stop_daemon(server);
    unlink(image);
    unlink(sock);
}

/* Jobs of a group end together: one waits for the other */
static void test_job_group(void)
{
    g_autofree char *image = vmq_make_image("raw", VMQ_IMAGE_SIZE);
    QTestState *qts = qtest_initf(
        "-machine pc -blockdev file,node-name=disk,filename=%s "
        "-device virtio-blk-pci,drive=disk "
        "-blockdev null-co,node-name=t1,size=%d "
        "-blockdev null-co,node-name=t2,size=%d",
        image, VMQ_IMAGE_SIZE, VMQ_IMAGE_SIZE);
    g_autofree char *token = NULL;
    QDict *ret;

    qtest_qmp_assert_success(
        qts, "{ 'execute': 'transaction', 'arguments': {"
        "  'properties': { 'completion-mode': 'grouped' },"
        "  'actions': [ {"
        "    'type': 'blockdev-backup', 'data': { 'job-id': 'done',"
        "      'device': 'disk', 'target': 't1', 'sync': 'full' } }, {"
        "    'type': 'blockdev-backup', 'data': { 'job-id': 'slow',"
        "      'device': 'disk', 'target': 't2', 'sync': 'full',"
        "      'speed': 65536 } } ] } }");
    while (true) {
        g_autoptr(QDict) rsp = qtest_qmp(qts, "{ 'execute': 'query-jobs' }");
        g_autoptr(GString) json = qobject_to_json(QOBJECT(rsp));

        if (strstr(json->str, "waiting")) {
            break;
        }
        g_usleep(1000);
    }

    token = vmq_quiesce(qts);
    ret = qtest_qmp_assert_success_ref(qts,
                                       "{ 'execute': 'query-vm-quiesce' }");
    g_assert_cmpint(qlist_size(qdict_get_qlist(ret, "cancelled-jobs")), ==, 2);
    qobject_unref(ret);
    assert_empty(qts, "query-jobs");
    g_assert_true(vmq_can_write(image, "raw"));
    vmq_unquiesce(qts, token);
    qtest_quit(qts);
    unlink(image);
}

static void test_export(const void *opaque)
{
    bool writable = opaque;
    g_autofree char *image = vmq_make_image("raw", VMQ_IMAGE_SIZE);
    g_autofree char *sock = vmq_tmpfile("export");
    g_autofree char *uri = g_strdup_printf("nbd+unix:///disk?socket=%s", sock);
    char *argv[] = { vmq_qemu_img(), (char *)"info", uri, NULL };
    QTestState *qts = qtest_initf(
        "-machine pc -blockdev file,node-name=disk,filename=%s "
        "-device virtio-blk-pci,drive=disk,share-rw=on", image);
    g_autofree char *token = NULL;
    QDict *rsp;

    qtest_qmp_assert_success(qts, "{ 'execute': 'nbd-server-start',"
                             "  'arguments': { 'addr': { 'type': 'unix',"
                             "    'data': { 'path': %s } } } }", sock);
    qtest_qmp_assert_success(qts, "{ 'execute': 'block-export-add',"
                             "  'arguments': { 'type': 'nbd', 'id': 'e',"
                             "    'node-name': 'disk', 'writable': %i } }",
                             writable);
    g_assert_cmpint(vmq_run(argv), ==, 0);

    token = vmq_quiesce(qts);
    assert_empty(qts, "query-block-exports");
    rsp = only_entry(qts, "closed-exports");
    g_assert_cmpstr(qdict_get_str(rsp, "id"), ==, "e");
    g_assert_cmpstr(qdict_get_str(rsp, "node-name"), ==, "disk");
    qobject_unref(rsp);
    g_assert_cmpint(vmq_run(argv), !=, 0);
    g_assert_true(vmq_can_write(image, "raw"));

    vmq_unquiesce(qts, token);
    qtest_quit(qts);
    unlink(image);
    unlink(sock);
}

int main(int argc, char **argv)
{
    int i, ret;

    g_test_init(&argc, &argv, NULL);
    vmq_tmpdir_make();

    for (i = 0; i < ARRAY_SIZE(job_cases); i++) {
        g_autofree char *path = g_strdup_printf("vm-quiesce/job/%s",
                                                job_cases[i].name);

        qtest_add_data_func(path, &job_cases[i], test_job);
    }
    qtest_add_data_func("vm-quiesce/job/hung", (void *)false, test_job_hung);
    qtest_add_data_func("vm-quiesce/job/hung-quit", (void *)true,
                        test_job_hung);
    qtest_add_func("vm-quiesce/job/group", test_job_group);
    qtest_add_data_func("vm-quiesce/export/read-only", (void *)false,
                        test_export);
    qtest_add_data_func("vm-quiesce/export/writable", (void *)true,
                        test_export);

    ret = g_test_run();
    vmq_tmpdir_remove();
    return ret;
}
