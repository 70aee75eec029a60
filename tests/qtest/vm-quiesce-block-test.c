/*
 * Test of the quiesced run state: disks
 *
 * What is promised is checked from outside: another process can lock the
 * image for writing, and the file does not change, whatever is tried with the
 * quiesced VM.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include "libqos/libqos-pc.h"
#include "libqos/malloc-pc.h"
#include "libqos/pci-pc.h"
#include "libqos/virtio.h"
#include "libqos/virtio-pci.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/timer.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "standard-headers/linux/virtio_blk.h"
#include "standard-headers/linux/virtio_scsi.h"
#include "vm-quiesce-util.h"

#define IMAGE_SIZE (16 * 1024 * 1024)
#define SECTOR 512

/* Images and other processes */

static uint8_t byte_at(const char *path, off_t offset)
{
    int fd = open(path, O_RDONLY);
    uint8_t byte;

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pread(fd, &byte, 1, offset), ==, 1);
    close(fd);
    return byte;
}

/* Runs in the child: a failed test leaves nothing behind */
static void die_with_parent(gpointer unused)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/* A storage daemon that is ready */
static GPid start_daemon(const char *args)
{
    const char *binary = getenv("QTEST_QEMU_STORAGE_DAEMON_BINARY");
    g_autofree char *pidfile = vmq_tmpfile("pid");
    g_autofree char *cmd = g_strdup_printf("%s %s --pidfile %s", binary, args,
                                           pidfile);
    g_auto(GStrv) argv = NULL;
    GPid pid;

    g_assert_nonnull(binary);
    g_assert_true(g_shell_parse_argv(cmd, NULL, &argv, NULL));
    g_assert_true(g_spawn_async(NULL, argv, NULL,
                                G_SPAWN_SEARCH_PATH |
                                G_SPAWN_STDOUT_TO_DEV_NULL |
                                G_SPAWN_DO_NOT_REAP_CHILD,
                                die_with_parent, NULL, &pid, NULL));
    /* Written when everything else is done, removed at exit */
    while (!g_file_test(pidfile, G_FILE_TEST_EXISTS)) {
        g_assert_cmpint(waitpid(pid, NULL, WNOHANG), ==, 0);
        g_usleep(1000);
    }
    return pid;
}

static void stop_daemon(GPid pid)
{
    kill(pid, SIGCONT);
    kill(pid, SIGTERM);
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
}

/* An NBD server at @sock, with @image as export "n" */
static GPid start_nbd(const char *image, const char *sock)
{
    g_autofree char *args = g_strdup_printf(
        "--blockdev file,node-name=n,filename=%s "
        "--nbd-server addr.type=unix,addr.path=%s "
        "--export nbd,id=e,node-name=n,writable=on", image, sock);

    return start_daemon(args);
}

/* A process that holds the image's write lock; it listens on @sock */
static GPid hold_lock(const char *path, const char *format, const char *sock)
{
    g_autofree char *args = g_strdup_printf(
        "--blockdev %s,node-name=n,file.driver=file,file.filename=%s "
        "--nbd-server addr.type=unix,addr.path=%s "
        "--export nbd,id=e,node-name=n,writable=on", format, path, sock);

    return start_daemon(args);
}

/* Disks */

typedef struct Disk {
    const char *name;
    const char *args;
    /* QOM path of the device that owns the block backend */
    const char *path;
} Disk;

static const Disk disks[] = {
    { "virtio-blk", "-device virtio-blk-pci,id=dev,drive=disk",
      "/machine/peripheral/dev/virtio-backend" },
    { "virtio-blk-ioeventfd-off",
      "-device virtio-blk-pci,id=dev,drive=disk,ioeventfd=off",
      "/machine/peripheral/dev/virtio-backend" },
    { "virtio-blk-iothread",
      "-object iothread,id=io "
      "-device virtio-blk-pci,id=dev,drive=disk,iothread=io",
      "/machine/peripheral/dev/virtio-backend" },
    { "virtio-scsi",
      "-device virtio-scsi-pci -device scsi-hd,id=dev,drive=disk",
      "/machine/peripheral/dev" },
    { "virtio-scsi-iothread",
      "-object iothread,id=io -device virtio-scsi-pci,iothread=io "
      "-device scsi-hd,id=dev,drive=disk", "/machine/peripheral/dev" },
    { "ide", "-device ide-hd,id=dev,drive=disk", "/machine/peripheral/dev" },
    { "ahci",
      "-device ahci,id=ahci -device ide-hd,bus=ahci.0,id=dev,drive=disk",
      "/machine/peripheral/dev" },
    { "nvme", "-device nvme,serial=1,id=dev,drive=disk",
      "/machine/peripheral/dev" },
    { "lsi", "-device lsi53c895a -device scsi-hd,id=dev,drive=disk",
      "/machine/peripheral/dev" },
};

