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
#include "hw/acpi/tpm.h"
#include "libqos/virtio.h"
#include "libvhost-user.h"
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

/* vhost-user back ends that hang while the VM runs */

/* Healthy ones on a busy machine are not that slow */
#define LIMIT_MS 500

static char *hang_rule(int limit_ms, const char *action)
{
    return g_strdup_printf(" -object hw-error-rule,id=hang,source=backend,"
                           "stall-limit=%d,action=%s", limit_ms, action);
}

static void add_hang_rule(QTestState *qts, const char *id, int limit_ms,
                          const char *component)
{
    hwe_add_rule(qts, "{ 'id': %s, 'source': 'backend', 'action': 'report',"
                 "  'stall-limit': %d, 'component': %s }", id, limit_ms,
                 component);
}

/* Check that nothing is reported beyond @n records, although time passes */
static void assert_quiet(QTestState *qts, int n)
{
    g_usleep(2 * LIMIT_MS * 1000);
    hwe_assert_records(qts, n);
}

/* Returns the record, to be unreferenced; @queue: -1 for none */
static QDict *wait_hung(QTestState *qts, const char *type, const char *severity,
                        const char *path, int queue)
{
    QDict *record = hwe_event(qts, "HARDWARE_ERROR");
    QDict *info = qdict_get_qdict(record, "info");

    check_info(info, type, "hung", severity, path);
    g_assert_cmpint(qdict_get_int(info, "age-ms"), >=, LIMIT_MS);
    g_assert_cmpint(qdict_get_try_int(info, "queue", -1), ==, queue);
    return record;
}

/* How long it has hung is known */
static void wait_on(QTestState *qts, const char *type, const char *path)
{
    g_autoptr(QDict) record = hwe_event(qts, "HARDWARE_ERROR");
    QDict *info = qdict_get_qdict(record, "info");

    check_info(info, type, "back", "corrected", path);
    g_assert_cmpint(qdict_get_int(info, "age-ms"), >=, LIMIT_MS);
    g_assert_cmpstr(qdict_get_str(record, "action"), ==, "report");
    g_assert_false(qdict_haskey(info, "queue"));
}

typedef struct Hang {
    BackEnd b;
    QTestState *qts;
    VmqVirtio v;
} Hang;

/* A VM with a disk; @rule: more arguments */
static void hang_start(Hang *h, const char *rule)
{
    g_autofree char *device = g_strconcat(BLK, rule, NULL);
    g_autofree char *args = NULL;

    back_end_start(&h->b);
    args = vhost_user_args(&h->b, ",reconnect-ms=20", device);
    h->qts = hwe_init(args, "backend", HWE_NONE);
    vmq_virtio_start(&h->v, h->qts, 1);
}

/* The guest writes, and it does not get on */
static void hang_begin(Hang *h)
{
    kill(h->b.pid, SIGSTOP);
    vmq_virtio_blk_write(&h->v);
}

static void wait_written(Hang *h)
{
    while (vmq_byte_at(h->b.image, 0) != 0x5a) {
        g_usleep(1000);
    }
}

static void hang_end(Hang *h)
{
    vmq_virtio_cleanup(&h->v);
    qtest_quit(h->qts);
    back_end_end(&h->b);
}

/* Reported once, and once more when it goes on; the guest loses nothing */
static void test_hang_report(void)
{
    g_autofree char *rule = hang_rule(LIMIT_MS, "report");
    Hang h;
    int i;

    hang_start(&h, rule);
    /* There is nothing to do: it does not hang for anybody */
    kill(h.b.pid, SIGSTOP);
    assert_quiet(h.qts, 0);
    for (i = 0; i < 2; i++) {
        hang_begin(&h);
        qobject_unref(wait_hung(h.qts, "vhost-user", "recoverable",
                                BACK_END_PATH, 0));
        assert_quiet(h.qts, 2 * i + 1);
        vmq_assert_status(h.qts, "running");
        kill(h.b.pid, SIGCONT);
        wait_on(h.qts, "vhost-user", BACK_END_PATH);
        wait_written(&h);
    }
    assert_quiet(h.qts, 4);
    hang_end(&h);
}

