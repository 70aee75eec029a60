/*
 * Helpers for tests of the quiesced run state
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/prctl.h>
#include <sys/wait.h>
#include "libqos/libqos-pc.h"
#include "libqos/malloc-pc.h"
#include "libqos/pci-pc.h"
#include "libqos/virtio.h"
#include "libqos/virtio-pci.h"
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "standard-headers/linux/virtio_blk.h"
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

void vmq_cont(QTestState *qts)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'cont' }");
    vmq_assert_status(qts, "running");
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

char *vmq_wait_failed(QTestState *qts, const char *token, const char *name)
{
    g_autoptr(QDict) data = vmq_wait(qts, "VM_QUIESCE_FAILED", token);

    return vmq_participant_error(data, name);
}

/* Are they listed for the disk, and for nothing else? */
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
        g_assert_true(qdict_haskey(p, "requests"));
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

char *vmq_wait_hung(QTestState *qts, const char *token, const char *name)
{
    g_autoptr(QDict) data = vmq_wait(qts, "VM_QUIESCE_FAILED", token);

    check_requests(data);
    return vmq_participant_error(data, name);
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

uint8_t vmq_byte_at(const char *path, off_t offset)
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

GPid vmq_start_daemon(const char *args)
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

void vmq_stop_daemon(GPid pid)
{
    kill(pid, SIGCONT);
    kill(pid, SIGTERM);
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
}

GPid vmq_start_nbd(const char *image, const char *sock)
{
    g_autofree char *args = g_strdup_printf(
        "--blockdev file,node-name=n,filename=%s "
        "--nbd-server addr.type=unix,addr.path=%s "
        "--export nbd,id=e,node-name=n,writable=on", image, sock);

    return vmq_start_daemon(args);
}

void vmq_abuse(QTestState *qts, const char *image)
{
    g_autofree char *before = vmq_checksum(image), *after = NULL;
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
                                    "    'size': %d } }", VMQ_IMAGE_SIZE * 2));
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
    after = vmq_checksum(image);
    g_assert_cmpstr(before, ==, after);
}

void vmq_virtio_start(VmqVirtio *v, QTestState *qts, int num_queues)
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

uint64_t vmq_virtio_submit(VmqVirtio *v, const void *header, size_t len,
                              bool data, size_t reply_len)
{
    QVirtQueue *vq = v->vq[v->num_queues - 1];
    uint64_t addr = guest_alloc(&v->alloc, len + VMQ_SECTOR + reply_len);
    uint64_t reply = addr + len + VMQ_SECTOR;
    uint32_t head;

    qtest_memwrite(v->qts, addr, header, len);
    qtest_memset(v->qts, addr + len, 0x5a, VMQ_SECTOR);
    qtest_memset(v->qts, reply, 0xff, reply_len);

    head = qvirtqueue_add(v->qts, vq, addr, len, false, true);
    if (data) {
        qvirtqueue_add(v->qts, vq, addr + len, VMQ_SECTOR, false, true);
    }
    qvirtqueue_add(v->qts, vq, reply, reply_len, true, false);
    qvirtqueue_kick(v->qts, &v->dev->vdev, vq, head);
    return reply;
}

void vmq_virtio_cleanup(VmqVirtio *v)
{
    int i;

    for (i = 0; i < v->num_queues; i++) {
        qvirtqueue_cleanup(v->dev->vdev.bus, v->vq[i], &v->alloc);
    }
    qos_object_destroy((QOSGraphObject *)v->dev);
    qpci_free_pc(v->bus);
    alloc_destroy(&v->alloc);
}

void vmq_virtio_blk_write(VmqVirtio *v)
{
    const struct virtio_blk_outhdr header = {
        .type = cpu_to_le32(VIRTIO_BLK_T_OUT),
    };

    vmq_virtio_submit(v, &header, sizeof(header), true, 1);
}