typedef struct DiskCase {
    const Disk *disk;
    const char *format;
} DiskCase;

/* Things that would write to the image, or make somebody do it */
static void abuse(QTestState *qts, const char *image)
{
    int i;

    for (i = 0; i < 40; i++) {
        switch (g_test_rand_int_range(0, 13)) {
        case 0:
            qobject_unref(qtest_qmp(qts, "{ 'execute': 'cont' }"));
            break;
        case 1:
            qobject_unref(qtest_qmp(qts, "{ 'execute': 'system_reset' }"));
            break;
        case 2:
            qobject_unref(qtest_qmp(qts, "{ 'execute': 'blockdev-set-active',"
                                    "  'arguments': { 'active': true } }"));
            break;
        case 3:
            qobject_unref(qtest_qmp(qts, "{ 'execute': 'device_del',"
                                    "  'arguments': { 'id': 'dev' } }"));
            break;
        case 4:
            qobject_unref(qtest_qmp(qts, "{ 'execute': 'blockdev-add',"
                                    "  'arguments': { 'driver': 'file',"
                                    "    'node-name': 'other',"
                                    "    'filename': %s } }", image));
            break;
        case 5:
            qobject_unref(qtest_qmp(qts, "{ 'execute': 'block_resize',"
                                    "  'arguments': { 'node-name': 'disk',"
                                    "    'size': %d } }", IMAGE_SIZE * 2));
            break;
        case 6:
            qobject_unref(qtest_qmp(
                qts, "{ 'execute': 'blockdev-snapshot-internal-sync',"
                "  'arguments': { 'device': 'disk', 'name': 's' } }"));
            break;
        case 7:
            qobject_unref(qtest_qmp(qts, "{ 'execute': 'migrate',"
                                    "  'arguments': {"
                                    "    'uri': 'exec:cat >/dev/null' } }"));
            break;
        case 8:
            g_free(qtest_hmp(qts, "qemu-io disk \"write 0 64k\""));
            break;
        case 9:
            g_free(qtest_hmp(qts, "savevm s"));
            break;
        case 10:
            g_free(qtest_hmp(qts, "commit all"));
            break;
        case 11:
            qobject_unref(qtest_qmp(qts, "{ 'execute': 'vm-unquiesce',"
                                    "  'arguments': { 'token': 'x' } }"));
            break;
        case 12:
            qtest_clock_step(qts, NANOSECONDS_PER_SECOND);
            break;
        }
        vmq_assert_status(qts, "quiesced");
    }
}

static void assert_all_inactive(QTestState *qts)
{
    QDict *rsp = qtest_qmp(qts, "{ 'execute': 'query-named-block-nodes' }");
    const QListEntry *e;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), e) {
        QDict *node = qobject_to(QDict, qlist_entry_obj(e));

        g_assert_false(qdict_get_bool(node, "active"));
    }
    qobject_unref(rsp);
}

