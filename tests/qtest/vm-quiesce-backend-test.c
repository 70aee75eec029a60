/*
 * Test of the quiesced run state: back ends that hang
 *
 * The monitor must answer all the time, the failure must have a name, and the
 * state must be reached when the back end goes on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/socket.h>
#include <sys/un.h>
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "vm-quiesce-util.h"

/*
 * An NBD server that does not answer: the monitor does; the culprit is named;
 * when the server goes on, the state is reached.
 */
static void test_hung_nbd(const void *opaque)
{
    bool flush = opaque;
    const char *culprit = flush ? "node 'disk' (/machine/peripheral/dev): "
                                  "flush in flight for "
                                : "node 'disk' (/machine/peripheral/dev): "
                                  "1 request in flight for ";
    g_autofree char *image = vmq_make_image("raw", VMQ_IMAGE_SIZE);
    g_autofree char *sock = vmq_tmpfile("nbd");
    GPid server = vmq_start_nbd(image, sock);
    QTestState *qts = qtest_initf(
        "-machine pc -blockdev nbd,node-name=disk,export=n,server.type=unix,"
        "server.path=%s -device ide-hd,id=dev,drive=disk", sock);
    g_autofree char *token = NULL, *error = NULL;

    if (!flush) {
        kill(server, SIGSTOP);
    }
    g_free(qtest_hmp(qts, "qemu-io -d /machine/peripheral/dev "
                     "\"%s -q -P 90 0 64k\"", flush ? "write" : "aio_write"));
    kill(server, SIGSTOP);

    token = vmq_start(qts, 200);
    vmq_assert_status(qts, "paused");
    error = vmq_wait_hung(qts, token, "block");
    g_assert_true(g_str_has_prefix(error, culprit));

    vmq_assert_status(qts, "paused");
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'cont' }"),
                     "is not permitted until 'vm-unquiesce'");
    vmq_assert_unquiesce_fails(qts, token, culprit);
    g_assert_cmpint(vmq_byte_at(image, 0), ==, flush ? 90 : 0);

    kill(server, SIGCONT);
    qobject_unref(vmq_wait(qts, "VM_QUIESCED", token));
    vmq_assert_status(qts, "quiesced");
    g_assert_cmpint(vmq_byte_at(image, 0), ==, 90);

    vmq_unquiesce(qts, token);
    vmq_cont(qts);
    qtest_quit(qts);
    vmq_stop_daemon(server);
    unlink(image);
    unlink(sock);
}

typedef enum VhostUserFault {
    FAULT_NONE,
    /* Does not answer */
    FAULT_HUNG,
    /* Gives its rings back, and answers nothing from then on */
    FAULT_MUTE,
} VhostUserFault;

/* Between QEMU and the back end */
typedef struct Proxy {
    int listener, qemu, back_end;
    GThread *thread;
} Proxy;

static struct sockaddr_un unix_address(const char *path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };

    pstrcpy(addr.sun_path, sizeof(addr.sun_path), path);
    return addr;
}

/* Passes one message on, with file descriptors; returns its type, or -1 */
static int proxy_pass(int from, int to)
{
    /* Type, flags, length of the payload; descriptors come with it */
    const size_t header = 12;
    char data[4096], control[CMSG_SPACE(16 * sizeof(int))];
    struct iovec iov = { data, header };
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control,
        .msg_controllen = sizeof(control),
    };
    struct cmsghdr *cmsg;

    if (recvmsg(from, &msg, 0) != header) {
        return -1;
    }
    iov.iov_len += ldl_le_p(data + 8);
    g_assert_cmpint(iov.iov_len, <=, sizeof(data));
    if (iov.iov_len > header &&
        recv(from, data + header, iov.iov_len - header, MSG_WAITALL) <= 0) {
        return -1;
    }
    sendmsg(to, &msg, MSG_NOSIGNAL);
    for (cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
        size_t i;

        for (i = 0; i < (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            close(((int *)CMSG_DATA(cmsg))[i]);
        }
    }
    return ldl_le_p(data);
}

static void *proxy_run(void *opaque)
{
    const int get_vring_base = 11;
    Proxy *p = opaque;
    GPollFD fds[2] = { { .events = G_IO_IN }, { .events = G_IO_IN } };
    bool mute = false;

    p->qemu = accept(p->listener, NULL, NULL);
    fds[0].fd = p->qemu;
    fds[1].fd = p->back_end;
    while (g_poll(fds, 2, -1) > 0) {
        int type;

        if (fds[1].revents) {
            type = proxy_pass(p->back_end, p->qemu);
            if (type < 0) {
                break;
            }
            mute |= type == get_vring_base;
        }
        if (fds[0].revents) {
            char dropped[4096];

            type = mute ? read(p->qemu, dropped, sizeof(dropped))
                        : proxy_pass(p->qemu, p->back_end);
            if (type <= 0) {
                break;
            }
        }
    }
    close(p->qemu);
    close(p->back_end);
    return NULL;
}