/* Nobody has asked for it */
static void test_hang_no_limit(void)
{
    Hang h;

    hang_start(&h, " -object hw-error-rule,id=r,source=backend,action=stop"
               " -object hw-error-rule,id=s,source=block-stall,action=stop,"
               "stall-limit=10");
    hang_begin(&h);
    assert_quiet(h.qts, 0);
    vmq_assert_status(h.qts, "running");
    kill(h.b.pid, SIGCONT);
    wait_written(&h);
    hang_end(&h);
}

/* It is stopped, although the back end does not give back its rings */
static void test_hang_stop(void)
{
    g_autofree char *rule = hang_rule(LIMIT_MS, "stop");
    QDict *record;
    Hang h;

    hang_start(&h, rule);
    hang_begin(&h);
    record = wait_hung(h.qts, "vhost-user", "recoverable", BACK_END_PATH, 0);
    g_assert_cmpstr(qdict_get_str(record, "outcome"), ==, "stopping");
    qobject_unref(record);
    qobject_unref(hwe_event(h.qts, "STOP"));
    wait_info(h.qts, "vhost-user", "lost", "recoverable", BACK_END_PATH);
    vmq_assert_status(h.qts, "paused");

    /* It is connected again, and gets what it has not done */
    kill(h.b.pid, SIGCONT);
    wait_on(h.qts, "vhost-user", BACK_END_PATH);
    qtest_qmp_assert_success(h.qts, "{ 'execute': 'cont' }");
    wait_written(&h);
    assert_quiet(h.qts, 3);
    hang_end(&h);
}

/*
 * The storage daemon may break the connection if it is told to stop a ring
 * before it has finished a request: then it is connected again.
 */
static void wait_on_or_connected(QTestState *qts)
{
    bool back = false;

    while (!back) {
        g_autoptr(QDict) record = hwe_event(qts, "HARDWARE_ERROR");
        QDict *info = qdict_get_qdict(record, "info");

        back = g_str_equal(qdict_get_str(info, "state"), "back");
        g_assert_true(back ||
                      g_str_equal(qdict_get_str(info, "state"), "lost"));
    }
}

/* Not contained so long as it hangs */
static void test_hang_quiesce(void)
{
    g_autofree char *rule = hang_rule(LIMIT_MS, "quiesce");
    g_autofree char *error = NULL;
    QDict *record;
    Hang h;

    hang_start(&h, rule);
    hang_begin(&h);
    record = wait_hung(h.qts, "vhost-user", "recoverable", BACK_END_PATH, 0);
    error = vmq_participant_error(qdict_get_qdict(record, "quiesce"), "vhost");
    g_assert_nonnull(strstr(error, "its back end does not answer"));
    g_assert_cmpstr(qdict_get_str(record, "outcome"), ==, "quiesce-failed");
    g_assert_false(qdict_get_bool(record, "contained"));
    vmq_assert_status(h.qts, "paused");
    qobject_unref(record);

    kill(h.b.pid, SIGCONT);
    qobject_unref(hwe_event(h.qts, "VM_QUIESCED"));
    vmq_assert_status(h.qts, "quiesced");
    wait_on_or_connected(h.qts);
    hang_end(&h);
}

static bool is_draining(QTestState *qts)
{
    g_autoptr(QDict) ret = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'query-vm-quiesce' }");

    return g_str_equal(qdict_get_str(ret, "phase"), "drain");
}

/* It goes on in time */
static void test_hang_quiesced(void)
{
    g_autofree char *rule = hang_rule(LIMIT_MS, "quiesce");
    QDict *record;
    Hang h;

    hang_start(&h, rule);
    hang_begin(&h);
    while (!is_draining(h.qts)) {
        g_usleep(1000);
    }
    kill(h.b.pid, SIGCONT);
    record = wait_hung(h.qts, "vhost-user", "recoverable", BACK_END_PATH, 0);
    g_assert_cmpstr(qdict_get_str(record, "outcome"), ==, "quiesced");
    g_assert_true(qdict_get_bool(record, "contained"));
    vmq_assert_status(h.qts, "quiesced");
    wait_on_or_connected(h.qts);
    hwe_unquiesce(h.qts, record);
    qtest_qmp_assert_success(h.qts, "{ 'execute': 'cont' }");
    wait_written(&h);
    qobject_unref(record);
    hang_end(&h);
}