static void test_disk(const void *opaque)
{
    const DiskCase *c = opaque;
    g_autofree char *image = vmq_make_image(c->format, IMAGE_SIZE);
    g_autofree char *sock = vmq_tmpfile("holder");
    QTestState *qts = qtest_initf(
        "-machine pc -blockdev file,node-name=file,filename=%s "
        "-blockdev %s,node-name=disk,file=file %s",
        image, c->format, c->disk->args);
    g_autofree char *token = NULL, *before = NULL, *after = NULL;
    GPid holder;
    int i;

    g_assert_false(vmq_can_write(image, c->format));

    for (i = 0; i < 8; i++) {
        g_free(qtest_hmp(qts, "qemu-io -d %s \"aio_write -q -P %d %dk 64k\"",
                         c->disk->path, 0xa0 + i, i * 64));
    }
    token = vmq_quiesce(qts);

    /* What was in flight is there, and somebody else may take over */
    if (g_str_equal(c->format, "raw")) {
        for (i = 0; i < 8; i++) {
            g_assert_cmphex(byte_at(image, i * 64 * 1024), ==, 0xa0 + i);
        }
    }
    assert_all_inactive(qts);
    before = vmq_checksum(image);
    abuse(qts, image);
    after = vmq_checksum(image);
    g_assert_cmpstr(before, ==, after);
    g_assert_true(vmq_can_write(image, c->format));

    holder = hold_lock(image, c->format, sock);
    vmq_assert_unquiesce_fails(qts, token, "Node '");
    vmq_assert_unquiesce_fails(qts, token, "Failed to get");
    vmq_assert_status(qts, "quiesced");
    assert_all_inactive(qts);
    abuse(qts, image);
    stop_daemon(holder);
    unlink(sock);
    g_assert_true(vmq_can_write(image, c->format));

    vmq_unquiesce(qts, token);
    vmq_assert_status(qts, "paused");
    g_assert_false(vmq_can_write(image, c->format));
    qtest_qmp_assert_success(qts, "{ 'execute': 'cont' }");
    g_free(qtest_hmp(qts, "qemu-io -d %s \"write -q -P 1 0 64k\"",
                     c->disk->path));
    qtest_quit(qts);
    g_assert_true(vmq_can_write(image, c->format));
    unlink(image);
}

/* Requests that failed, and that the device keeps */

typedef struct Held {
    QTestState *qts;
    char *image;
} Held;

static Held held_start(const char *device)
{
    Held h = { .image = vmq_make_image("raw", IMAGE_SIZE) };

    h.qts = qtest_initf(
        "-machine pc -blockdev file,node-name=file,filename=%s "
        "-blockdev blkdebug,node-name=disk,image=file,"
        "inject-error.0.event=pwritev,inject-error.0.iotype=write,"
        "inject-error.0.once=on %s", h.image, device);
    return h;
}

/* The first write has been submitted, and has failed */
static void held_check(Held *h)
{
    g_autofree char *before = vmq_checksum(h->image);
    g_autofree char *after = NULL, *token = NULL;
    QDict *data;

    qtest_qmp_eventwait(h->qts, "STOP");
    vmq_assert_status(h->qts, "io-error");
    g_assert_cmpint(vmq_held_requests(h->qts), ==, 1);

    token = vmq_start(h->qts, 60000);
    data = vmq_wait(h->qts, "VM_QUIESCED", token);
    g_assert_cmpint(qdict_get_int(data, "held-requests"), ==, 1);
    qobject_unref(data);

    abuse(h->qts, h->image);
    g_assert_cmpint(vmq_held_requests(h->qts), ==, 1);
    after = vmq_checksum(h->image);
    g_assert_cmpstr(before, ==, after);

    /* Not replayed before the VM runs */
    vmq_unquiesce(h->qts, token);
    g_free(after);
    after = vmq_checksum(h->image);
    g_assert_cmpstr(before, ==, after);
    g_assert_cmpint(vmq_held_requests(h->qts), ==, 1);

    qtest_qmp_assert_success(h->qts, "{ 'execute': 'cont' }");
    while (byte_at(h->image, 0) != 0x5a) {
        g_usleep(1000);
    }
    g_assert_cmpint(vmq_held_requests(h->qts), ==, 0);
    qtest_quit(h->qts);
    unlink(h->image);
    g_free(h->image);
}

static void test_held_ide(void)
{
    Held h = held_start("-device ide-hd,drive=disk,bus=ide.0,werror=stop,"
                        "rerror=stop");

    vmq_ide_write(h.qts, 0x5a);
    held_check(&h);
}

typedef struct Virtio {
    QTestState *qts;
    QGuestAllocator alloc;
    QPCIBus *bus;
    QVirtioPCIDevice *dev;
    QVirtQueue *vq[3];
    int num_queues;
} Virtio;

/* Drive the virtio device in slot 4 */
static void virtio_start(Virtio *v, QTestState *qts, int num_queues)
{
    QPCIAddress addr = { .devfn = QPCI_DEVFN(4, 0) };
    QVirtioDevice *vdev;
    uint64_t features;
    int i;

    v->qts = qts;
    v->num_queues = num_queues;
    pc_alloc_init(&v->alloc, qts, 0);
    v->bus = qpci_new_pc(qts, &v->alloc);
    v->dev = virtio_pci_new(v->bus, &addr);
    g_assert_nonnull(v->dev);
    vdev = &v->dev->vdev;
    qvirtio_pci_device_enable(v->dev);
    qvirtio_start_device(vdev);
    features = qvirtio_get_features(vdev);
    features &= ~(QVIRTIO_F_BAD_FEATURE | 1ull << VIRTIO_RING_F_INDIRECT_DESC |
                  1ull << VIRTIO_RING_F_EVENT_IDX);
    qvirtio_set_features(vdev, features);
    for (i = 0; i < num_queues; i++) {
        v->vq[i] = qvirtqueue_setup(vdev, &v->alloc, i);
    }
    qvirtio_set_driver_ok(vdev);
}

