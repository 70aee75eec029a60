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
#include "qemu/bswap.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "standard-headers/linux/virtio_scsi.h"
#include "vm-quiesce-util.h"

/* A process that holds the image's write lock; it listens on @sock */
static GPid hold_lock(const char *path, const char *format, const char *sock)
{
    g_autofree char *args = g_strdup_printf(
        "--blockdev %s,node-name=n,file.driver=file,file.filename=%s "
        "--nbd-server addr.type=unix,addr.path=%s "
        "--export nbd,id=e,node-name=n,writable=on", format, path, sock);

    return vmq_start_daemon(args);
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
    g_autofree char *image = vmq_make_image(c->format, VMQ_IMAGE_SIZE);
    g_autofree char *sock = vmq_tmpfile("holder");
    QTestState *qts = qtest_initf(
        "-machine pc -blockdev file,node-name=file,filename=%s "
        "-blockdev %s,node-name=disk,file=file %s",
        image, c->format, c->disk->args);
    g_autofree char *token = NULL;
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
            g_assert_cmphex(vmq_byte_at(image, i * 64 * 1024), ==, 0xa0 + i);
        }
    }
    assert_all_inactive(qts);
    vmq_abuse(qts, image);
    g_assert_true(vmq_can_write(image, c->format));

    holder = hold_lock(image, c->format, sock);
    vmq_assert_unquiesce_fails(qts, token, "Node '");
    vmq_assert_unquiesce_fails(qts, token, "Failed to get");
    vmq_assert_status(qts, "quiesced");
    assert_all_inactive(qts);
    vmq_abuse(qts, image);
    vmq_stop_daemon(holder);
    unlink(sock);
    g_assert_true(vmq_can_write(image, c->format));

    vmq_unquiesce(qts, token);
    vmq_assert_status(qts, "paused");
    g_assert_false(vmq_can_write(image, c->format));
    vmq_cont(qts);
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
    Held h = { .image = vmq_make_image("raw", VMQ_IMAGE_SIZE) };

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

    vmq_abuse(h->qts, h->image);
    g_assert_cmpint(vmq_held_requests(h->qts), ==, 1);
    after = vmq_checksum(h->image);
    g_assert_cmpstr(before, ==, after);

    /* Not replayed before the VM runs */
    vmq_unquiesce(h->qts, token);
    g_free(after);
    after = vmq_checksum(h->image);
    g_assert_cmpstr(before, ==, after);
    g_assert_cmpint(vmq_held_requests(h->qts), ==, 1);

    vmq_cont(h->qts);
    while (vmq_byte_at(h->image, 0) != 0x5a) {
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

static void test_held_virtio_blk(void)
{
    Held h = held_start("-device virtio-blk-pci,addr=4,drive=disk,"
                        "werror=stop,rerror=stop");
    VmqVirtio v;

    vmq_virtio_start(&v, h.qts, 1);
    vmq_virtio_blk_write(&v);
    vmq_virtio_cleanup(&v);
    held_check(&h);
}

static void test_held_virtio_scsi(void)
{
    Held h = held_start("-device virtio-scsi-pci,addr=4 -device scsi-hd,"
                        "drive=disk,werror=stop,rerror=stop");
    struct virtio_scsi_cmd_req req = { .lun = { 1, 0, 0x40 } };
    uint64_t reply;
    VmqVirtio v;

    vmq_virtio_start(&v, h.qts, 3);

    /* TEST UNIT READY takes the unit attention */
    reply = vmq_virtio_submit(&v, &req, sizeof(req), false,
                          sizeof(struct virtio_scsi_cmd_resp));
    while (qtest_readb(h.qts, reply +
                       offsetof(struct virtio_scsi_cmd_resp, response))) {
        g_usleep(1000);
    }

    /* WRITE (10), one block */
    req.cdb[0] = 0x2a;
    req.cdb[8] = 1;
    vmq_virtio_submit(&v, &req, sizeof(req), true,
                  sizeof(struct virtio_scsi_cmd_resp));
    vmq_virtio_cleanup(&v);
    held_check(&h);
}

/* A device that was unplugged keeps its block backend until RCU frees it */
static void test_held_unplugged(void)
{
    g_autofree char *image = vmq_make_image("raw", VMQ_IMAGE_SIZE);
    g_autofree char *bios = vmq_tmpfile("bios");
    g_autofree char *code = g_malloc(64 * 1024);
    g_autofree char *token = NULL;
    QTestState *qts;
    int i;

    /* A vCPU that jumps in circles is slow to let RCU go on */
    for (i = 0; i < 64 * 1024; i += 2) {
        memcpy(&code[i], "\xeb\xfe", 2);
    }
    g_assert_true(g_file_set_contents(bios, code, 64 * 1024, NULL));
    qts = qtest_initf("-machine pc -accel tcg -bios %s "
                      "-blockdev file,node-name=disk,filename=%s "
                      "-device virtio-scsi-pci -device scsi-hd,id=dev,"
                      "drive=disk", bios, image);

    qtest_qmp_assert_success(qts, "{ 'execute': 'device_del',"
                             "  'arguments': { 'id': 'dev' } }");
    g_assert_cmpint(vmq_held_requests(qts), ==, 0);
    token = vmq_quiesce(qts);
    g_assert_true(vmq_can_write(image, "raw"));
    vmq_unquiesce(qts, token);
    qtest_quit(qts);
    unlink(bios);
    unlink(image);
}

/* Flushes that fail */

static QTestState *flush_error_start(const char *image, const char *options)
{
    return qtest_initf(
        "-machine pc -blockdev file,node-name=file,filename=%s "
        "-blockdev blkdebug,node-name=debug,image=file,"
        "inject-error.0.event=flush_to_disk%s "
        "-blockdev raw,node-name=disk,file=debug "
        "-device ide-hd,id=dev,drive=disk", image, options);
}

/* It makes a difference only if there is something to flush */
static void flush_error_write(QTestState *qts)
{
    g_free(qtest_hmp(qts, "qemu-io -d /machine/peripheral/dev "
                     "\"aio_write -q 0 64k\""));
}

static void test_flush_error(void)
{
    g_autofree char *image = vmq_make_image("raw", VMQ_IMAGE_SIZE);
    QTestState *qts = flush_error_start(
        image, ",inject-error.0.errno=28,inject-error.0.once=on");
    g_autofree char *token = vmq_quiesce(qts);
    g_autofree char *second = NULL, *error = NULL;

    vmq_unquiesce(qts, token);
    flush_error_write(qts);

    g_free(token);
    token = vmq_start(qts, 60000);
    error = vmq_wait_failed(qts, token, "block");
    g_assert_nonnull(strstr(error, "): flush failed: No space left"));
    vmq_assert_status(qts, "paused");
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'cont' }"),
                     "is not permitted until 'vm-unquiesce'");
    g_assert_false(vmq_can_write(image, "raw"));

    /* Again, after repair, with a token of its own */
    second = vmq_quiesce(qts);
    g_assert_cmpstr(token, !=, second);
    g_assert_true(vmq_can_write(image, "raw"));
    vmq_assert_unquiesce_fails(qts, token, "does not match");
    vmq_unquiesce(qts, second);
    qtest_quit(qts);
    unlink(image);
}

/* A failed attempt can be given up */
static void test_flush_error_undo(void)
{
    g_autofree char *image = vmq_make_image("raw", VMQ_IMAGE_SIZE);
    QTestState *qts = flush_error_start(image, "");
    g_autofree char *token = NULL;

    flush_error_write(qts);
    token = vmq_start(qts, 60000);
    qobject_unref(vmq_wait(qts, "VM_QUIESCE_FAILED", token));
    vmq_unquiesce(qts, token);
    vmq_assert_status(qts, "paused");
    vmq_cont(qts);
    qtest_quit(qts);
    unlink(image);
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
    qtest_add_func("vm-quiesce/held/unplugged", test_held_unplugged);
    qtest_add_func("vm-quiesce/flush-error/retry", test_flush_error);
    qtest_add_func("vm-quiesce/flush-error/undo", test_flush_error_undo);

    ret = g_test_run();
    vmq_tmpdir_remove();
    return ret;
}