/* A back end that hangs, then dies, and then comes again, is back once */
static void test_hang_lost(void)
{
    g_autofree char *rule = hang_rule(LIMIT_MS, "report");
    Hang h;

    hang_start(&h, rule);
    hang_begin(&h);
    qobject_unref(wait_hung(h.qts, "vhost-user", "recoverable", BACK_END_PATH,
                            0));
    back_end_kill(&h.b);
    wait_info(h.qts, "vhost-user", "lost", "recoverable", BACK_END_PATH);
    assert_quiet(h.qts, 2);
    back_end_run(&h.b);
    wait_on(h.qts, "vhost-user", BACK_END_PATH);
    wait_written(&h);
    assert_quiet(h.qts, 3);
    hang_end(&h);
}

/* The limit of the most specific rule counts, as the rules come and go */
static void test_hang_rules(void)
{
    Hang h;

    hang_start(&h, "");
    hwe_add_rule(h.qts, "{ 'id': 'any', 'source': 'backend',"
                 "  'action': 'report', 'stall-limit': 3600000 }");
    add_hang_rule(h.qts, "other", LIMIT_MS, "/machine/other");
    hang_begin(&h);
    assert_quiet(h.qts, 0);
    add_hang_rule(h.qts, "dev", LIMIT_MS, BACK_END_PATH);
    qobject_unref(wait_hung(h.qts, "vhost-user", "recoverable", BACK_END_PATH,
                            0));

    /* That it is back is known without a rule, too */
    hwe_remove_rule(h.qts, "dev");
    hwe_remove_rule(h.qts, "other");
    hwe_remove_rule(h.qts, "any");
    assert_quiet(h.qts, 1);
    kill(h.b.pid, SIGCONT);
    wait_on(h.qts, "vhost-user", BACK_END_PATH);
    wait_written(&h);

    hang_begin(&h);
    assert_quiet(h.qts, 2);
    kill(h.b.pid, SIGCONT);
    hang_end(&h);
}

/*
 * A back end that answers messages at once, but uses a buffer only when it is
 * told to.
 */
typedef struct Fake {
    VuDev dev;
    char *sock;
    int listener;
    /* Each byte is the index of a queue */
    int orders[2];
    uint64_t features;
    bool ended;
    GThread *thread;
    QTestState *qts;
    VmqVirtio v;
} Fake;

static uint64_t fake_features(VuDev *dev)
{
    return container_of(dev, Fake, dev)->features;
}

/* Returns whether nothing else is to be done about it */
static int fake_message(VuDev *dev, VhostUserMsg *msg, int *reply)
{
    switch (msg->request) {
    case VHOST_USER_NONE:
        container_of(dev, Fake, dev)->ended = true;
        *reply = false;
        return true;
    case VHOST_USER_GET_PROTOCOL_FEATURES:
        /* Without memory slots: those of the last device would be kept */
        msg->payload.u64 = 1ull << VHOST_USER_PROTOCOL_F_MQ |
                           1ull << VHOST_USER_PROTOCOL_F_CONFIG;
        msg->size = sizeof(msg->payload.u64);
        msg->fd_num = 0;
        *reply = true;
        return true;
    default:
        return false;
    }
}

static int fake_get_config(VuDev *dev, uint8_t *config, uint32_t len)
{
    memset(config, 0, len);
    return 0;
}

static void fake_panic(VuDev *dev, const char *message)
{
    g_test_message("back end: %s", message);
}

static void fake_set_watch(VuDev *dev, int fd, int condition, vu_watch_cb cb,
                           void *opaque)
{
}

static void fake_remove_watch(VuDev *dev, int fd)
{
}