/* Submit @header and a sector of 0x5a if @data; returns the reply's address */
static uint64_t virtio_submit(Virtio *v, const void *header, size_t len,
                              bool data, size_t reply_len)
{
    QVirtQueue *vq = v->vq[v->num_queues - 1];
    uint64_t addr = guest_alloc(&v->alloc, len + SECTOR + reply_len);
    uint64_t reply = addr + len + SECTOR;
    uint32_t head;

    qtest_memwrite(v->qts, addr, header, len);
    qtest_memset(v->qts, addr + len, 0x5a, SECTOR);
    qtest_memset(v->qts, reply, 0xff, reply_len);

    head = qvirtqueue_add(v->qts, vq, addr, len, false, true);
    if (data) {
        qvirtqueue_add(v->qts, vq, addr + len, SECTOR, false, true);
    }
    qvirtqueue_add(v->qts, vq, reply, reply_len, true, false);
    qvirtqueue_kick(v->qts, &v->dev->vdev, vq, head);
    return reply;
}

static void virtio_cleanup(Virtio *v)
{
    int i;

    for (i = 0; i < v->num_queues; i++) {
        qvirtqueue_cleanup(v->dev->vdev.bus, v->vq[i], &v->alloc);
    }
    qos_object_destroy((QOSGraphObject *)v->dev);
    qpci_free_pc(v->bus);
    alloc_destroy(&v->alloc);
}

static void virtio_blk_write(Virtio *v)
{
    const struct virtio_blk_outhdr header = {
        .type = cpu_to_le32(VIRTIO_BLK_T_OUT),
    };

    virtio_submit(v, &header, sizeof(header), true, 1);
}

static void test_held_virtio_blk(void)
{
    Held h = held_start("-device virtio-blk-pci,addr=4,drive=disk,"
                        "werror=stop,rerror=stop");
    Virtio v;

    virtio_start(&v, h.qts, 1);
    virtio_blk_write(&v);
    virtio_cleanup(&v);
    held_check(&h);
}

static void test_held_virtio_scsi(void)
{
    Held h = held_start("-device virtio-scsi-pci,addr=4 -device scsi-hd,"
                        "drive=disk,werror=stop,rerror=stop");
    struct virtio_scsi_cmd_req req = { .lun = { 1, 0, 0x40 } };
    uint64_t reply;
    Virtio v;

    virtio_start(&v, h.qts, 3);

    /* TEST UNIT READY takes the unit attention */
    reply = virtio_submit(&v, &req, sizeof(req), false,
                          sizeof(struct virtio_scsi_cmd_resp));
    while (qtest_readb(h.qts, reply +
                       offsetof(struct virtio_scsi_cmd_resp, response))) {
        g_usleep(1000);
    }

    /* WRITE (10), one block */
    req.cdb[0] = 0x2a;
    req.cdb[8] = 1;
    virtio_submit(&v, &req, sizeof(req), true,
                  sizeof(struct virtio_scsi_cmd_resp));
    virtio_cleanup(&v);
    held_check(&h);
}

/* Back ends that fail or hang */

