/*
 * Test of hardware errors: disks and their servers
 *
 * A guest's request fails, or hangs, or its server dies.  What is promised is
 * checked from outside: by the record, by what the guest is told, and by the
 * image.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/wait.h>
#include "hw-error-util.h"
#include "libqos/virtio.h"
#include "qemu/bswap.h"
#include "standard-headers/linux/virtio_blk.h"
#include "standard-headers/linux/virtio_scsi.h"
#include "vm-quiesce-util.h"

/* Where all requests go to */
#define LBA 2048
#define OFFSET (LBA * VMQ_SECTOR)
#define DISCARD_SECTORS 8

#define STALL_LIMIT_MS 200

/* Disks, as a guest sees them */

typedef enum DiskType {
    DISK_VIRTIO_BLK,
    DISK_VIRTIO_SCSI,
    DISK_IDE,
} DiskType;

typedef struct Disk {
    const char *name;
    DiskType type;
    const char *args;
    /* QOM path of the device that owns the block backend */
    const char *path;
} Disk;

static const Disk disks[] = {
    { "virtio-blk", DISK_VIRTIO_BLK,
      "-device virtio-blk-pci,addr=4,id=dev,drive=disk",
      "/machine/peripheral/dev/virtio-backend" },
    { "virtio-scsi", DISK_VIRTIO_SCSI,
      "-device virtio-scsi-pci,addr=4 -device scsi-hd,id=dev,drive=disk",
      "/machine/peripheral/dev" },
    { "ide", DISK_IDE, "-device ide-hd,bus=ide.0,id=dev,drive=disk",
      "/machine/peripheral/dev" },
    { "virtio-blk-iothread", DISK_VIRTIO_BLK,
      "-object iothread,id=io "
      "-device virtio-blk-pci,addr=4,iothread=io,id=dev,drive=disk",
      "/machine/peripheral/dev/virtio-backend" },
    { "virtio-scsi-iothread", DISK_VIRTIO_SCSI,
      "-object iothread,id=io -device virtio-scsi-pci,addr=4,iothread=io "
      "-device scsi-hd,id=dev,drive=disk", "/machine/peripheral/dev" },
};

typedef enum Operation { READ, WRITE, FLUSH, DISCARD } Operation;

static const char *const operations[] = {
    [READ] = "read",
    [WRITE] = "write",
    [FLUSH] = "flush",
    [DISCARD] = "discard",
};

/* What the guest knows of its request */
typedef enum Reply { PENDING, OK, FAILED } Reply;

typedef struct Vm {
    QTestState *qts;
    const Disk *disk;
    VmqVirtio virtio;
    uint64_t reply;
} Vm;

static Reply virtio_blk_reply(Vm *vm)
{
    switch (qtest_readb(vm->qts, vm->reply)) {
    case 0xff:
        return PENDING;
    case VIRTIO_BLK_S_OK:
        return OK;
    default:
        return FAILED;
    }
}

static Reply virtio_scsi_reply(Vm *vm)
{
    const uint64_t status = offsetof(struct virtio_scsi_cmd_resp, status);
    const uint64_t response = offsetof(struct virtio_scsi_cmd_resp, response);

    if (qtest_readb(vm->qts, vm->reply + response) == 0xff) {
        return PENDING;
    }
    return qtest_readb(vm->qts, vm->reply + response) ||
           qtest_readb(vm->qts, vm->reply + status) ? FAILED : OK;
}

static Reply ide_reply(Vm *vm)
{
    uint8_t status = qtest_inb(vm->qts, 0x1f7);

    if (status & 0x80) {
        return PENDING;
    }
    return status & 0x01 ? FAILED : OK;
}

static Reply reply(Vm *vm)
{
    switch (vm->disk->type) {
    case DISK_VIRTIO_BLK:
        return virtio_blk_reply(vm);
    case DISK_VIRTIO_SCSI:
        return virtio_scsi_reply(vm);
    case DISK_IDE:
        return ide_reply(vm);
    }
    g_assert_not_reached();
}

static void wait_reply(Vm *vm, Reply expected)
{
    Reply r;

    while ((r = reply(vm)) == PENDING) {
        g_usleep(1000);
    }
    g_assert_cmpint(r, ==, expected);
}

/* Submit a request of @header, @len bytes of data for, or from, the device */
static void virtio_submit(Vm *vm, const void *header, size_t header_len,
                          const void *data, size_t len, bool from_device,
                          size_t reply_len)
{
    VmqVirtio *v = &vm->virtio;
    QVirtQueue *vq = v->vq[v->num_queues - 1];
    uint64_t addr = guest_alloc(&v->alloc, header_len + len + reply_len);
    uint32_t head;

    vm->reply = addr + header_len + len;
    qtest_memwrite(vm->qts, addr, header, header_len);
    if (len && data) {
        qtest_memwrite(vm->qts, addr + header_len, data, len);
    }
    qtest_memset(vm->qts, vm->reply, 0xff, reply_len);

    head = qvirtqueue_add(vm->qts, vq, addr, header_len, false, true);
    if (len && !from_device) {
        qvirtqueue_add(vm->qts, vq, addr + header_len, len, false, true);
    }
    qvirtqueue_add(vm->qts, vq, vm->reply, reply_len, true,
                   len && from_device);
    if (len && from_device) {
        qvirtqueue_add(vm->qts, vq, addr + header_len, len, true, false);
    }
    qvirtqueue_kick(vm->qts, &v->dev->vdev, vq, head);
}