static const VuDevIface fake_iface = {
    .get_features = fake_features,
    .process_msg = fake_message,
    .get_config = fake_get_config,
};

static void fake_use(VuDev *dev, int queue)
{
    VuVirtq *vq = vu_get_queue(dev, queue);
    g_autofree VuVirtqElement *elem = vu_queue_pop(dev, vq, sizeof(*elem));

    g_assert_nonnull(elem);
    vu_queue_push(dev, vq, elem, 0);
    vu_queue_notify(dev, vq);
}

static void *fake_run(void *opaque)
{
    Fake *f = opaque;
    int conn = accept(f->listener, NULL, NULL);
    struct pollfd fds[2] = {
        { .fd = conn, .events = POLLIN },
        { .fd = f->orders[0], .events = POLLIN },
    };
    uint8_t queue;

    g_assert_cmpint(conn, >=, 0);
    g_assert_true(vu_init(&f->dev, 8, conn, fake_panic, NULL, fake_set_watch,
                          fake_remove_watch, &fake_iface));
    while (!f->ended) {
        g_assert_cmpint(poll(fds, 2, -1), >, 0);
        if (fds[1].revents) {
            g_assert_cmpint(read(f->orders[0], &queue, 1), ==, 1);
            fake_use(&f->dev, queue);
        } else {
            g_assert_true(vu_dispatch(&f->dev));
        }
    }
    vu_deinit(&f->dev);
    close(conn);
    return NULL;
}

static int listen_at(const char *path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    pstrcpy(addr.sun_path, sizeof(addr.sun_path), path);
    g_assert_cmpint(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), ==, 0);
    g_assert_cmpint(listen(fd, 1), ==, 0);
    return fd;
}

/* A VM with @device in slot 4, that the guest uses with @num_queues queues */
static void fake_start(Fake *f, const char *device, int num_queues)
{
    g_autofree char *rule = hang_rule(LIMIT_MS, "report");
    g_autofree char *device_and_rule = g_strconcat(device, rule, NULL);
    g_autofree char *args = NULL;
    BackEnd b;

    f->sock = b.sock = vmq_tmpfile("fake");
    f->listener = listen_at(f->sock);
    g_assert_cmpint(pipe(f->orders), ==, 0);
    f->thread = g_thread_new("back end", fake_run, f);
    args = vhost_user_args(&b, "", device_and_rule);
    f->qts = hwe_init(args, "backend", HWE_NONE);
    vmq_virtio_start(&f->v, f->qts, num_queues);
}

static void fake_submit(Fake *f, int queue)
{
    uint64_t addr = guest_alloc(&f->v.alloc, VMQ_SECTOR);
    uint32_t head = qvirtqueue_add(f->qts, f->v.vq[queue], addr, VMQ_SECTOR,
                                   true, false);

    qvirtqueue_kick(f->qts, &f->v.dev->vdev, f->v.vq[queue], head);
}

static void fake_order(Fake *f, uint8_t queue)
{
    g_assert_cmpint(write(f->orders[1], &queue, 1), ==, 1);
}

static void fake_end(Fake *f)
{
    vmq_virtio_cleanup(&f->v);
    qtest_quit(f->qts);
    g_thread_join(f->thread);
    close(f->orders[0]);
    close(f->orders[1]);
    close(f->listener);
    unlink(f->sock);
    g_free(f->sock);
}

/* Connections that are closed one after the other when QEMU ends */
static void test_quit(void)
{
    g_autofree char *devices = NULL;
    Fake f = { };
    BackEnd b;

    back_end_start(&b);
    devices = g_strdup_printf(BLK " -chardev socket,id=other,path=%s -device "
                              "vhost-user-blk-pci,chardev=other", b.sock);
    fake_start(&f, devices, 1);
    fake_end(&f);
    back_end_end(&b);
}

/* Which queues of a device are watched */
typedef struct QueuesCase {
    const char *name;
    const char *qdev;
    const char *args;
    const char *severity;
    int num_queues;
    unsigned watched;
    uint64_t features;
} QueuesCase;