static void test_flush_error(void)
{
    g_autofree char *image = vmq_make_image("raw", IMAGE_SIZE);
    QTestState *qts = qtest_initf(
        "-machine pc -blockdev file,node-name=file,filename=%s "
        "-blockdev blkdebug,node-name=debug,image=file,"
        "inject-error.0.event=flush_to_disk,inject-error.0.errno=28,"
        "inject-error.0.once=on -blockdev raw,node-name=disk,file=debug "
        "-device ide-hd,id=dev,drive=disk", image);
    g_autofree char *token = vmq_start(qts, 60000);
    g_autofree char *second = NULL, *error = NULL;
    QDict *data;

    /* It makes a difference only if there is something to flush */
    qobject_unref(vmq_wait(qts, "VM_QUIESCED", token));
    vmq_unquiesce(qts, token);
    g_free(qtest_hmp(qts, "qemu-io -d /machine/peripheral/dev "
                     "\"aio_write -q 0 64k\""));

    g_free(token);
    token = vmq_start(qts, 60000);
    data = vmq_wait(qts, "VM_QUIESCE_FAILED", token);
    error = vmq_participant_error(data, "block");
    g_assert_nonnull(strstr(error, "): flush failed: No space left"));
    qobject_unref(data);
    vmq_assert_status(qts, "paused");
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'cont' }"),
                     "is not permitted until 'vm-unquiesce'");
    g_assert_false(vmq_can_write(image, "raw"));

    /* Again, after repair, with a token of its own */
    second = vmq_start(qts, 60000);
    g_assert_cmpstr(token, !=, second);
    qobject_unref(vmq_wait(qts, "VM_QUIESCED", second));
    g_assert_true(vmq_can_write(image, "raw"));
    vmq_assert_unquiesce_fails(qts, token, "does not match");
    vmq_unquiesce(qts, second);
    qtest_quit(qts);
    unlink(image);
}

/* A failed attempt can be given up */
static void test_flush_error_undo(void)
{
    g_autofree char *image = vmq_make_image("raw", IMAGE_SIZE);
    QTestState *qts = qtest_initf(
        "-machine pc -blockdev file,node-name=file,filename=%s "
        "-blockdev blkdebug,node-name=debug,image=file,"
        "inject-error.0.event=flush_to_disk "
        "-blockdev raw,node-name=disk,file=debug "
        "-device ide-hd,id=dev,drive=disk", image);
    g_autofree char *token = NULL;

    g_free(qtest_hmp(qts, "qemu-io -d /machine/peripheral/dev "
                     "\"aio_write -q 0 64k\""));
    token = vmq_start(qts, 60000);
    qobject_unref(vmq_wait(qts, "VM_QUIESCE_FAILED", token));
    vmq_unquiesce(qts, token);
    vmq_assert_status(qts, "paused");
    qtest_qmp_assert_success(qts, "{ 'execute': 'cont' }");
    vmq_assert_status(qts, "running");
    qtest_quit(qts);
    unlink(image);
}

