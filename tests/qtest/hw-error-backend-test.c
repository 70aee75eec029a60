/*
 * Test of the errors of processes that devices depend on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include "backends/tpm/tpm_ioctl.h"
#include "hw-error-util.h"
#include "libqos/virtio.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qobject/qlist.h"
#include "vm-quiesce-util.h"

static void check_info(QDict *info, const char *type, const char *state,
                       const char *severity, const char *path)
{
    g_assert_cmpstr(qdict_get_try_str(info, "source"), ==, "backend");
    g_assert_cmpstr(qdict_get_try_str(info, "type"), ==, type);
    g_assert_cmpstr(qdict_get_try_str(info, "state"), ==, state);
    g_assert_cmpstr(qdict_get_try_str(info, "severity"), ==, severity);
    g_assert_cmpstr(qdict_get_try_str(info, "qom-path"), ==, path);
    g_assert_cmpstr(qdict_get_try_str(info, "component"), ==, path);
    g_assert_cmpstr(qdict_get_try_str(info, "chardev"), ==, "c");
    g_assert_false(qdict_haskey(info, "node-name"));
}

static void wait_info(QTestState *qts, const char *type, const char *state,
                      const char *severity, const char *path)
{
    g_autoptr(QDict) record = hwe_event(qts, "HARDWARE_ERROR");

    check_info(qdict_get_qdict(record, "info"), type, state, severity, path);
}

/* vhost-user */

#define BACK_END_PATH "/machine/peripheral/dev/virtio-backend"

typedef struct BackEnd {
    char *image, *sock;
    GPid pid;
} BackEnd;

static void back_end_run(BackEnd *b)
{
    g_autofree char *args = g_strdup_printf(
        "--blockdev file,node-name=n,filename=%s "
        "--export vhost-user-blk,id=e,addr.type=unix,addr.path=%s,"
        "node-name=n,writable=on,num-queues=2", b->image, b->sock);

    b->pid = vmq_start_daemon(args);
}

static void back_end_start(BackEnd *b)
{
    b->image = vmq_make_image("raw", VMQ_IMAGE_SIZE);
    b->sock = vmq_tmpfile("vhost-user");
    back_end_run(b);
}

/* It has no time to say good-bye */
static void back_end_kill(BackEnd *b)
{
    g_autofree char *pidfile = vmq_tmpfile("pid");

    kill(b->pid, SIGKILL);
    g_assert_cmpint(waitpid(b->pid, NULL, 0), ==, b->pid);
    g_spawn_close_pid(b->pid);
    b->pid = 0;
    unlink(pidfile);
}

static void back_end_end(BackEnd *b)
{
    if (b->pid) {
        vmq_stop_daemon(b->pid);
    }
    unlink(b->image);
    unlink(b->sock);
    g_free(b->image);
    g_free(b->sock);
}

static char *vhost_user_args(const BackEnd *b, const char *reconnect,
                             const char *device)
{
    return g_strdup_printf(
        "-machine pc,memory-backend=mem -m 64 "
        "-object memory-backend-memfd,id=mem,size=64M,share=on "
        "-chardev socket,id=c,path=%s%s %s", b->sock, reconnect, device);
}

#define BLK "-device vhost-user-blk-pci,id=dev,addr=4,chardev=c"

/*
 * What has become of the memory that it shares with the guest, and of the
 * requests that it had, is not known: the VM is stopped, but not contained.
 */
static void check_not_contained(QTestState *qts, QDict *record)
{
    QDict *quiesce = qdict_get_qdict(record, "quiesce");
    g_autofree char *error = vmq_participant_error(quiesce, "vcpus");
    g_autoptr(QDict) data = hwe_event(qts, "VM_QUIESCE_FAILED");

    g_assert_nonnull(strstr(error, "back end did not stop"));
    g_assert_cmpstr(qdict_get_try_str(record, "action"), ==, "quiesce");
    g_assert_cmpstr(qdict_get_try_str(record, "outcome"), ==, "quiesce-failed");
    g_assert_false(qdict_get_bool(record, "contained"));
    g_assert_true(qdict_haskey(record, "error"));
    g_assert_cmpstr(qdict_get_str(quiesce, "token"), ==,
                    qdict_get_str(data, "token"));
    hwe_assert_order("VM_QUIESCE_FAILED", "HARDWARE_ERROR");
    vmq_assert_status(qts, "paused");
}