static void virtio_blk_submit(Vm *vm, Operation op)
{
    static const uint32_t types[] = {
        [READ] = VIRTIO_BLK_T_IN,
        [WRITE] = VIRTIO_BLK_T_OUT,
        [FLUSH] = VIRTIO_BLK_T_FLUSH,
        [DISCARD] = VIRTIO_BLK_T_DISCARD,
    };
    const struct virtio_blk_outhdr header = {
        .type = cpu_to_le32(types[op]),
        .sector = cpu_to_le64(op == READ || op == WRITE ? LBA : 0),
    };
    const struct virtio_blk_discard_write_zeroes range = {
        .sector = cpu_to_le64(LBA),
        .num_sectors = cpu_to_le32(DISCARD_SECTORS),
    };
    VmqVirtio *v = &vm->virtio;
    uint8_t data[VMQ_SECTOR];
    uint64_t addr;
    uint32_t head;

    memset(data, 0x5a, sizeof(data));
    switch (op) {
    case READ:
        /* The status comes last */
        addr = guest_alloc(&v->alloc, sizeof(header) + VMQ_SECTOR + 1);
        vm->reply = addr + sizeof(header) + VMQ_SECTOR;
        qtest_memwrite(vm->qts, addr, &header, sizeof(header));
        qtest_memset(vm->qts, vm->reply, 0xff, 1);
        head = qvirtqueue_add(vm->qts, v->vq[0], addr, sizeof(header), false,
                              true);
        qvirtqueue_add(vm->qts, v->vq[0], addr + sizeof(header),
                       VMQ_SECTOR + 1, true, false);
        qvirtqueue_kick(vm->qts, &v->dev->vdev, v->vq[0], head);
        break;
    case WRITE:
        virtio_submit(vm, &header, sizeof(header), data, sizeof(data), false,
                      1);
        break;
    case FLUSH:
        virtio_submit(vm, &header, sizeof(header), NULL, 0, false, 1);
        break;
    case DISCARD:
        virtio_submit(vm, &header, sizeof(header), &range, sizeof(range),
                      false, 1);
        break;
    }
}

static void virtio_scsi_submit(Vm *vm, Operation op)
{
    struct virtio_scsi_cmd_req req = { .lun = { 1, 0, 0x40 } };
    const size_t reply_len = sizeof(struct virtio_scsi_cmd_resp);
    uint8_t data[VMQ_SECTOR];

    memset(data, 0x5a, sizeof(data));
    switch (op) {
    case READ:
    case WRITE:
        req.cdb[0] = op == READ ? 0x28 : 0x2a;
        stl_be_p(&req.cdb[2], LBA);
        req.cdb[8] = 1;
        virtio_submit(vm, &req, sizeof(req), data, sizeof(data), op == READ,
                      reply_len);
        break;
    case FLUSH:
        /* SYNCHRONIZE CACHE (10) */
        req.cdb[0] = 0x35;
        virtio_submit(vm, &req, sizeof(req), NULL, 0, false, reply_len);
        break;
    case DISCARD:
        /* UNMAP, one range */
        req.cdb[0] = 0x42;
        req.cdb[8] = 24;
        memset(data, 0, 24);
        data[1] = 22;
        data[3] = 16;
        stl_be_p(&data[12], LBA);
        stl_be_p(&data[16], DISCARD_SECTORS);
        virtio_submit(vm, &req, sizeof(req), data, 24, false, reply_len);
        break;
    }
}

static void ide_submit(Vm *vm, Operation op)
{
    static const uint8_t commands[] = {
        [READ] = 0x20, [WRITE] = 0x30, [FLUSH] = 0xe7,
    };
    int i;

    g_assert_cmpint(op, !=, DISCARD);
    qtest_outb(vm->qts, 0x1f6, 0xe0);
    qtest_outb(vm->qts, 0x1f2, 1);
    qtest_outb(vm->qts, 0x1f3, LBA & 0xff);
    qtest_outb(vm->qts, 0x1f4, LBA >> 8);
    qtest_outb(vm->qts, 0x1f5, 0);
    qtest_outb(vm->qts, 0x1f7, commands[op]);
    for (i = 0; op == WRITE && i < VMQ_SECTOR / 2; i++) {
        qtest_outw(vm->qts, 0x1f0, 0x5a5a);
    }
}