static const QueuesCase queues_cases[] = {
    { "blk", "vhost-user-blk-pci",
      BLK ",num-queues=2", "fatal", 2, 1 << 0 | 1 << 1 },
    { "scsi", "vhost-user-scsi-pci",
      "-device vhost-user-scsi-pci,id=dev,addr=4,chardev=c,num_queues=1",
      "fatal", 3, 1 << 2 },
    { "net", "virtio-net-pci",
      "-netdev vhost-user,id=n,chardev=c "
      "-device virtio-net-pci,id=dev,addr=4,netdev=n,mac=52:54:00:12:34:56",
      "recoverable", 2, 1 << 1 },
    { "fs", "vhost-user-fs-pci",
      "-device vhost-user-fs-pci,id=dev,addr=4,tag=t,chardev=c",
      "fatal", 2, 1 << 0 | 1 << 1 },
    { "vsock", "vhost-user-vsock-pci",
      "-device vhost-user-vsock-pci,id=dev,addr=4,chardev=c",
      NULL, 3, 0 },
    { "rng", "vhost-user-rng-pci",
      "-device vhost-user-rng-pci,id=dev,addr=4,chardev=c", NULL, 1, 0 },
    /* Nobody knows what is in a packed ring */
    { "packed", "vhost-user-blk-pci", BLK ",num-queues=2,packed=on", NULL, 2, 0,
      1ull << VIRTIO_F_RING_PACKED },
};

/*
 * The guest has put buffers into all queues.  Those which wait for something
 * to happen may do so for ever.
 */
static void test_hang_queues(const void *opaque)
{
    const QueuesCase *test = opaque;
    int queue, n = 0;
    Fake f = { };

    if (!qtest_has_device(test->qdev)) {
        g_test_skip("there is no such device");
        return;
    }
    f.features = test->features;
    fake_start(&f, test->args, test->num_queues);
    g_assert_cmphex(f.dev.features & test->features, ==, test->features);
    for (queue = 0; queue < test->num_queues; queue++) {
        if (!(test->watched & 1 << queue)) {
            fake_submit(&f, queue);
        }
    }
    assert_quiet(f.qts, 0);
    for (queue = 0; queue < test->num_queues; queue++) {
        if (test->watched & 1 << queue) {
            fake_submit(&f, queue);
            qobject_unref(wait_hung(f.qts, "vhost-user", test->severity,
                                    BACK_END_PATH, queue));
            fake_order(&f, queue);
            wait_on(f.qts, "vhost-user", BACK_END_PATH);
            n += 2;
        }
    }
    assert_quiet(f.qts, n);
    fake_end(&f);
}

/* It takes its time, and always has something to do, but it gets on */
static void test_hang_slow(void)
{
    Fake f = { };
    int i;

    fake_start(&f, BLK, 1);
    fake_submit(&f, 0);
    for (i = 0; i < 20; i++) {
        fake_submit(&f, 0);
        g_usleep(LIMIT_MS * 1000 / 5);
        fake_order(&f, 0);
    }
    hwe_assert_records(f.qts, 0);
    qobject_unref(wait_hung(f.qts, "vhost-user", "fatal", BACK_END_PATH, 0));
    fake_end(&f);
}

/* When several queues hang, that is one error, until all of them get on */
static void test_hang_all_queues(void)
{
    Fake f = { };

    fake_start(&f, queues_cases[0].args, 2);
    fake_submit(&f, 1);
    fake_submit(&f, 0);
    qobject_unref(hwe_event(f.qts, "HARDWARE_ERROR"));
    assert_quiet(f.qts, 1);
    fake_order(&f, 0);
    assert_quiet(f.qts, 1);
    fake_order(&f, 1);
    wait_on(f.qts, "vhost-user", BACK_END_PATH);
    assert_quiet(f.qts, 2);
    fake_end(&f);
}