/* Nothing connects it again: the guest cannot go on without its disk */
static void test_blk_lost(const void *opaque)
{
    HweAction action = GPOINTER_TO_INT(opaque);
    g_autoptr(QDict) info = NULL;
    g_autofree char *args = NULL;
    QTestState *qts;
    BackEnd b;

    back_end_start(&b);
    args = vhost_user_args(&b, "", BLK);
    qts = hwe_init(args, "backend", action);
    back_end_kill(&b);
    if (action == HWE_IGNORE) {
        /* There is nothing else to wait for */
        while (qtest_qom_get_bool(qts, "/chardevs/c", "connected")) {
            g_usleep(1000);
        }
    }
    if (action == HWE_QUIESCE) {
        g_autoptr(QDict) record = hwe_event(qts, "HARDWARE_ERROR");

        check_not_contained(qts, record);
        info = qobject_ref(qdict_get_qdict(record, "info"));
    } else {
        info = hwe_expect(qts, action, false, "paused");
    }
    if (info) {
        check_info(info, "vhost-user", "lost", "fatal", BACK_END_PATH);
    }
    if (!hwe_contains(action)) {
        vmq_assert_status(qts, "running");
    }
    qtest_quit(qts);
    back_end_end(&b);
}

/* It is connected again when it is back, as often as that happens */
static void test_blk_back(void)
{
    g_autofree char *args = NULL;
    QTestState *qts;
    BackEnd b;
    int i;

    back_end_start(&b);
    args = vhost_user_args(&b, ",reconnect-ms=20", BLK);
    qts = hwe_init(args, "backend", HWE_NONE);
    for (i = 0; i < 3; i++) {
        back_end_kill(&b);
        wait_info(qts, "vhost-user", "lost", "recoverable", BACK_END_PATH);
        back_end_run(&b);
        wait_info(qts, "vhost-user", "back", "corrected", BACK_END_PATH);
    }
    hwe_assert_records(qts, 6);
    vmq_assert_status(qts, "running");
    qtest_quit(qts);
    back_end_end(&b);
}

/* A guest that was stopped for it goes on with the one that is back */
static void test_blk_quiesce_back(void)
{
    g_autoptr(QDict) record = NULL;
    g_autofree char *args = NULL;
    QTestState *qts;
    BackEnd b;
    VmqVirtio v;

    back_end_start(&b);
    args = vhost_user_args(&b, ",reconnect-ms=20", BLK);
    qts = hwe_init(args, "backend", HWE_NONE);
    vmq_virtio_start(&v, qts, 1);
    qtest_qmp_assert_success(
        qts, "{ 'execute': 'object-add', 'arguments': {"
        "  'qom-type': 'hw-error-rule', 'id': 'rule', 'action': 'quiesce',"
        "  'source': 'backend', 'severity': 'recoverable' } }");

    back_end_kill(&b);
    record = hwe_event(qts, "HARDWARE_ERROR");
    check_info(qdict_get_qdict(record, "info"), "vhost-user", "lost",
               "recoverable", BACK_END_PATH);
    check_not_contained(qts, record);

    back_end_run(&b);
    wait_info(qts, "vhost-user", "back", "corrected", BACK_END_PATH);
    vmq_assert_status(qts, "paused");
    hwe_unquiesce(qts, record);
    qtest_qmp_assert_success(qts, "{ 'execute': 'cont' }");
    vmq_virtio_blk_write(&v);
    while (vmq_byte_at(b.image, 0) != 0x5a) {
        g_usleep(1000);
    }
    vmq_virtio_cleanup(&v);
    qtest_quit(qts);
    back_end_end(&b);
}

/*
 * It does not answer when the VM is being quiesced: that is known when
 * somebody waits for it.
 */
static void test_blk_hung(void)
{
    g_autofree char *args = NULL, *token = NULL;
    QTestState *qts;
    VmqVirtio v;
    BackEnd b;

    back_end_start(&b);
    args = vhost_user_args(&b, "", BLK);
    qts = hwe_init(args, "backend", HWE_NONE);
    vmq_virtio_start(&v, qts, 1);
    kill(b.pid, SIGSTOP);
    token = vmq_start(qts, 200);
    qobject_unref(hwe_event(qts, "VM_QUIESCE_FAILED"));
    hwe_assert_records(qts, 0);

    qvirtio_reset(&v.dev->vdev);
    wait_info(qts, "vhost-user", "lost", "fatal", BACK_END_PATH);
    wait_info(qts, "vhost-user", "hung", "fatal", BACK_END_PATH);
    vmq_virtio_cleanup(&v);
    qtest_quit(qts);
    back_end_end(&b);
}