/* What VM_QUIESCE_FAILED says of the one request to node 'disk' */
static void check_requests(QDict *data)
{
    const QListEntry *e;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(data, "participants"), e) {
        QDict *p = qobject_to(QDict, qlist_entry_obj(e));
        const QListEntry *first;
        QDict *r;

        if (!g_str_equal(qdict_get_str(p, "name"), "block")) {
            g_assert_false(qdict_haskey(p, "requests"));
            continue;
        }
        first = qlist_first(qdict_get_qlist(p, "requests"));
        r = qobject_to(QDict, qlist_entry_obj(first));
        g_assert_cmpstr(qdict_get_str(r, "node-name"), ==, "disk");
        g_assert_cmpstr(qdict_get_str(r, "qom-path"), ==,
                        "/machine/peripheral/dev");
        g_assert_cmpint(qdict_get_int(r, "count"), ==, 1);
        /* The deadline was 200 ms */
        g_assert_cmpint(qdict_get_int(r, "age-ms"), >=, 150);
    }
}

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
    g_autofree char *image = vmq_make_image("raw", IMAGE_SIZE);
    g_autofree char *sock = vmq_tmpfile("nbd");
    GPid server = start_nbd(image, sock);
    QTestState *qts = qtest_initf(
        "-machine pc -blockdev nbd,node-name=disk,export=n,server.type=unix,"
        "server.path=%s -device ide-hd,id=dev,drive=disk", sock);
    g_autofree char *token = NULL, *error = NULL;
    QDict *data;

    if (!flush) {
        kill(server, SIGSTOP);
    }
    g_free(qtest_hmp(qts, "qemu-io -d /machine/peripheral/dev "
                     "\"%s -q -P 90 0 64k\"", flush ? "write" : "aio_write"));
    kill(server, SIGSTOP);

    token = vmq_start(qts, 200);
    vmq_assert_status(qts, "paused");
    data = vmq_wait(qts, "VM_QUIESCE_FAILED", token);
    error = vmq_participant_error(data, "block");
    g_assert_true(g_str_has_prefix(error, culprit));
    check_requests(data);
    qobject_unref(data);

    vmq_assert_status(qts, "paused");
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'cont' }"),
                     "is not permitted until 'vm-unquiesce'");
    vmq_assert_unquiesce_fails(qts, token, culprit);
    g_assert_cmpint(byte_at(image, 0), ==, flush ? 90 : 0);

    kill(server, SIGCONT);
    qobject_unref(vmq_wait(qts, "VM_QUIESCED", token));
    vmq_assert_status(qts, "quiesced");
    g_assert_cmpint(byte_at(image, 0), ==, 90);

    vmq_unquiesce(qts, token);
    qtest_qmp_assert_success(qts, "{ 'execute': 'cont' }");
    qtest_quit(qts);
    stop_daemon(server);
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
    g_autofree char *image = vmq_make_image("raw", IMAGE_SIZE);
    g_autofree char *sock = vmq_tmpfile("vhost-user");
    g_autofree char *args = g_strdup_printf(
        "--blockdev file,node-name=n,filename=%s "
        "--export vhost-user-blk,id=e,addr.type=unix,addr.path=%s,"
        "node-name=n,writable=on", image, sock);
    GPid server = start_daemon(args);
    g_autofree char *token = NULL, *before = NULL, *after = NULL;
    QTestState *qts;
    Proxy proxy;
    Virtio v;

    if (fault == FAULT_MUTE) {
        proxy_start(&proxy, sock, path);
    }
    qts = qtest_initf("-machine pc,memory-backend=mem -m 64 "
                      "-object memory-backend-memfd,id=mem,size=64M,share=on "
                      "-chardev socket,id=c,path=%s "
                      "-device vhost-user-blk-pci,addr=4,chardev=c", path);
    virtio_start(&v, qts, 1);
    virtio_blk_write(&v);
    while (byte_at(image, 0) != 0x5a) {
        g_usleep(1000);
    }

    if (fault == FAULT_HUNG) {
        g_autofree char *error = NULL;
        QDict *data;

        kill(server, SIGSTOP);
        token = vmq_start(qts, 200);
        data = vmq_wait(qts, "VM_QUIESCE_FAILED", token);
        error = vmq_participant_error(data, "vhost");
        g_assert_nonnull(strstr(error, "back end does not answer"));
        qobject_unref(data);
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
    virtio_blk_write(&v);
    g_usleep(100 * 1000);
    after = vmq_checksum(image);
    g_assert_cmpstr(before, ==, after);
    vmq_assert_status(qts, "quiesced");

    vmq_unquiesce(qts, token);
    qtest_qmp_assert_success(qts, "{ 'execute': 'cont' }");
    vmq_assert_status(qts, "running");
    virtio_cleanup(&v);
    qtest_quit(qts);
    if (fault == FAULT_MUTE) {
        proxy_stop(&proxy, path);
    }
    stop_daemon(server);
    unlink(image);
    unlink(sock);
}

/*
 * Formats write when a node is inactivated, even if nothing was dirty: that
 * must not be tried before the storage answers.
 */
typedef struct Release {
    char *image, *sock;
    GPid server;
    QTestState *qts;
} Release;

/* A disk, clean, whose node is written to when it is inactivated */
static void release_start(Release *r, const char *options)
{
    g_autofree char *size = g_strdup_printf("%d", IMAGE_SIZE);
    char *create[] = { vmq_qemu_img(), (char *)"create", (char *)"-q",
                       (char *)"-f", (char *)"qcow2", (char *)"-o",
                       (char *)options, NULL, size, NULL };

    r->image = create[7] = vmq_tmpfile("image");
    r->sock = vmq_tmpfile("nbd");
    g_assert_cmpint(vmq_run(create), ==, 0);
    /* An export does not grow */
    g_assert_cmpint(truncate(r->image, 2 * IMAGE_SIZE), ==, 0);
    r->server = start_nbd(r->image, r->sock);
    r->qts = qtest_initf(
        "-machine pc -blockdev nbd,node-name=nbd,export=n,server.type=unix,"
        "server.path=%s -blockdev qcow2,node-name=disk,file=nbd "
        "-device ide-hd,id=dev,drive=disk", r->sock);
    qtest_qmp_assert_success(r->qts, "{ 'execute': 'block-dirty-bitmap-add',"
                             "  'arguments': { 'node': 'disk', 'name': 'b',"
                             "    'persistent': %i } }",
                             !strstr(options, "lazy"));
    g_free(qtest_hmp(r->qts, "qemu-io -d /machine/peripheral/dev "
                     "\"write -q -P 90 0 64k\""));
    g_free(qtest_hmp(r->qts, "qemu-io -d /machine/peripheral/dev flush"));
}

