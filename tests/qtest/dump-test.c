/*
 * Test of the end of a detached memory dump
 *
 * The thread that dumps is made to hang when it closes the file, by stopping it
 * as a debugger would: that is when a file system with much to write keeps it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "qobject/qdict.h"
#include "vm-quiesce-util.h"

typedef struct Dump {
    QTestState *qts;
    pid_t tid;
    GThread *reader;
} Dump;

/* The thread of this name; 0 if it has not got it yet */
static pid_t thread_id(QTestState *qts, const char *name)
{
    g_autofree char *tasks = g_strdup_printf("/proc/%d/task", qtest_pid(qts));
    GDir *dir = g_dir_open(tasks, 0, NULL);
    const char *task;
    pid_t tid = 0;

    while (!tid && (task = g_dir_read_name(dir))) {
        g_autofree char *path = g_strdup_printf("%s/%s/comm", tasks, task);
        g_autofree char *comm = NULL;

        if (g_file_get_contents(path, &comm, NULL, NULL) &&
            g_str_equal(g_strchomp(comm), name)) {
            tid = atoi(task);
        }
    }
    g_dir_close(dir);
    return tid;
}

static void thread_wait_stop(pid_t tid)
{
    int status;

    g_assert_cmpint(waitpid(tid, &status, __WALL), ==, tid);
    g_assert_true(WIFSTOPPED(status));
}

/* Whether a thread that has stopped is about to make this system call */
static bool thread_enters(pid_t tid, uint64_t nr)
{
    struct __ptrace_syscall_info info;

    g_assert_cmpint(ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info),
                    >, 0);
    return info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr == nr;
}

static void *read_all(void *opaque)
{
    int fd = GPOINTER_TO_INT(opaque);
    char buf[65536];

    while (read(fd, buf, sizeof(buf)) > 0) {
        /* Only to be read */
    }
    close(fd);
    return NULL;
}

/* A VM, and a dump of it that is written, but whose file is open */
static void dump_start(Dump *d, const char *args)
{
    int fds[2];

    d->qts = qtest_initf("-m 16 -name vm,debug-threads=on %s", args);
    g_assert_cmpint(pipe(fds), ==, 0);
    qtest_qmp_fds_assert_success(d->qts, &fds[1], 1, "{ 'execute': 'getfd',"
                                 "  'arguments': { 'fdname': 'dump' } }");
    close(fds[1]);
    qtest_qmp_assert_success(d->qts, "{ 'execute': 'dump-guest-memory',"
                             "  'arguments': { 'paging': false,"
                             "    'protocol': 'fd:dump', 'detach': true } }");

    /* It does not end before somebody reads it */
    while (!(d->tid = thread_id(d->qts, "dump_thread"))) {
        g_usleep(1000);
    }
    g_assert_cmpint(ptrace(PTRACE_SEIZE, d->tid, NULL, PTRACE_O_TRACESYSGOOD),
                    ==, 0);
    g_assert_cmpint(ptrace(PTRACE_INTERRUPT, d->tid, NULL, NULL), ==, 0);
    thread_wait_stop(d->tid);
    d->reader = g_thread_new("reader", read_all, GINT_TO_POINTER(fds[0]));
    do {
        g_assert_cmpint(ptrace(PTRACE_SYSCALL, d->tid, NULL, NULL), ==, 0);
        thread_wait_stop(d->tid);
    } while (!thread_enters(d->tid, SYS_close));
}

static void dump_go_on(Dump *d)
{
    g_assert_cmpint(ptrace(PTRACE_DETACH, d->tid, NULL, NULL), ==, 0);
    g_thread_join(d->reader);
}

/* Not detached; returns the reply */
static QDict *dump_again(Dump *d, const char *path)
{
    g_autofree char *protocol = g_strdup_printf("file:%s", path);

    return qtest_qmp(d->qts, "{ 'execute': 'dump-guest-memory',"
                     "  'arguments': { 'paging': false, 'protocol': %s } }",
                     protocol);
}

/* When a dump is said to have ended, nothing is in the way of the next one */
static void dump_ends(Dump *d, const char *path)
{
    QDict *rsp;

    dump_go_on(d);
    qtest_qmp_eventwait(d->qts, "DUMP_COMPLETED");
    rsp = dump_again(d, path);
    g_assert_true(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);
    qtest_qmp_eventwait(d->qts, "DUMP_COMPLETED");
}

/* Two dumps are not mixed up */
static void test_again(void)
{
    g_autofree char *path = vmq_tmpfile("dump");
    Dump d;

    dump_start(&d, "-S");
    vmq_assert_error(dump_again(&d, path), "There is a dump in process");
    dump_ends(&d, path);
    vmq_cont(d.qts);
    qtest_quit(d.qts);
    unlink(path);
}

/* A dump that has not ended does not start a VM that was quiesced meanwhile */
static void test_quiesce(void)
{
    g_autofree char *path = vmq_tmpfile("dump");
    g_autofree char *token = NULL;
    Dump d;

    dump_start(&d, "");
    token = vmq_start(d.qts, 60000);
    g_usleep(100 * 1000);
    vmq_assert_status(d.qts, "save-vm");
    dump_ends(&d, path);
    vmq_wait_status(d.qts, "quiesced");

    vmq_unquiesce(d.qts, token);
    g_usleep(100 * 1000);
    vmq_assert_status(d.qts, "paused");
    vmq_cont(d.qts);
    qtest_quit(d.qts);
    unlink(path);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    vmq_tmpdir_make();
    qtest_add_func("/dump/detached/again", test_again);
    qtest_add_func("/dump/detached/quiesce", test_quiesce);
    ret = g_test_run();
    vmq_tmpdir_remove();
    return ret;
}