/* Devices that have no interest in the connection of their own */
static void test_fs_lost(void)
{
    g_autofree char *args = NULL;
    QTestState *qts;
    BackEnd b;
    VmqVirtio v;

    /* All that is asked of it is a vhost-user connection */
    back_end_start(&b);
    args = vhost_user_args(&b, "",
                           "-device vhost-user-fs-pci,id=dev,addr=4,tag=t,"
                           "chardev=c");
    qts = hwe_init(args, "backend", HWE_NONE);
    vmq_virtio_start(&v, qts, 2);
    back_end_kill(&b);
    wait_info(qts, "vhost-user", "lost", "fatal", BACK_END_PATH);
    hwe_assert_records(qts, 1);
    vmq_virtio_cleanup(&v);
    qtest_quit(qts);
    back_end_end(&b);
}

/* A guest can do without a network */
static void test_net(void)
{
    g_autofree char *args = NULL;
    QTestState *qts;
    BackEnd b;

    back_end_start(&b);
    args = vhost_user_args(&b, ",reconnect-ms=20",
                           "-netdev vhost-user,id=n,chardev=c "
                           "-device virtio-net-pci,id=dev,netdev=n,mac="
                           "52:54:00:12:34:56");
    qts = hwe_init(args, "backend", HWE_NONE);
    back_end_kill(&b);
    qobject_unref(hwe_event(qts, "NETDEV_VHOST_USER_DISCONNECTED"));
    wait_info(qts, "vhost-user", "lost", "recoverable", BACK_END_PATH);
    back_end_run(&b);
    qobject_unref(hwe_event(qts, "NETDEV_VHOST_USER_CONNECTED"));
    wait_info(qts, "vhost-user", "back", "corrected", BACK_END_PATH);
    vmq_assert_status(qts, "running");
    qtest_quit(qts);
    back_end_end(&b);
}

/* TPM emulators */

#define TPM_PATH "/machine/peripheral/tpm"

/* An emulator that can be set up, and then is lost */
typedef struct Tpm {
    char *sock;
    int listener, ctrl, data;
    GThread *thread;
} Tpm;

static void tpm_answer_data(int fd)
{
    /* A header of TPM 2, and an error */
    static const uint8_t answer[] = { 0x80, 0x01, 0, 0, 0, 10, 0, 0, 1, 1 };
    uint8_t request[4096];

    if (read(fd, request, sizeof(request)) > 0) {
        g_assert_cmpint(write(fd, answer, sizeof(answer)), ==, sizeof(answer));
    }
}

/* Reads one command, with the data channel if it has come; false at the end */
static bool tpm_read_command(Tpm *t, uint32_t *command)
{
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec iov = { command, sizeof(*command) };
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control,
        .msg_controllen = sizeof(control),
    };

    if (recvmsg(t->ctrl, &msg, 0) != sizeof(*command)) {
        return false;
    }
    if (CMSG_FIRSTHDR(&msg)) {
        memcpy(&t->data, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(t->data));
    }
    *command = be32_to_cpu(*command);
    return true;
}

static void tpm_answer_ctrl(Tpm *t, uint32_t command)
{
    uint8_t request[64];
    uint32_t answer[4] = { };
    size_t request_len = 0, answer_len = sizeof(answer[0]);

    switch (command) {
    case CMD_GET_CAPABILITY:
        answer[1] = cpu_to_be32(0x3fff);
        answer_len = sizeof(ptm_cap_n);
        break;
    case CMD_INIT:
        request_len = sizeof(ptm_init);
        break;
    case CMD_SET_LOCALITY:
        request_len = sizeof(ptm_loc);
        break;
    case CMD_SET_BUFFERSIZE:
        request_len = sizeof(uint32_t);
        answer[1] = answer[3] = cpu_to_be32(4096);
        answer[2] = cpu_to_be32(128);
        answer_len = sizeof(answer);
        break;
    case CMD_GET_TPMESTABLISHED:
        answer_len = sizeof(ptm_est);
        break;
    case CMD_SET_DATAFD:
    case CMD_STOP:
    case CMD_SHUTDOWN:
        break;
    default:
        g_error("unknown command %u", command);
    }
    if (request_len) {
        g_assert_cmpint(recv(t->ctrl, request, request_len, MSG_WAITALL), ==,
                        request_len);
    }
    g_assert_cmpint(write(t->ctrl, answer, answer_len), ==, answer_len);
}