/* Connects to @back_end, and listens on @path */
static void proxy_start(Proxy *p, const char *back_end, const char *path)
{
    struct sockaddr_un addr = unix_address(back_end);

    p->back_end = socket(AF_UNIX, SOCK_STREAM, 0);
    g_assert_cmpint(connect(p->back_end, (struct sockaddr *)&addr,
                            sizeof(addr)), ==, 0);
    addr = unix_address(path);
    p->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    g_assert_cmpint(bind(p->listener, (struct sockaddr *)&addr, sizeof(addr)),
                    ==, 0);
    g_assert_cmpint(listen(p->listener, 1), ==, 0);
    p->thread = g_thread_new("proxy", proxy_run, p);
}

static void proxy_stop(Proxy *p, const char *path)
{
    g_thread_join(p->thread);
    close(p->listener);
    unlink(path);
}

/* A vhost-user back end: its rings come back, or the failure has a name */
static void test_vhost_user(const void *opaque)
{
    VhostUserFault fault = GPOINTER_TO_INT(opaque);
    g_autofree char *path = vmq_tmpfile(fault == FAULT_MUTE ? "proxy"
                                                            : "vhost-user");
    g_autofree char *image = vmq_make_image("raw", VMQ_IMAGE_SIZE);
    g_autofree char *sock = vmq_tmpfile("vhost-user");
    g_autofree char *args = g_strdup_printf(
        "--blockdev file,node-name=n,filename=%s "
        "--export vhost-user-blk,id=e,addr.type=unix,addr.path=%s,"
        "node-name=n,writable=on", image, sock);
    GPid server = vmq_start_daemon(args);
    g_autofree char *token = NULL, *before = NULL, *after = NULL;
    QTestState *qts;
    Proxy proxy;
    VmqVirtio v;

    if (fault == FAULT_MUTE) {
        proxy_start(&proxy, sock, path);
    }
    qts = qtest_initf("-machine pc,memory-backend=mem -m 64 "
                      "-object memory-backend-memfd,id=mem,size=64M,share=on "
                      "-chardev socket,id=c,path=%s "
                      "-device vhost-user-blk-pci,addr=4,chardev=c", path);
    vmq_virtio_start(&v, qts, 1);
    vmq_virtio_blk_write(&v);
    while (vmq_byte_at(image, 0) != 0x5a) {
        g_usleep(1000);
    }

    if (fault == FAULT_HUNG) {
        g_autofree char *error = NULL;

        kill(server, SIGSTOP);
        token = vmq_start(qts, 200);
        error = vmq_wait_failed(qts, token, "vhost");
        g_assert_nonnull(strstr(error, "back end does not answer"));
        vmq_assert_status(qts, "paused");
        kill(server, SIGCONT);
    } else {
        token = vmq_start(qts, 60000);
    }
    qobject_unref(vmq_wait(qts, "VM_QUIESCED", token));

    /* Nobody looks at the ring any more */
    before = vmq_checksum(image);
    qtest_memset(qts, 0, 0, 512);
    v.vq[0]->free_head = 0;
    vmq_virtio_blk_write(&v);
    g_usleep(100 * 1000);
    after = vmq_checksum(image);
    g_assert_cmpstr(before, ==, after);
    vmq_assert_status(qts, "quiesced");

    vmq_unquiesce(qts, token);
    vmq_cont(qts);
    vmq_virtio_cleanup(&v);
    qtest_quit(qts);
    if (fault == FAULT_MUTE) {
        proxy_stop(&proxy, path);
    }
    vmq_stop_daemon(server);
    unlink(image);
    unlink(sock);
}

/*
 * Formats write when a node is inactivated, even if nothing was dirty: that
 * must not be tried before the storage answers.
 */
typedef struct ReleaseCase {
    const char *name;
    /* Of the qcow2 image */
    const char *options;
    /* Else by NBD, where a flush is always sent */
    bool fuse;
} ReleaseCase;

static const ReleaseCase release_cases[] = {
    { "bitmap-nbd", "compat=1.1", false },
    { "bitmap-fuse", "compat=1.1", true },
    { "lazy-refcounts-nbd", "compat=1.1,lazy_refcounts=on", false },
    { "lazy-refcounts-fuse", "compat=1.1,lazy_refcounts=on", true },
};

typedef struct Release {
    char *image, *sock;
    GPid server;
    QTestState *qts;
} Release;