static void submit(Vm *vm, Operation op)
{
    switch (vm->disk->type) {
    case DISK_VIRTIO_BLK:
        virtio_blk_submit(vm, op);
        break;
    case DISK_VIRTIO_SCSI:
        virtio_scsi_submit(vm, op);
        break;
    case DISK_IDE:
        ide_submit(vm, op);
        break;
    }
}

/* Start a VM whose @disk is node 'disk', as described by @args */
static Vm *vm_start(const Disk *disk, const char *disk_options,
                    const char *args)
{
    const struct virtio_scsi_cmd_req ready = { .lun = { 1, 0, 0x40 } };
    Vm *vm = g_new0(Vm, 1);

    vm->disk = disk;
    vm->qts = hwe_start("-machine pc %s %s%s", args, disk->args, disk_options);
    switch (disk->type) {
    case DISK_VIRTIO_BLK:
        vmq_virtio_start(&vm->virtio, vm->qts, 1);
        break;
    case DISK_VIRTIO_SCSI:
        vmq_virtio_start(&vm->virtio, vm->qts, 3);
        /* TEST UNIT READY takes the unit attention */
        virtio_submit(vm, &ready, sizeof(ready), NULL, 0, false,
                      sizeof(struct virtio_scsi_cmd_resp));
        while (reply(vm) == PENDING) {
            g_usleep(1000);
        }
        break;
    case DISK_IDE:
        break;
    }
    return vm;
}

static void vm_quit(Vm *vm)
{
    if (vm->disk->type != DISK_IDE) {
        vmq_virtio_cleanup(&vm->virtio);
    }
    qtest_quit(vm->qts);
    g_free(vm);
}

/* Records */

/* The next one of @source, to be unreferenced; others are passed over */
static QDict *wait_record(QTestState *qts, const char *source)
{
    while (true) {
        g_autoptr(QDict) record = hwe_event(qts, "HARDWARE_ERROR");
        QDict *info = qdict_get_qdict(record, "info");

        if (g_str_equal(qdict_get_str(info, "source"), source)) {
            return g_steal_pointer(&record);
        }
    }
}

static void assert_str(QDict *dict, const char *key, const char *value)
{
    g_assert_cmpstr(qdict_get_try_str(dict, key), ==, value);
}

/* Check what a record says of the request; errno 0: it has not failed */
static void check_request(QDict *record, const char *path, const char *node,
                          Operation op, int error, bool ended)
{
    QDict *info = qdict_get_qdict(record, "info");
    bool has_range = op != FLUSH;

    assert_str(info, "component", path ?: node);
    assert_str(info, "qom-path", path);
    assert_str(info, "node-name", node);
    assert_str(info, "operation", operations[op]);
    g_assert_cmpint(qdict_haskey(info, "offset"), ==, has_range);
    g_assert_cmpint(qdict_haskey(info, "length"), ==, has_range);
    if (has_range) {
        g_assert_cmpint(qdict_get_int(info, "offset"), ==, OFFSET);
        g_assert_cmpint(qdict_get_int(info, "length"), ==,
                        op == DISCARD ? DISCARD_SECTORS * VMQ_SECTOR
                                      : VMQ_SECTOR);
    }
    g_assert_cmpint(qdict_get_try_int(info, "errno", 0), ==, error);
    assert_str(info, "error", error ? g_strerror(error) : NULL);
    g_assert_cmpint(qdict_get_bool(info, "ended"), ==, ended);
    g_assert_cmpint(qdict_get_int(info, "age-ms"), >=, 0);
    g_assert_false(qdict_haskey(info, "count"));
}

/* Failing requests */

static char *debug_args(const char *image, Operation op, int error, bool once)
{
    g_autofree char *where = op == READ || op == WRITE
        ? g_strdup_printf(",inject-error.0.sector=%d", LBA) : g_strdup("");

    return g_strdup_printf(
        "-blockdev file,node-name=file,filename=%s,discard=unmap "
        "-blockdev blkdebug,node-name=disk,image=file,discard=unmap,"
        "inject-error.0.event=none,inject-error.0.iotype=%s,"
        "inject-error.0.errno=%d,inject-error.0.once=%s%s",
        image, operations[op], error, once ? "on" : "off", where);
}

typedef struct ErrorCase {
    const Disk *disk;
    Operation op;
    int error;
    const char *severity;
} ErrorCase;