/* A device that has been stopped has its buffers back */
static void test_hang_stopped(void)
{
    Fake f = { };

    fake_start(&f, BLK, 1);
    fake_submit(&f, 0);
    qtest_qmp_assert_success(f.qts, "{ 'execute': 'stop' }");
    assert_quiet(f.qts, 0);
    qtest_qmp_assert_success(f.qts, "{ 'execute': 'cont' }");
    qobject_unref(wait_hung(f.qts, "vhost-user", "fatal", BACK_END_PATH, 0));
    qtest_qmp_assert_success(f.qts, "{ 'execute': 'stop' }");
    wait_on(f.qts, "vhost-user", BACK_END_PATH);
    assert_quiet(f.qts, 2);
    fake_end(&f);
}

/*
 * While the VM is being quiesced, which takes long because of another back end,
 * this one has given back its ring already.
 */
static void test_hang_draining(void)
{
    QPCIAddress addr = { .devfn = QPCI_DEVFN(5, 0) };
    g_autofree char *devices = NULL, *token = NULL;
    g_autoptr(QDict) log = NULL;
    const QListEntry *entry;
    QVirtioPCIDevice *other;
    QVirtQueue *vq;
    Fake f = { };
    BackEnd b;

    back_end_start(&b);
    devices = g_strdup_printf(BLK " -chardev socket,id=other,path=%s -device "
                              "vhost-user-blk-pci,addr=5,chardev=other",
                              b.sock);
    fake_start(&f, devices, 1);
    other = virtio_pci_new(f.v.bus, &addr);
    qvirtio_pci_device_enable(other);
    qvirtio_start_device(&other->vdev);
    qvirtio_set_features(&other->vdev, 1ull << VIRTIO_F_VERSION_1);
    vq = qvirtqueue_setup(&other->vdev, &f.v.alloc, 0);
    qvirtio_set_driver_ok(&other->vdev);

    fake_submit(&f, 0);
    kill(b.pid, SIGSTOP);
    token = vmq_start(f.qts, 4 * LIMIT_MS);
    qobject_unref(hwe_event(f.qts, "VM_QUIESCE_FAILED"));
    kill(b.pid, SIGCONT);
    qobject_unref(hwe_event(f.qts, "VM_QUIESCED"));
    log = qtest_qmp_assert_success_ref(
        f.qts, "{ 'execute': 'query-hardware-errors' }");
    QLIST_FOREACH_ENTRY(qdict_get_qlist(log, "errors"), entry) {
        QDict *record = qobject_to(QDict, qlist_entry_obj(entry));
        QDict *info = qdict_get_qdict(record, "info");

        g_assert_cmpstr(qdict_get_str(info, "chardev"), ==, "other");
    }
    qvirtqueue_cleanup(other->vdev.bus, vq, &f.v.alloc);
    qos_object_destroy((QOSGraphObject *)other);
    fake_end(&f);
    back_end_end(&b);
}

/* A host that stands still does not make a back end hang */
static void test_hang_frozen(void)
{
    Fake f = { };

    fake_start(&f, BLK, 1);
    add_hang_rule(f.qts, "dev", 4 * LIMIT_MS, BACK_END_PATH);
    fake_submit(&f, 0);
    g_usleep(LIMIT_MS * 1000);
    kill(qtest_pid(f.qts), SIGSTOP);
    g_usleep(5 * LIMIT_MS * 1000);
    kill(qtest_pid(f.qts), SIGCONT);
    g_usleep(LIMIT_MS * 1000);
    fake_order(&f, 0);
    assert_quiet(f.qts, 0);
    fake_end(&f);
}

/* Nothing is left of a device that is gone: its back end may hang again */
static void test_hang_unplug(void)
{
    Fake f = { };

    fake_start(&f, BLK, 1);
    fake_submit(&f, 0);
    qobject_unref(wait_hung(f.qts, "vhost-user", "fatal", BACK_END_PATH, 0));
    vmq_virtio_cleanup(&f.v);
    qtest_qmp_assert_success(
        f.qts, "{ 'execute': 'device_del', 'arguments': { 'id': 'dev' } }");
    qtest_qmp_assert_success(f.qts, "{ 'execute': 'system_reset' }");
    qobject_unref(hwe_event(f.qts, "DEVICE_DELETED"));
    assert_quiet(f.qts, 1);

    qtest_qmp_assert_success(
        f.qts, "{ 'execute': 'device_add', 'arguments': {"
        "  'driver': 'vhost-user-blk-pci', 'id': 'dev', 'addr': '4',"
        "  'chardev': 'c' } }");
    vmq_virtio_start(&f.v, f.qts, 1);
    fake_submit(&f, 0);
    qobject_unref(wait_hung(f.qts, "vhost-user", "fatal", BACK_END_PATH, 0));
    fake_order(&f, 0);
    wait_on(f.qts, "vhost-user", BACK_END_PATH);
    fake_end(&f);
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
    /* If there is one, it answers a command when it gets itself from here */
    GAsyncQueue *hangs;
} Tpm;