/* A disk, clean, whose node is written to when it is inactivated */
static void release_start(Release *r, const ReleaseCase *c)
{
    g_autofree char *size = g_strdup_printf("%d", VMQ_IMAGE_SIZE);
    char *create[] = { vmq_qemu_img(), (char *)"create", (char *)"-q",
                       (char *)"-f", (char *)"qcow2", (char *)"-o",
                       (char *)c->options, NULL, size, NULL };
    g_autofree char *args = NULL, *protocol = NULL;

    r->image = create[7] = vmq_tmpfile("image");
    r->sock = vmq_tmpfile("nbd");
    g_assert_cmpint(vmq_run(create), ==, 0);
    /* An export does not grow */
    g_assert_cmpint(truncate(r->image, 2 * VMQ_IMAGE_SIZE), ==, 0);
    if (c->fuse) {
        args = g_strdup_printf(
            "--blockdev file,node-name=n,filename=%s --export fuse,id=e,"
            "node-name=n,mountpoint=%s,writable=on,growable=on",
            r->image, r->sock);
        protocol = g_strdup_printf("file,filename=%s", r->sock);
        g_assert_true(g_file_set_contents(r->sock, "", 0, NULL));
        r->server = vmq_start_daemon(args);
    } else {
        protocol = g_strdup_printf("nbd,export=n,server.type=unix,"
                                   "server.path=%s", r->sock);
        r->server = vmq_start_nbd(r->image, r->sock);
    }
    r->qts = qtest_initf("-machine pc -blockdev %s,node-name=protocol "
                         "-blockdev qcow2,node-name=disk,file=protocol "
                         "-device ide-hd,id=dev,drive=disk", protocol);
    qtest_qmp_assert_success(r->qts, "{ 'execute': 'block-dirty-bitmap-add',"
                             "  'arguments': { 'node': 'disk', 'name': 'b',"
                             "    'persistent': %i } }",
                             !strstr(c->options, "lazy"));
    g_free(qtest_hmp(r->qts, "qemu-io -d /machine/peripheral/dev "
                     "\"write -q -P 90 0 64k\""));
    g_free(qtest_hmp(r->qts, "qemu-io -d /machine/peripheral/dev flush"));
}

static void release_end(Release *r)
{
    qtest_quit(r->qts);
    vmq_stop_daemon(r->server);
    unlink(r->image);
    unlink(r->sock);
    g_free(r->image);
    g_free(r->sock);
}

static void test_hung_release(const void *opaque)
{
    const ReleaseCase *c = opaque;
    g_autofree char *token = NULL, *error = NULL;
    Release r;

    if (c->fuse && access("/dev/fuse", R_OK | W_OK) < 0) {
        g_test_skip("/dev/fuse cannot be used");
        return;
    }
    release_start(&r, c);
    kill(r.server, SIGSTOP);

    token = vmq_start(r.qts, 200);
    error = vmq_wait_failed(r.qts, token, "block");
    g_assert_nonnull(strstr(error, "flush in flight"));
    vmq_assert_status(r.qts, "paused");

    kill(r.server, SIGCONT);
    qobject_unref(vmq_wait(r.qts, "VM_QUIESCED", token));
    vmq_unquiesce(r.qts, token);
    vmq_cont(r.qts);
    if (!strstr(c->options, "lazy")) {
        /* It is still there, and knows what was written */
        g_autoptr(QDict) nodes = qtest_qmp(
            r.qts, "{ 'execute': 'query-named-block-nodes' }");
        g_autoptr(GString) json = qobject_to_json(QOBJECT(nodes));

        g_assert_nonnull(strstr(json->str, "\"count\": 65536"));
    }
    release_end(&r);
}

/* The end of a quiesced VM needs no storage */
static void test_hung_quit(const void *opaque)
{
    bool sigterm = opaque;
    g_autofree char *token = NULL, *before = NULL, *after = NULL;
    Release r;

    release_start(&r, &release_cases[0]);
    token = vmq_quiesce(r.qts);
    before = vmq_checksum(r.image);
    kill(r.server, SIGSTOP);
    if (sigterm) {
        kill(qtest_pid(r.qts), SIGTERM);
    } else {
        qtest_qmp_assert_success(r.qts, "{ 'execute': 'quit' }");
    }
    qtest_wait_qemu(r.qts);
    kill(r.server, SIGCONT);
    after = vmq_checksum(r.image);
    g_assert_cmpstr(before, ==, after);
    release_end(&r);
}

int main(int argc, char **argv)
{
    int i, ret;

    g_test_init(&argc, &argv, NULL);
    vmq_tmpdir_make();

    qtest_add_data_func("vm-quiesce/hung/nbd", (void *)false, test_hung_nbd);
    qtest_add_data_func("vm-quiesce/hung/nbd-flush", (void *)true,
                        test_hung_nbd);
    for (i = 0; i < ARRAY_SIZE(release_cases); i++) {
        g_autofree char *path = g_strdup_printf("vm-quiesce/hung/%s",
                                                release_cases[i].name);

        qtest_add_data_func(path, &release_cases[i], test_hung_release);
    }
    qtest_add_data_func("vm-quiesce/hung/quit", (void *)false, test_hung_quit);
    qtest_add_data_func("vm-quiesce/hung/sigterm", (void *)true,
                        test_hung_quit);
    qtest_add_data_func("vm-quiesce/vhost-user/stop",
                        GINT_TO_POINTER(FAULT_NONE), test_vhost_user);
    qtest_add_data_func("vm-quiesce/vhost-user/hung",
                        GINT_TO_POINTER(FAULT_HUNG), test_vhost_user);
    qtest_add_data_func("vm-quiesce/vhost-user/mute",
                        GINT_TO_POINTER(FAULT_MUTE), test_vhost_user);

    ret = g_test_run();
    vmq_tmpdir_remove();
    return ret;
}