static void test_error(const void *opaque)
{
    const ErrorCase *c = opaque;
    g_autofree char *image = vmq_make_image("raw", VMQ_IMAGE_SIZE);
    g_autofree char *args = debug_args(image, c->op, c->error, false);
    Vm *vm = vm_start(c->disk, ",werror=report,rerror=report", args);
    QDict *record;
    int i;

    if (c->op == FLUSH) {
        /* There must be something to flush */
        submit(vm, WRITE);
        wait_reply(vm, OK);
    }
    /* The second one is reported with the next second's, if at all */
    for (i = 1; i <= 2; i++) {
        submit(vm, c->op);
        record = wait_record(vm->qts, "block-io");
        wait_reply(vm, FAILED);
        g_assert_cmpint(qdict_get_int(record, "id"), ==, i);
        assert_str(record, "action", "report");
        assert_str(record, "rule", NULL);
        assert_str(record, "outcome", "none");
        g_assert_false(qdict_get_bool(record, "contained"));
        assert_str(qdict_get_qdict(record, "info"), "severity", c->severity);
        assert_str(qdict_get_qdict(record, "info"), "action", "report");
        check_request(record, c->disk->path, "disk", c->op, c->error, true);
        qobject_unref(record);
        vmq_assert_status(vm->qts, "running");
    }
    hwe_assert_records(vm->qts, 2);
    vm_quit(vm);
    unlink(image);
}

/* Each request is counted, however many there are */
static void test_error_many(void)
{
    const int n = 10;
    g_autofree char *image = vmq_make_image("raw", VMQ_IMAGE_SIZE);
    g_autofree char *args = debug_args(image, WRITE, EIO, false);
    Vm *vm = vm_start(&disks[0], ",werror=report", args);
    int64_t count = 0;
    int i;

    for (i = 0; i < n; i++) {
        submit(vm, WRITE);
        wait_reply(vm, FAILED);
    }
    while (count < n) {
        QDict *record = wait_record(vm->qts, "block-io");

        count += qdict_get_try_int(qdict_get_qdict(record, "info"), "count",
                                   1);
        qobject_unref(record);
    }
    g_assert_cmpint(count, ==, n);
    vm_quit(vm);
    unlink(image);
}

typedef struct PolicyCase {
    const Disk *disk;
    const char *werror;
    const char *action;
} PolicyCase;

/* What becomes of the request: by the rule, or else by werror= */
static Reply policy_reply(const PolicyCase *c)
{
    if (g_str_equal(c->action, "stop") || g_str_equal(c->action, "quiesce")) {
        return PENDING;
    } else if (g_str_equal(c->action, "inject")) {
        return FAILED;
    } else if (g_str_equal(c->werror, "stop")) {
        return PENDING;
    }
    return g_str_equal(c->werror, "ignore") ? OK : FAILED;
}

/* Returns: the record, to be unreferenced */
static QDict *policy_check_record(const PolicyCase *c, Vm *vm)
{
    bool ruled = !g_str_equal(c->action, "none");
    bool quiesce = g_str_equal(c->action, "quiesce");
    QDict *record = wait_record(vm->qts, "block-io");

    check_request(record, c->disk->path, "disk", WRITE, EIO, true);
    assert_str(qdict_get_qdict(record, "info"), "action", c->werror);
    assert_str(record, "action", ruled ? c->action : "report");
    assert_str(record, "rule", ruled ? "rule" : NULL);
    g_assert_cmpint(qdict_get_bool(record, "contained"), ==, quiesce);
    g_assert_cmpint(hwe_count("VM_QUIESCED"), ==, quiesce);
    if (quiesce) {
        QDict *info = qdict_get_qdict(record, "quiesce");

        qobject_unref(hwe_expect_quiesced(vm->qts, record));
        g_assert_cmpint(qdict_get_int(info, "held-requests"), ==, 1);
    } else if (g_str_equal(c->action, "inject")) {
        assert_str(record, "outcome", "injected");
    }
    return record;
}

/* The guest is told nothing; IDE's status register never says "busy" then */
static void assert_not_told(Vm *vm)
{
    g_assert_cmpint(reply(vm), ==,
                    vm->disk->type == DISK_IDE ? OK : PENDING);
}

static void policy_check_held(const PolicyCase *c, Vm *vm, const char *image,
                              const char *before, QDict *record)
{
    bool quiesce = g_str_equal(c->action, "quiesce");
    g_autofree char *after = NULL;

    vmq_wait_status(vm->qts, quiesce ? "quiesced" : "io-error");
    if (quiesce) {
        g_assert_true(vmq_can_write(image, "raw"));
        vmq_abuse(vm->qts, image);
    }
    assert_not_told(vm);
    g_assert_cmpint(vmq_held_requests(vm->qts), ==, 1);
    after = vmq_checksum(image);
    g_assert_cmpstr(before, ==, after);

    if (quiesce) {
        hwe_unquiesce(vm->qts, record);
        assert_not_told(vm);
    }
    /* The error does not come again */
    vmq_cont(vm->qts);
    while (vmq_byte_at(image, OFFSET) != 0x5a) {
        g_usleep(1000);
    }
    wait_reply(vm, OK);
    g_assert_cmpint(vmq_held_requests(vm->qts), ==, 0);
}