static void release_end(Release *r)
{
    qtest_quit(r->qts);
    stop_daemon(r->server);
    unlink(r->image);
    unlink(r->sock);
    g_free(r->image);
    g_free(r->sock);
}

static void test_hung_release(const void *opaque)
{
    const char *options = opaque;
    g_autofree char *token = NULL, *error = NULL;
    Release r;
    QDict *data;

    release_start(&r, options);
    kill(r.server, SIGSTOP);

    token = vmq_start(r.qts, 200);
    data = vmq_wait(r.qts, "VM_QUIESCE_FAILED", token);
    error = vmq_participant_error(data, "block");
    g_assert_nonnull(strstr(error, "flush in flight"));
    qobject_unref(data);
    vmq_assert_status(r.qts, "paused");

    kill(r.server, SIGCONT);
    qobject_unref(vmq_wait(r.qts, "VM_QUIESCED", token));
    vmq_unquiesce(r.qts, token);
    qtest_qmp_assert_success(r.qts, "{ 'execute': 'cont' }");
    if (!strstr(options, "lazy")) {
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

    release_start(&r, "compat=1.1");
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

/* Block jobs and exports */

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

static void test_job(const void *opaque)
{
    const JobCase *c = opaque;
    g_autofree char *image = vmq_make_image("qcow2", IMAGE_SIZE);
    g_autofree char *target = g_strdup_printf("%s-target", image);
    QTestState *qts = qtest_initf(
        "-machine pc -blockdev file,node-name=file,filename=%s "
        "-blockdev qcow2,node-name=disk,file=file "
        "-device virtio-blk-pci,id=dev,drive=disk", image);
    g_autofree char *token = NULL, *before = NULL, *after = NULL;
    QDict *rsp;

    g_assert_true(g_file_set_contents(target, "", 0, NULL));
    g_assert_cmpint(truncate(target, IMAGE_SIZE), ==, 0);
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
    rsp = qtest_qmp(qts, "{ 'execute': 'query-jobs' }");
    g_assert_true(qlist_empty(qdict_get_qlist(rsp, "return")));
    qobject_unref(rsp);
    rsp = only_entry(qts, "cancelled-jobs");
    g_assert_cmpstr(qdict_get_str(rsp, "id"), ==, "job");
    g_assert_cmpstr(qdict_get_str(rsp, "status"), ==, c->state);
    qobject_unref(rsp);

    before = vmq_checksum(target);
    g_assert_true(vmq_can_write(image, "qcow2"));
    g_assert_true(vmq_can_write(target, "raw"));
    abuse(qts, image);
    after = vmq_checksum(target);
    g_assert_cmpstr(before, ==, after);

    vmq_unquiesce(qts, token);
    qtest_qmp_assert_success(qts, "{ 'execute': 'cont' }");
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
    g_autofree char *image = vmq_make_image("raw", IMAGE_SIZE);
    g_autofree char *sock = vmq_tmpfile("nbd");
    GPid server = start_nbd(image, sock);
    QTestState *qts = qtest_initf(
        "-machine pc -blockdev nbd,node-name=disk,export=n,server.type=unix,"
        "server.path=%s -device ide-hd,id=dev,drive=disk "
        "-blockdev null-co,node-name=target,size=%d", sock, IMAGE_SIZE);
    g_autofree char *token = NULL, *error = NULL;
    QDict *data;

    qtest_qmp_assert_success(qts, "{ 'execute': 'blockdev-mirror',"
                             "  'arguments': { 'job-id': 'job',"
                             "    'device': 'disk', 'target': 'target',"
                             "    'sync': 'full' } }");
    wait_job(qts, "ready");
    kill(server, SIGSTOP);
    g_free(qtest_hmp(qts, "qemu-io -d /machine/peripheral/dev "
                     "\"aio_write -q -P 90 0 64k\""));

    token = vmq_start(qts, 200);
    data = vmq_wait(qts, "VM_QUIESCE_FAILED", token);
    error = vmq_participant_error(data, "block-jobs");
    g_assert_cmpstr(error, ==, "job 'job' (mirror) has not ended");
    check_requests(data);
    qobject_unref(data);
    vmq_assert_status(qts, "paused");

    if (quit) {
        qtest_qmp_assert_success(qts, "{ 'execute': 'quit' }");
        qtest_wait_qemu(qts);
    } else {
        kill(server, SIGCONT);
        qobject_unref(vmq_wait(qts, "VM_QUIESCED", token));
        data = only_entry(qts, "cancelled-jobs");
        g_assert_cmpstr(qdict_get_str(data, "status"), ==, "ready");
        qobject_unref(data);
        g_assert_cmpint(byte_at(image, 0), ==, 90);
        vmq_unquiesce(qts, token);
        qtest_qmp_assert_success(qts, "{ 'execute': 'cont' }");
    }
    qtest_quit(qts);
    stop_daemon(server);
    unlink(image);
    unlink(sock);
}

/* Jobs of a group end together: one waits for the other */
static void test_job_group(void)
{
    g_autofree char *image = vmq_make_image("raw", IMAGE_SIZE);
    QTestState *qts = qtest_initf(
        "-machine pc -blockdev file,node-name=disk,filename=%s "
        "-device virtio-blk-pci,drive=disk "
        "-blockdev null-co,node-name=t1,size=%d "
        "-blockdev null-co,node-name=t2,size=%d",
        image, IMAGE_SIZE, IMAGE_SIZE);
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
    ret = qtest_qmp(qts, "{ 'execute': 'query-jobs' }");
    g_assert_true(qlist_empty(qdict_get_qlist(ret, "return")));
    qobject_unref(ret);
    g_assert_true(vmq_can_write(image, "raw"));
    vmq_unquiesce(qts, token);
    qtest_quit(qts);
    unlink(image);
}

static void test_export(const void *opaque)
{
    bool writable = opaque;
    g_autofree char *image = vmq_make_image("raw", IMAGE_SIZE);
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
    rsp = qtest_qmp(qts, "{ 'execute': 'query-block-exports' }");
    g_assert_true(qlist_empty(qdict_get_qlist(rsp, "return")));
    qobject_unref(rsp);
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
    static const char *const formats[] = { "raw", "qcow2" };
    static DiskCase cases[ARRAY_SIZE(disks) * ARRAY_SIZE(formats)];
    int i, j, ret;

    g_test_init(&argc, &argv, NULL);
    vmq_tmpdir_make();

    for (i = 0; i < ARRAY_SIZE(disks); i++) {
        for (j = 0; j < ARRAY_SIZE(formats); j++) {
            DiskCase *c = &cases[i * ARRAY_SIZE(formats) + j];
            g_autofree char *path = g_strdup_printf(
                "vm-quiesce/disk/%s/%s", disks[i].name, formats[j]);

            *c = (DiskCase) { &disks[i], formats[j] };
            qtest_add_data_func(path, c, test_disk);
        }
    }
    qtest_add_func("vm-quiesce/held/ide", test_held_ide);
    qtest_add_func("vm-quiesce/held/virtio-blk", test_held_virtio_blk);
    qtest_add_func("vm-quiesce/held/virtio-scsi", test_held_virtio_scsi);
    qtest_add_func("vm-quiesce/flush-error/retry", test_flush_error);
    qtest_add_func("vm-quiesce/flush-error/undo", test_flush_error_undo);
    qtest_add_data_func("vm-quiesce/hung/nbd", (void *)false, test_hung_nbd);
    qtest_add_data_func("vm-quiesce/hung/nbd-flush", (void *)true,
                        test_hung_nbd);
    qtest_add_data_func("vm-quiesce/hung/bitmap", "compat=1.1",
                        test_hung_release);
    qtest_add_data_func("vm-quiesce/hung/lazy-refcounts",
                        "compat=1.1,lazy_refcounts=on", test_hung_release);
    qtest_add_data_func("vm-quiesce/hung/quit", (void *)false, test_hung_quit);
    qtest_add_data_func("vm-quiesce/hung/sigterm", (void *)true,
                        test_hung_quit);
    qtest_add_data_func("vm-quiesce/vhost-user/stop",
                        GINT_TO_POINTER(FAULT_NONE), test_vhost_user);
    qtest_add_data_func("vm-quiesce/vhost-user/hung",
                        GINT_TO_POINTER(FAULT_HUNG), test_vhost_user);
    qtest_add_data_func("vm-quiesce/vhost-user/mute",
                        GINT_TO_POINTER(FAULT_MUTE), test_vhost_user);
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