static void tpm_answer_data(Tpm *t)
{
    /* A header of TPM 2, and an error */
    static const uint8_t answer[] = { 0x80, 0x01, 0, 0, 0, 10, 0, 0, 1, 1 };
    uint8_t request[4096];

    if (read(t->data, request, sizeof(request)) > 0) {
        if (t->hangs && g_async_queue_pop(t->hangs) != t) {
            return;
        }
        g_assert_cmpint(write(t->data, answer, sizeof(answer)), ==,
                        sizeof(answer));
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
            tpm_answer_data(t);
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
    t->sock = vmq_tmpfile("tpm");
    t->data = -1;
    t->hangs = NULL;
    t->listener = listen_at(t->sock);
    t->thread = g_thread_new("tpm", tpm_run, t);
}

static void tpm_end(Tpm *t)
{
    g_thread_join(t->thread);
    close(t->listener);
    unlink(t->sock);
    g_free(t->sock);
}

static char *tpm_args(const Tpm *t, const char *rule)
{
    return g_strdup_printf("-machine pc -chardev socket,id=c,path=%s "
                           "-tpmdev emulator,id=emu,chardev=c "
                           "-device tpm-tis,id=tpm,tpmdev=emu%s", t->sock,
                           rule);
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
    args = tpm_args(&t, "");
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

#define TIS(reg) (TPM_TIS_ADDR_BASE + TPM_TIS_REG_##reg)

/* The guest hands over a command */
static void tpm_submit(QTestState *qts)
{
    static const uint8_t command[] = { 0x80, 0x01, 0, 0, 0, 12, 0, 0, 1, 0x44,
                                       0, 0 };
    int i;

    qtest_writeb(qts, TIS(ACCESS), TPM_TIS_ACCESS_REQUEST_USE);
    qtest_writel(qts, TIS(STS), TPM_TIS_STS_COMMAND_READY);
    for (i = 0; i < sizeof(command); i++) {
        qtest_writeb(qts, TIS(DATA_FIFO), command[i]);
    }
    qtest_writel(qts, TIS(STS), TPM_TIS_STS_TPM_GO);
}

static void tpm_wait_answer(QTestState *qts)
{
    while (!(qtest_readl(qts, TIS(STS)) & TPM_TIS_STS_DATA_AVAILABLE)) {
        g_usleep(1000);
    }
}

/* Reported while the command is with it, and when it has answered */
static void test_tpm_hung(const void *opaque)
{
    HweAction action = GPOINTER_TO_INT(opaque);
    g_autofree char *args = NULL, *rule = NULL;
    QTestState *qts;
    QDict *record;
    int i;
    Tpm t;

    if (!qtest_has_device("tpm-tis")) {
        g_test_skip("there is no device tpm-tis");
        return;
    }
    tpm_start(&t);
    rule = hang_rule(LIMIT_MS, hwe_action_name(action));
    args = tpm_args(&t, rule);
    qts = hwe_init(args, "backend", HWE_NONE);

    /* Many commands are not a long one */
    t.hangs = g_async_queue_new();
    for (i = 0; i < 8; i++) {
        tpm_submit(qts);
        g_usleep(LIMIT_MS * 1000 / 3);
        g_async_queue_push(t.hangs, &t);
        tpm_wait_answer(qts);
    }
    hwe_assert_records(qts, 0);

    tpm_submit(qts);
    record = wait_hung(qts, "tpm", "recoverable", TPM_PATH, -1);
    g_assert_cmpstr(qdict_get_str(record, "action"), ==,
                    hwe_action_name(action));
    if (action == HWE_STOP) {
        qobject_unref(hwe_event(qts, "STOP"));
        vmq_assert_status(qts, "paused");
    } else if (action == HWE_QUIESCE) {
        /* It has nothing that could be written, or sent */
        g_assert_cmpstr(qdict_get_str(record, "outcome"), ==, "quiesced");
        vmq_assert_status(qts, "quiesced");
    } else {
        assert_quiet(qts, 1);
        vmq_assert_status(qts, "running");
    }
    qobject_unref(record);

    g_async_queue_push(t.hangs, &t);
    wait_on(qts, "tpm", TPM_PATH);
    tpm_wait_answer(qts);
    hwe_assert_records(qts, 2);

    /* An emulator that is lost is not back */
    if (action == HWE_REPORT) {
        tpm_submit(qts);
        qobject_unref(wait_hung(qts, "tpm", "recoverable", TPM_PATH, -1));
        shutdown(t.ctrl, SHUT_RDWR);
        shutdown(t.data, SHUT_RDWR);
        wait_info(qts, "tpm", "lost", "recoverable", TPM_PATH);
        tpm_wait_answer(qts);
        assert_quiet(qts, 4);
        g_async_queue_push(t.hangs, t.hangs);
    }
    qtest_quit(qts);
    tpm_end(&t);
    g_async_queue_unref(t.hangs);
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
    qtest_add_func("hw-error/vhost-user-hang/report", test_hang_report);
    qtest_add_func("hw-error/vhost-user-hang/no-limit", test_hang_no_limit);
    qtest_add_func("hw-error/vhost-user-hang/stop", test_hang_stop);
    qtest_add_func("hw-error/vhost-user-hang/quiesce", test_hang_quiesce);
    qtest_add_func("hw-error/vhost-user-hang/quiesced", test_hang_quiesced);
    qtest_add_func("hw-error/vhost-user-hang/lost", test_hang_lost);
    qtest_add_func("hw-error/vhost-user-hang/rules", test_hang_rules);
    qtest_add_func("hw-error/vhost-user-hang/slow", test_hang_slow);
    qtest_add_func("hw-error/vhost-user-hang/all-queues", test_hang_all_queues);
    qtest_add_func("hw-error/vhost-user-hang/stopped", test_hang_stopped);
    qtest_add_func("hw-error/vhost-user-hang/draining", test_hang_draining);
    qtest_add_func("hw-error/vhost-user-hang/frozen", test_hang_frozen);
    qtest_add_func("hw-error/vhost-user-hang/unplug", test_hang_unplug);
    qtest_add_func("hw-error/vhost-user-hang/quit", test_quit);
    for (i = 0; i < ARRAY_SIZE(queues_cases); i++) {
        g_autofree char *path = g_strdup_printf(
            "hw-error/vhost-user-hang/queues/%s", queues_cases[i].name);

        qtest_add_data_func(path, &queues_cases[i], test_hang_queues);
    }
    qtest_add_func("hw-error/vhost-user-fs/lost", test_fs_lost);
    qtest_add_func("hw-error/vhost-user-net/back", test_net);
    for (i = 0; i < ARRAY_SIZE(tpm_cases); i++) {
        g_autofree char *path = g_strdup_printf(
            "hw-error/tpm%s/%s", tpm_cases[i].data_only ? "-data" : "",
            hwe_action_name(tpm_cases[i].action));

        qtest_add_data_func(path, &tpm_cases[i], test_tpm);
    }
    for (i = HWE_REPORT; i < HWE_MAX; i++) {
        if (i != HWE_INJECT) {
            g_autofree char *path = g_strdup_printf("hw-error/tpm-hung/%s",
                                                    hwe_action_name(i));

            qtest_add_data_func(path, GINT_TO_POINTER(i), test_tpm_hung);
        }
    }

    ret = g_test_run();
    vmq_tmpdir_remove();
    return ret;
}