static void test_policy(const void *opaque)
{
    const PolicyCase *c = opaque;
    g_autofree char *image = vmq_make_image("raw", VMQ_IMAGE_SIZE);
    g_autofree char *args = debug_args(image, WRITE, EIO, true);
    g_autofree char *options = g_strdup_printf(",werror=%s", c->werror);
    g_autofree char *before = vmq_checksum(image);
    Vm *vm = vm_start(c->disk, options, args);
    Reply expected = policy_reply(c);
    g_autoptr(QDict) record = NULL;

    if (!g_str_equal(c->action, "none")) {
        hwe_add_rule(vm->qts, "{ 'id': 'rule', 'source': 'block-io',"
                     "  'component': %s, 'action': %s }",
                     c->disk->path, c->action);
    }
    submit(vm, WRITE);
    if (!g_str_equal(c->action, "ignore")) {
        record = policy_check_record(c, vm);
    }

    if (expected == PENDING) {
        policy_check_held(c, vm, image, before, record);
    } else {
        wait_reply(vm, expected);
    }
    vmq_assert_status(vm->qts, "running");
    hwe_assert_records(vm->qts, !g_str_equal(c->action, "ignore"));
    vm_quit(vm);
    unlink(image);
}

/* Stalls */

typedef struct Storage {
    char *image;
    char *sock;
    GPid server;
} Storage;

static void storage_start(Storage *s)
{
    g_autofree char *pidfile = vmq_tmpfile("pid");

    /* Of one that was killed */
    unlink(pidfile);
    unlink(s->sock);
    s->server = vmq_start_nbd(s->image, s->sock);
}

static Storage *storage_new(const char *format)
{
    Storage *s = g_new0(Storage, 1);

    s->image = vmq_make_image(format, VMQ_IMAGE_SIZE);
    if (!g_str_equal(format, "raw")) {
        /* What is exported cannot grow */
        g_assert_cmpint(truncate(s->image, 2 * VMQ_IMAGE_SIZE), ==, 0);
    }
    s->sock = vmq_tmpfile("nbd");
    storage_start(s);
    return s;
}

static void storage_kill(Storage *s)
{
    kill(s->server, SIGKILL);
    g_assert_cmpint(waitpid(s->server, NULL, 0), ==, s->server);
}

static void storage_free(Storage *s)
{
    vmq_stop_daemon(s->server);
    unlink(s->sock);
    unlink(s->image);
    g_free(s->sock);
    g_free(s->image);
    g_free(s);
}

static Vm *vm_start_nbd(const Disk *disk, Storage *s, const char *format,
                        const char *nbd_options)
{
    g_autofree char *args = g_strdup_printf(
        "-blockdev nbd,node-name=nbd,server.type=unix,server.path=%s,export=n"
        "%s -blockdev %s,node-name=disk,file=nbd", s->sock, nbd_options,
        format);

    return vm_start(disk, "", args);
}

static void add_stall_rule(QTestState *qts, int limit_ms, const char *action)
{
    hwe_add_rule(qts, "{ 'id': 'stall', 'source': 'block-stall',"
                 "  'stall-limit': %d, 'severity': 'recoverable',"
                 "  'action': %s }", limit_ms, action);
}

/* Check the record of a stall; returns how long it is */
static int64_t wait_stall(QTestState *qts, const char *path, const char *node,
                          Operation op, int error, bool ended)
{
    QDict *record = wait_record(qts, "block-stall");
    QDict *info = qdict_get_qdict(record, "info");
    int64_t age_ms = qdict_get_int(info, "age-ms");

    check_request(record, path, node, op, error, ended);
    assert_str(info, "severity",
               ended && !error ? "corrected" : "recoverable");
    g_assert_false(qdict_haskey(info, "action"));
    g_assert_cmpint(age_ms, >=, STALL_LIMIT_MS);
    qobject_unref(record);
    return age_ms;
}

typedef struct StallCase {
    const Disk *disk;
    const char *format;
    Operation op;
} StallCase;

static void test_stall(const void *opaque)
{
    const StallCase *c = opaque;
    Storage *s = storage_new(c->format);
    Vm *vm = vm_start_nbd(c->disk, s, c->format, "");
    const char *path = c->disk->path;
    int64_t stopped_us, age_ms;

    add_stall_rule(vm->qts, STALL_LIMIT_MS, "report");
    if (c->op == FLUSH) {
        submit(vm, WRITE);
        wait_reply(vm, OK);
    }
    kill(s->server, SIGSTOP);
    stopped_us = g_get_monotonic_time();
    submit(vm, c->op);

    /* While it hangs, once, and not once more for the node below */
    wait_stall(vm->qts, path, "disk", c->op, 0, false);
    g_assert_cmpint(reply(vm), ==, PENDING);
    g_usleep(4 * STALL_LIMIT_MS * 1000);
    hwe_assert_records(vm->qts, 1);
    vmq_assert_status(vm->qts, "running");

    kill(s->server, SIGCONT);
    age_ms = wait_stall(vm->qts, path, "disk", c->op, 0, true);
    g_assert_cmpint(age_ms, >=, 5 * STALL_LIMIT_MS);
    /* To a tick of the host's clock */
    g_assert_cmpint(age_ms, <=,
                    (g_get_monotonic_time() - stopped_us) / 1000 + 20);
    wait_reply(vm, OK);
    hwe_assert_records(vm->qts, 2);
    vm_quit(vm);
    storage_free(s);
}

