/*
 * Test of the quiesced run state: threads, dumps and snapshots that do not end
 *
 * A thread of QEMU is made to hang by stopping it as a debugger would.  The
 * monitor must answer all the same, the failure must have a name, and the
 * state must be reached when the thread goes on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ptrace.h>
#include <sys/wait.h>
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "vm-quiesce-util.h"

static void thread_stop(pid_t tid)
{
    int status;

    g_assert_cmpint(ptrace(PTRACE_SEIZE, tid, NULL, NULL), ==, 0);
    g_assert_cmpint(ptrace(PTRACE_INTERRUPT, tid, NULL, NULL), ==, 0);
    g_assert_cmpint(waitpid(tid, &status, __WALL), ==, tid);
    g_assert_true(WIFSTOPPED(status));
}

static void thread_continue(pid_t tid)
{
    g_assert_cmpint(ptrace(PTRACE_DETACH, tid, NULL, NULL), ==, 0);
}

/* The thread of the first entry in the list that @command returns */
static pid_t thread_id(QTestState *qts, const char *command)
{
    g_autoptr(QDict) rsp = qtest_qmp(qts, "{ 'execute': %s }", command);
    const QListEntry *e = qlist_first(qdict_get_qlist(rsp, "return"));

    return qdict_get_int(qobject_to(QDict, qlist_entry_obj(e)), "thread-id");
}

typedef struct ThreadCase {
    const char *name;
    const char *query;
    const char *participant;
    const char *error;
} ThreadCase;

static const ThreadCase thread_cases[] = {
    { "vcpu", "query-cpus-fast", "vcpus", "vCPU 0 has not stopped" },
    { "iothread", "query-iothreads", "iothreads",
      "iothread 'io' does not answer" },
};

/* A VM one of whose threads hangs, and a failed attempt to quiesce it */
static QTestState *thread_hung(const ThreadCase *c, pid_t *tid, char **token)
{
    QTestState *qts = qtest_init(
        "-object iothread,id=io -blockdev null-co,node-name=disk "
        "-device virtio-blk-pci,drive=disk,iothread=io");
    g_autofree char *error = NULL;

    *tid = thread_id(qts, c->query);
    thread_stop(*tid);
    *token = vmq_start(qts, 200);
    vmq_assert_status(qts, "paused");
    error = vmq_wait_failed(qts, *token, c->participant);
    g_assert_cmpstr(error, ==, c->error);

    vmq_assert_status(qts, "paused");
    vmq_assert_unquiesce_fails(qts, *token, c->error);
    return qts;
}

static void test_thread(const void *opaque)
{
    g_autofree char *token = NULL;
    pid_t tid;
    QTestState *qts = thread_hung(opaque, &tid, &token);

    thread_continue(tid);
    qobject_unref(vmq_wait(qts, "VM_QUIESCED", token));
    vmq_assert_status(qts, "quiesced");
    vmq_unquiesce(qts, token);
    vmq_cont(qts);
    qtest_quit(qts);
}

static void test_thread_quit(const void *opaque)
{
    g_autofree char *token = NULL;
    pid_t tid;
    QTestState *qts = thread_hung(opaque, &tid, &token);

    qtest_qmp_assert_success(qts, "{ 'execute': 'quit' }");
    qtest_qmp_eventwait(qts, "SHUTDOWN");
    /* It is waited for by who traces it */
    g_assert_cmpint(waitpid(tid, NULL, __WALL), ==, tid);
    qtest_wait_qemu(qts);
    qtest_quit(qts);
}

/*
 * A memory dump of a running VM would start it again at its end: wait for it.
 * This one waits until somebody reads it.
 */