static void *tpm_run(void *opaque)
{
    Tpm *t = opaque;
    uint32_t command;

    t->ctrl = accept(t->listener, NULL, NULL);
    g_assert_cmpint(t->ctrl, >=, 0);
    while (true) {
        struct pollfd fds[2] = {
            { .fd = t->ctrl, .events = POLLIN },
            { .fd = t->data, .events = POLLIN },
        };

        g_assert_cmpint(poll(fds, 2, -1), >, 0);
        if (fds[0].revents) {
            if (!tpm_read_command(t, &command)) {
                break;
            }
            tpm_answer_ctrl(t, command);
        }
        if (fds[1].revents & POLLIN) {
            tpm_answer_data(t->data);
        }
        if (fds[1].revents & POLLHUP) {
            close(t->data);
            t->data = -1;
        }
    }
    close(t->ctrl);
    if (t->data >= 0) {
        close(t->data);
    }
    return NULL;
}

static void tpm_start(Tpm *t)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };

    t->sock = vmq_tmpfile("tpm");
    t->data = -1;
    pstrcpy(addr.sun_path, sizeof(addr.sun_path), t->sock);
    t->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    g_assert_cmpint(bind(t->listener, (struct sockaddr *)&addr, sizeof(addr)),
                    ==, 0);
    g_assert_cmpint(listen(t->listener, 1), ==, 0);
    t->thread = g_thread_new("tpm", tpm_run, t);
}

static void tpm_end(Tpm *t)
{
    g_thread_join(t->thread);
    close(t->listener);
    unlink(t->sock);
    g_free(t->sock);
}

typedef struct TpmCase {
    HweAction action;
    bool data_only;
} TpmCase;

static void test_tpm(const void *opaque)
{
    const TpmCase *test = opaque;
    g_autoptr(QDict) info = NULL;
    g_autofree char *args = NULL;
    QTestState *qts;
    Tpm t;

    if (!qtest_has_device("tpm-tis")) {
        g_test_skip("there is no device tpm-tis");
        return;
    }
    tpm_start(&t);
    args = g_strdup_printf("-machine pc -chardev socket,id=c,path=%s "
                           "-tpmdev emulator,id=emu,chardev=c "
                           "-device tpm-tis,id=tpm,tpmdev=emu", t.sock);
    qts = hwe_init(args, "backend", test->action);
    hwe_assert_records(qts, 0);
    if (test->data_only) {
        shutdown(t.data, SHUT_RDWR);
    } else {
        shutdown(t.ctrl, SHUT_RDWR);
    }

    /* Once, although both channels end */
    info = hwe_expect(qts, test->action, false, "paused");
    check_info(info, "tpm", "lost", "recoverable", TPM_PATH);
    hwe_assert_records(qts, 1);
    if (!hwe_contains(test->action)) {
        vmq_assert_status(qts, "running");
    }
    qtest_quit(qts);
    tpm_end(&t);
}

int main(int argc, char **argv)
{
    static const TpmCase tpm_cases[] = {
        { HWE_NONE, false }, { HWE_STOP, false }, { HWE_QUIESCE, false },
        { HWE_NONE, true }, { HWE_QUIESCE, true },
    };
    int i, ret;

    g_test_init(&argc, &argv, NULL);
    vmq_tmpdir_make();

    for (i = HWE_NONE; i < HWE_MAX; i++) {
        g_autofree char *path = g_strdup_printf("hw-error/vhost-user-blk/%s",
                                                hwe_action_name(i));

        qtest_add_data_func(path, GINT_TO_POINTER(i), test_blk_lost);
    }
    qtest_add_func("hw-error/vhost-user-blk/back", test_blk_back);
    qtest_add_func("hw-error/vhost-user-blk/quiesce-back",
                   test_blk_quiesce_back);
    qtest_add_func("hw-error/vhost-user-blk/hung", test_blk_hung);
    qtest_add_func("hw-error/vhost-user-fs/lost", test_fs_lost);
    qtest_add_func("hw-error/vhost-user-net/back", test_net);
    for (i = 0; i < ARRAY_SIZE(tpm_cases); i++) {
        g_autofree char *path = g_strdup_printf(
            "hw-error/tpm%s/%s", tpm_cases[i].data_only ? "-data" : "",
            hwe_action_name(tpm_cases[i].action));

        qtest_add_data_func(path, &tpm_cases[i], test_tpm);
    }

    ret = g_test_run();
    vmq_tmpdir_remove();
    return ret;
}