/* One that ends with an error, which is reported, too */
static void test_stall_error(void)
{
    const char *path = disks[0].path;
    Storage *s = storage_new("raw");
    Vm *vm = vm_start_nbd(&disks[0], s, "raw", "");
    QDict *record;

    add_stall_rule(vm->qts, STALL_LIMIT_MS, "report");
    kill(s->server, SIGSTOP);
    submit(vm, READ);
    wait_stall(vm->qts, path, "disk", READ, 0, false);
    storage_kill(s);

    wait_stall(vm->qts, path, "disk", READ, EIO, true);
    record = wait_record(vm->qts, "block-io");
    check_request(record, path, "disk", READ, EIO, true);
    g_assert_cmpint(qdict_get_int(qdict_get_qdict(record, "info"), "age-ms"),
                    >=, STALL_LIMIT_MS);
    qobject_unref(record);
    wait_reply(vm, FAILED);
    vm_quit(vm);

    storage_start(s);
    storage_free(s);
}

/* Rules come and go while requests hang */
static void test_stall_rules(void)
{
    const Disk *disk = &disks[0];
    Storage *s = storage_new("raw");
    Vm *vm = vm_start_nbd(disk, s, "raw", "");
    uint64_t first_reply;

    kill(s->server, SIGSTOP);
    submit(vm, WRITE);
    first_reply = vm->reply;
    g_usleep(3 * STALL_LIMIT_MS * 1000);
    hwe_assert_records(vm->qts, 0);

    /* One that does not concern it, and one that would for long not */
    hwe_add_rule(vm->qts, "{ 'id': 'other', 'source': 'block-stall',"
                 "  'stall-limit': 100, 'component': '/machine/other',"
                 "  'action': 'report' }");
    add_stall_rule(vm->qts, 3600 * 1000, "report");
    g_usleep(3 * STALL_LIMIT_MS * 1000);
    hwe_assert_records(vm->qts, 0);

    hwe_add_rule(vm->qts, "{ 'id': 'dev', 'source': 'block-stall',"
                 "  'stall-limit': %d, 'component': %s, 'action': 'report' }",
                 STALL_LIMIT_MS, disk->path);
    wait_stall(vm->qts, disk->path, "disk", WRITE, 0, false);

    /* The end is reported all the same; a second request is not */
    hwe_remove_rule(vm->qts, "dev");
    hwe_remove_rule(vm->qts, "other");
    hwe_remove_rule(vm->qts, "stall");
    submit(vm, WRITE);
    g_usleep(3 * STALL_LIMIT_MS * 1000);
    hwe_assert_records(vm->qts, 1);
    kill(s->server, SIGCONT);
    wait_stall(vm->qts, disk->path, "disk", WRITE, 0, true);
    wait_reply(vm, OK);
    vm->reply = first_reply;
    wait_reply(vm, OK);
    hwe_assert_records(vm->qts, 2);
    vm_quit(vm);
    storage_free(s);
}

/* A stall that is over is no reason to quiesce, whatever a rule says */
static void test_stall_over(void)
{
    Storage *s = storage_new("raw");
    Vm *vm = vm_start_nbd(&disks[0], s, "raw", "");
    QDict *record;

    add_stall_rule(vm->qts, STALL_LIMIT_MS, "report");
    kill(s->server, SIGSTOP);
    submit(vm, WRITE);
    wait_stall(vm->qts, disks[0].path, "disk", WRITE, 0, false);
    hwe_add_rule(vm->qts, "{ 'id': 'any', 'action': 'quiesce' }");
    kill(s->server, SIGCONT);
    record = wait_record(vm->qts, "block-stall");
    check_request(record, disks[0].path, "disk", WRITE, 0, true);
    assert_str(record, "rule", "any");
    assert_str(record, "action", "report");
    assert_str(record, "outcome", "none");
    qobject_unref(record);
    wait_reply(vm, OK);
    vmq_assert_status(vm->qts, "running");
    vm_quit(vm);
    storage_free(s);
}

/* The VM is stopped; somebody else's request hangs */
static void test_stall_stopped(void)
{
    Storage *s = storage_new("raw");
    Vm *vm = vm_start_nbd(&disks[0], s, "raw", "");

    add_stall_rule(vm->qts, STALL_LIMIT_MS, "report");
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'stop' }");
    kill(s->server, SIGSTOP);
    g_free(qtest_hmp(vm->qts, "qemu-io -d %s \"aio_write -q 1M 512\"",
                     disks[0].path));
    wait_stall(vm->qts, disks[0].path, "disk", WRITE, 0, false);
    vmq_assert_status(vm->qts, "paused");
    kill(s->server, SIGCONT);
    wait_stall(vm->qts, disks[0].path, "disk", WRITE, 0, true);
    vm_quit(vm);
    storage_free(s);
}