static void test_dump(void)
{
    QTestState *qts = qtest_init("-m 16");
    g_autofree char *token = NULL, *error = NULL;
    char buf[65536];
    int fds[2];

    g_assert_cmpint(pipe(fds), ==, 0);
    qtest_qmp_fds_assert_success(qts, &fds[1], 1, "{ 'execute': 'getfd',"
                                 "  'arguments': { 'fdname': 'dump' } }");
    close(fds[1]);
    qtest_qmp_assert_success(qts, "{ 'execute': 'dump-guest-memory',"
                             "  'arguments': { 'paging': false,"
                             "    'protocol': 'fd:dump', 'detach': true } }");
    qtest_qmp_eventwait(qts, "STOP");
    vmq_assert_status(qts, "save-vm");

    token = vmq_start(qts, 200);
    error = vmq_wait_failed(qts, token, "vcpus");
    g_assert_cmpstr(error, ==, "a memory dump has not ended");
    vmq_assert_unquiesce_fails(qts, token, "a memory dump has not ended");

    while (read(fds[0], buf, sizeof(buf)) > 0) {
        /* Only to be read */
    }
    close(fds[0]);
    qobject_unref(vmq_wait(qts, "VM_QUIESCED", token));
    vmq_assert_status(qts, "quiesced");
    vmq_unquiesce(qts, token);
    vmq_assert_status(qts, "paused");
    qtest_quit(qts);
}

/* A snapshot that was asked for at the same time is complete, or not there */
static void test_snapshot(const void *opaque)
{
    const char *command = opaque;
    g_autofree char *image = vmq_make_image("qcow2", VMQ_IMAGE_SIZE);
    QTestState *qts = qtest_initf(
        "-m 16 -blockdev file,node-name=file,filename=%s "
        "-blockdev qcow2,node-name=disk,file=file "
        "-device virtio-blk-pci,drive=disk", image);
    g_autofree char *token = NULL, *before = NULL, *after = NULL;
    QDict *rsp;

    g_free(qtest_hmp(qts, "savevm old"));
    /* In one go, so that the job has not done its work yet */
    qtest_qmp_send(qts, "{ 'execute': %s, 'arguments': {"
                   "  'job-id': 'job', 'tag': %s, 'vmstate': 'disk',"
                   "  'devices': [ 'disk' ] } }",
                   command, g_str_equal(command, "snapshot-load") ? "old"
                                                                  : "new");
    qtest_qmp_send(qts, "{ 'execute': 'vm-quiesce',"
                   "  'arguments': { 'reason': 'test' } }");
    qobject_unref(qtest_qmp_receive(qts));
    rsp = qtest_qmp_receive(qts);
    token = g_strdup(qdict_get_str(qdict_get_qdict(rsp, "return"), "token"));
    qobject_unref(rsp);
    qobject_unref(vmq_wait(qts, "VM_QUIESCED", token));
    vmq_assert_status(qts, "quiesced");

    before = vmq_checksum(image);
    g_usleep(100 * 1000);
    after = vmq_checksum(image);
    g_assert_cmpstr(before, ==, after);
    g_assert_true(vmq_can_write(image, "qcow2"));
    vmq_assert_status(qts, "quiesced");

    vmq_unquiesce(qts, token);
    vmq_assert_status(qts, "paused");
    vmq_cont(qts);
    qtest_quit(qts);
    unlink(image);
}

int main(int argc, char **argv)
{
    int i;

    g_test_init(&argc, &argv, NULL);
    vmq_tmpdir_make();

    for (i = 0; i < ARRAY_SIZE(thread_cases); i++) {
        g_autofree char *hang = g_strdup_printf("vm-quiesce/hung/%s",
                                                thread_cases[i].name);
        g_autofree char *quit = g_strdup_printf("vm-quiesce/hung/%s-quit",
                                                thread_cases[i].name);

        qtest_add_data_func(hang, &thread_cases[i], test_thread);
        qtest_add_data_func(quit, &thread_cases[i], test_thread_quit);
    }
    qtest_add_func("vm-quiesce/dump", test_dump);
    qtest_add_data_func("vm-quiesce/snapshot/save", "snapshot-save",
                        test_snapshot);
    qtest_add_data_func("vm-quiesce/snapshot/load", "snapshot-load",
                        test_snapshot);

    i = g_test_run();
    vmq_tmpdir_remove();
    return i;
}