/* A job writes to a node that is no device's */
static void test_stall_job(void)
{
    Storage *s = storage_new("raw");
    g_autofree char *args = g_strdup_printf(
        "-blockdev null-co,node-name=disk,size=%d,read-zeroes=on "
        "-blockdev nbd,node-name=nbd,server.type=unix,server.path=%s,export=n "
        "-blockdev raw,node-name=target,file=nbd", VMQ_IMAGE_SIZE, s->sock);
    Vm *vm = vm_start(&disks[0], "", args);
    QDict *record, *info;

    add_stall_rule(vm->qts, STALL_LIMIT_MS, "report");
    kill(s->server, SIGSTOP);
    qtest_qmp_assert_success(vm->qts, "{ 'execute': 'blockdev-backup',"
                             "  'arguments': { 'job-id': 'job',"
                             "    'device': 'disk', 'target': 'target',"
                             "    'sync': 'full' } }");
    record = wait_record(vm->qts, "block-stall");
    info = qdict_get_qdict(record, "info");
    assert_str(info, "component", "target");
    assert_str(info, "node-name", "target");
    assert_str(info, "qom-path", NULL);
    assert_str(info, "operation", "write");
    g_assert_false(qdict_get_bool(info, "ended"));
    qobject_unref(record);

    kill(s->server, SIGCONT);
    qobject_unref(hwe_event(vm->qts, "BLOCK_JOB_COMPLETED"));
    vm_quit(vm);
    storage_free(s);
}

/* Storage that hangs cannot be contained; it is as soon as it goes on */
static void test_stall_quiesce(const void *opaque)
{
    const Disk *disk = opaque;
    Storage *s = storage_new("raw");
    Vm *vm = vm_start_nbd(disk, s, "raw", "");
    g_autofree char *error = NULL;
    g_autoptr(QDict) record = NULL, quiesced = NULL;
    QDict *quiesce;

    add_stall_rule(vm->qts, STALL_LIMIT_MS, "quiesce");
    kill(s->server, SIGSTOP);
    submit(vm, WRITE);
    record = wait_record(vm->qts, "block-stall");
    check_request(record, disk->path, "disk", WRITE, 0, false);
    assert_str(record, "action", "quiesce");
    assert_str(record, "rule", "stall");
    assert_str(record, "outcome", "quiesce-failed");
    g_assert_false(qdict_get_bool(record, "contained"));
    g_assert_true(qdict_haskey(record, "error"));
    quiesce = qdict_get_qdict(record, "quiesce");
    assert_str(quiesce, "phase", "failed");
    error = vmq_participant_error(quiesce, "block");
    g_assert_nonnull(strstr(error, "request in flight for "));
    g_assert_nonnull(strstr(error, disk->path));
    vmq_assert_status(vm->qts, "paused");

    kill(s->server, SIGCONT);
    quiesced = hwe_event(vm->qts, "VM_QUIESCED");
    assert_str(quiesced, "token", qdict_get_str(quiesce, "token"));
    vmq_assert_status(vm->qts, "quiesced");
    g_assert_true(vmq_can_write(s->image, "raw"));
    vmq_abuse(vm->qts, s->image);

    hwe_unquiesce(vm->qts, record);
    vmq_cont(vm->qts);
    wait_reply(vm, OK);
    /* The end of the stall is no reason to quiesce again */
    vmq_assert_status(vm->qts, "running");
    vm_quit(vm);
    storage_free(s);
}

/* Servers that die */

static void check_backend(QTestState *qts, const char *state,
                          const char *severity, const char *path)
{
    QDict *record = wait_record(qts, "backend");
    QDict *info = qdict_get_qdict(record, "info");

    assert_str(info, "type", "nbd");
    assert_str(info, "state", state);
    assert_str(info, "severity", severity);
    assert_str(info, "qom-path", path);
    assert_str(info, "node-name", "nbd");
    assert_str(info, "component", path);
    qobject_unref(record);
}

static void test_nbd_reconnect(const void *opaque)
{
    const Disk *disk = opaque;
    Storage *s = storage_new("raw");
    Vm *vm = vm_start_nbd(disk, s, "raw", ",reconnect-delay=60");

    storage_kill(s);
    submit(vm, WRITE);
    check_backend(vm->qts, "lost", "recoverable", disk->path);
    g_assert_cmpint(reply(vm), ==, PENDING);

    storage_start(s);
    check_backend(vm->qts, "back", "corrected", disk->path);
    wait_reply(vm, OK);
    hwe_assert_records(vm->qts, 2);
    vm_quit(vm);
    storage_free(s);
}

/* Without a delay the request fails; a later one connects again */
static void test_nbd_error(void)
{
    const Disk *disk = &disks[0];
    Storage *s = storage_new("raw");
    Vm *vm = vm_start_nbd(disk, s, "raw", "");

    storage_kill(s);
    submit(vm, WRITE);
    check_backend(vm->qts, "lost", "recoverable", disk->path);
    wait_reply(vm, FAILED);

    /* Nor does one wait until it is connected: it is there for the next one */
    storage_start(s);
    do {
        submit(vm, WRITE);
        while (reply(vm) == PENDING) {
            g_usleep(1000);
        }
    } while (reply(vm) == FAILED);
    check_backend(vm->qts, "back", "corrected", disk->path);
    vm_quit(vm);
    storage_free(s);
}

/* Cases */

static void add_error_cases(void)
{
    static const struct {
        int error;
        const char *name;
        const char *severity;
    } errors[] = {
        { EIO, "EIO", "recoverable" },
        { ENOSPC, "ENOSPC", "recoverable" },
        { ENODEV, "ENODEV", "fatal" },
    };
    int i, j, op;

    for (i = 0; i < ARRAY_SIZE(disks); i++) {
        for (op = 0; op < ARRAY_SIZE(operations); op++) {
            for (j = 0; j < ARRAY_SIZE(errors); j++) {
                ErrorCase *c = g_new(ErrorCase, 1);
                g_autofree char *path = g_strdup_printf(
                    "hw-error/block/error/%s/%s/%s", disks[i].name,
                    operations[op], errors[j].name);

                /* TRIM needs DMA; one of the rare errors is enough */
                if ((disks[i].type == DISK_IDE && op == DISCARD) ||
                    (errors[j].error != EIO && op != WRITE)) {
                    g_free(c);
                    continue;
                }
                *c = (ErrorCase) { &disks[i], op, errors[j].error,
                                   errors[j].severity };
                qtest_add_data_func_full(path, c, test_error, g_free);
            }
        }
    }
}

static void add_policy_cases(void)
{
    static const char *const werrors[] = { "report", "stop", "ignore" };
    static const char *const actions[] = {
        "none", "ignore", "report", "inject", "stop", "quiesce",
    };
    int i, j, k;

    for (i = 0; i < ARRAY_SIZE(disks); i++) {
        for (j = 0; j < ARRAY_SIZE(werrors); j++) {
            for (k = 0; k < ARRAY_SIZE(actions); k++) {
                PolicyCase *c = g_new(PolicyCase, 1);
                g_autofree char *path = g_strdup_printf(
                    "hw-error/block/policy/%s/werror=%s/%s", disks[i].name,
                    werrors[j], actions[k]);

                *c = (PolicyCase) { &disks[i], werrors[j], actions[k] };
                qtest_add_data_func_full(path, c, test_policy, g_free);
            }
        }
    }
}

static void add_stall_cases(void)
{
    static const char *const formats[] = { "raw", "qcow2" };
    int i, j, op;

    for (i = 0; i < ARRAY_SIZE(disks); i++) {
        g_autofree char *quiesce = g_strdup_printf(
            "hw-error/block/stall/%s/quiesce", disks[i].name);
        g_autofree char *reconnect = g_strdup_printf(
            "hw-error/block/nbd/%s/reconnect", disks[i].name);

        for (j = 0; j < ARRAY_SIZE(formats); j++) {
            for (op = READ; op <= FLUSH; op++) {
                StallCase *c;
                g_autofree char *path = g_strdup_printf(
                    "hw-error/block/stall/%s/%s/%s", disks[i].name,
                    formats[j], operations[op]);

                /* Of a new qcow2 image, nothing is read */
                if (j == 1 && op != WRITE) {
                    continue;
                }
                c = g_new(StallCase, 1);
                *c = (StallCase) { &disks[i], formats[j], op };
                qtest_add_data_func_full(path, c, test_stall, g_free);
            }
        }
        qtest_add_data_func(quiesce, &disks[i], test_stall_quiesce);
        qtest_add_data_func(reconnect, &disks[i], test_nbd_reconnect);
    }
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    vmq_tmpdir_make();

    add_error_cases();
    qtest_add_func("hw-error/block/error/many", test_error_many);
    add_policy_cases();
    add_stall_cases();
    qtest_add_func("hw-error/block/stall/error", test_stall_error);
    qtest_add_func("hw-error/block/stall/rules", test_stall_rules);
    qtest_add_func("hw-error/block/stall/over", test_stall_over);
    qtest_add_func("hw-error/block/stall/stopped", test_stall_stopped);
    qtest_add_func("hw-error/block/stall/job", test_stall_job);
    qtest_add_func("hw-error/block/nbd/error", test_nbd_error);

    ret = g_test_run();
    vmq_tmpdir_remove();
    return ret;
}
