/*
 * Test of hardware errors: NVMe
 *
 * A command fails.  If a rule has the VM stopped or quiesced, the controller
 * holds it: the guest is not told, nothing is written, and when the VM runs
 * again, the command ends as if nothing had been.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/nvme.h"
#include "hw-error-util.h"
#include "libqos/malloc-pc.h"
#include "libqos/pci-pc.h"
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "qobject/qdict.h"
#include "standard-headers/linux/pci_regs.h"
#include "vm-quiesce-util.h"

#define SLOT 4
#define OTHER_SLOT 5
#define QUEUE_ENTRIES 16
#define MAX_COMMANDS 64

/* Where all commands go to, and what is there in the image */
#define LBA 2048
#define OFFSET (LBA * VMQ_SECTOR)
#define OLD 0xc3
#define NEW 0x5a

/* Metadata of 8 bytes per block comes after all blocks */
#define METADATA_NEW 0x6b
#define METADATA_OFFSET \
    ((int64_t)VMQ_IMAGE_SIZE / (VMQ_SECTOR + 8) * VMQ_SECTOR + LBA * 8)

/* Not a status: the command is outstanding */
#define PENDING 0xffff

/* Controllers and namespaces */

typedef struct Namespace {
    const char *name;
    const char *args;
    /* How commands handle its protection information */
    uint32_t prinfo;
    bool metadata;
} Namespace;

/* There is another controller */
static const Namespace plain = {
    "plain",
    "-device nvme,addr=4,serial=1,id=dev,drive=disk "
    "-device nvme,addr=5,serial=2,id=other",
};
/* There is another namespace */
static const Namespace separate = {
    "separate",
    "-device nvme,addr=4,serial=1 "
    "-device nvme-ns,id=dev,drive=disk,nsid=1 "
    "-blockdev null-co,node-name=other,read-zeroes=on "
    "-device nvme-ns,drive=other,nsid=2",
};
static const Namespace atomic = {
    "atomic",
    "-device nvme,addr=4,serial=1,id=dev,drive=disk,atomic.awun=7",
};
static const Namespace placed = {
    "placed",
    "-device nvme-subsys,id=subsys,fdp=on,fdp.nruh=1 "
    "-device nvme,addr=4,serial=1,subsys=subsys "
    "-device nvme-ns,id=dev,drive=disk,fdp.ruhs=0",
};
static const Namespace with_metadata = {
    "metadata",
    "-device nvme,addr=4,serial=1 -device nvme-ns,id=dev,drive=disk,ms=8",
    .metadata = true,
};
static const Namespace with_pi = {
    "pi",
    "-device nvme,addr=4,serial=1 "
    "-device nvme-ns,id=dev,drive=disk,ms=8,pi=1",
    .prinfo = NVME_PRINFO_PRACT, .metadata = true,
};
static const Namespace zoned = {
    "zoned",
    "-device nvme,addr=4,serial=1 "
    "-device nvme-ns,id=dev,drive=disk,zoned=on,zoned.zone_size=4k",
};

/* QOM path of the device that owns the block backend */
#define PATH "/machine/peripheral/dev"

typedef struct Queue {
    uint16_t id;
    uint64_t sq;
    uint64_t cq;
    uint16_t tail;
    uint16_t head;
    bool phase;
} Queue;

typedef struct Vm {
    QTestState *qts;
    const Namespace *ns;
    QGuestAllocator alloc;
    QPCIBus *bus;
    QPCIDevice *dev;
    QPCIBar bar;
    Queue admin;
    Queue io;
    uint16_t next_cid;
    uint16_t status[MAX_COMMANDS];
    uint64_t result[MAX_COMMANDS];
    /* In the order in which they have ended */
    uint16_t ended[MAX_COMMANDS];
    int num_ended;
} Vm;

static void queue_init(Vm *vm, Queue *q, uint16_t id)
{
    *q = (Queue) {
        .id = id,
        .sq = guest_alloc(&vm->alloc, QUEUE_ENTRIES * sizeof(NvmeCmd)),
        .cq = guest_alloc(&vm->alloc, QUEUE_ENTRIES * sizeof(NvmeCqe)),
        .phase = true,
    };
    qtest_memset(vm->qts, q->cq, 0, QUEUE_ENTRIES * sizeof(NvmeCqe));
}

/* Returns the command's identifier */
static uint16_t queue_add(Vm *vm, Queue *q, NvmeCmd cmd)
{
    uint16_t cid = vm->next_cid++;

    g_assert_cmpint(cid, <, MAX_COMMANDS);
    cmd.cid = cpu_to_le16(cid);
    vm->status[cid] = PENDING;
    qtest_memwrite(vm->qts, q->sq + q->tail * sizeof(cmd), &cmd, sizeof(cmd));
    q->tail = (q->tail + 1) % QUEUE_ENTRIES;
    return cid;
}

static void queue_ring(Vm *vm, Queue *q)
{
    qpci_io_writel(vm->dev, vm->bar, 0x1000 + q->id * 8, q->tail);
}

static uint16_t submit(Vm *vm, Queue *q, NvmeCmd cmd)
{
    uint16_t cid = queue_add(vm, q, cmd);

    queue_ring(vm, q);
    return cid;
}

static void queue_poll(Vm *vm, Queue *q)
{
    while (true) {
        NvmeCqe cqe;
        uint16_t cid, status;

        qtest_memread(vm->qts, q->cq + q->head * sizeof(cqe), &cqe,
                      sizeof(cqe));
        status = le16_to_cpu(cqe.status);
        if ((status & 1) != q->phase) {
            return;
        }
        cid = le16_to_cpu(cqe.cid);
        g_assert_cmpint(cid, <, vm->next_cid);
        g_assert_cmphex(vm->status[cid], ==, PENDING);
        vm->status[cid] = status >> 1;
        vm->result[cid] = (uint64_t)le32_to_cpu(cqe.dw1) << 32 |
                          le32_to_cpu(cqe.result);
        vm->ended[vm->num_ended++] = cid;
        q->head = (q->head + 1) % QUEUE_ENTRIES;
        q->phase ^= q->head == 0;
        qpci_io_writel(vm->dev, vm->bar, 0x1000 + q->id * 8 + 4, q->head);
    }
}

static uint16_t status(Vm *vm, uint16_t cid)
{
    queue_poll(vm, &vm->admin);
    queue_poll(vm, &vm->io);
    return vm->status[cid];
}

static void wait_status(Vm *vm, uint16_t cid, uint16_t expected)
{
    while (status(vm, cid) == PENDING) {
        g_usleep(1000);
    }
    g_assert_cmphex(status(vm, cid) & ~NVME_DNR, ==, expected);
}

static void admin_command(Vm *vm, NvmeCmd cmd)
{
    wait_status(vm, submit(vm, &vm->admin, cmd), NVME_SUCCESS);
}

static void delete_sq(Vm *vm)
{
    admin_command(vm, (NvmeCmd) {
        .opcode = NVME_ADM_CMD_DELETE_SQ,
        .cdw10 = cpu_to_le32(vm->io.id),
    });
}

static void wait_ready(Vm *vm, bool ready)
{
    while (!!(qpci_io_readl(vm->dev, vm->bar, NVME_REG_CSTS) &
              NVME_CSTS_READY) != ready) {
        g_usleep(1000);
    }
}

static void create_sq(Vm *vm)
{
    admin_command(vm, (NvmeCmd) {
        .opcode = NVME_ADM_CMD_CREATE_SQ,
        .dptr.prp1 = cpu_to_le64(vm->io.sq),
        .cdw10 = cpu_to_le32((QUEUE_ENTRIES - 1) << 16 | vm->io.id),
        .cdw11 = cpu_to_le32(vm->io.id << 16 | 1),
    });
}

/* Enable the controller, and make a pair of queues */
static void controller_start(Vm *vm)
{
    const uint32_t size = QUEUE_ENTRIES - 1;
    const uint32_t css = vm->ns == &zoned ? NVME_CC_CSS_ALL : 0;

    qpci_device_enable(vm->dev);
    queue_init(vm, &vm->admin, 0);
    qpci_io_writel(vm->dev, vm->bar, NVME_REG_AQA, size << 16 | size);
    qpci_io_writeq(vm->dev, vm->bar, NVME_REG_ASQ, vm->admin.sq);
    qpci_io_writeq(vm->dev, vm->bar, NVME_REG_ACQ, vm->admin.cq);
    /* Entries of 64 and 16 bytes */
    qpci_io_writel(vm->dev, vm->bar, NVME_REG_CC,
                   4 << CC_IOCQES_SHIFT | 6 << CC_IOSQES_SHIFT |
                   css << CC_CSS_SHIFT | 1 << CC_EN_SHIFT);
    wait_ready(vm, true);

    queue_init(vm, &vm->io, 1);
    admin_command(vm, (NvmeCmd) {
        .opcode = NVME_ADM_CMD_CREATE_CQ,
        .dptr.prp1 = cpu_to_le64(vm->io.cq),
        .cdw10 = cpu_to_le32(size << 16 | vm->io.id),
        .cdw11 = cpu_to_le32(1),
    });
    create_sq(vm);
}

static void controller_reset(Vm *vm)
{
    qpci_io_writel(vm->dev, vm->bar, NVME_REG_CC, 0);
    wait_ready(vm, false);
}

/* Start a VM whose namespace 1 is node 'disk', as described by @args */
static Vm *vm_start(const Namespace *ns, const char *args)
{
    Vm *vm = g_new0(Vm, 1);

    vm->ns = ns;
    vm->qts = hwe_start("-machine pc %s %s", args, ns->args);
    pc_alloc_init(&vm->alloc, vm->qts, 0);
    vm->bus = qpci_new_pc(vm->qts, &vm->alloc);
    vm->dev = qpci_device_find(vm->bus, QPCI_DEVFN(SLOT, 0));
    g_assert_nonnull(vm->dev);
    vm->bar = qpci_iomap(vm->dev, 0, NULL);
    controller_start(vm);
    return vm;
}

static void vm_quit(Vm *vm)
{
    qtest_quit(vm->qts);
    g_free(vm->dev);
    qpci_free_pc(vm->bus);
    alloc_destroy(&vm->alloc);
    g_free(vm);
}

/* Commands */

typedef struct Operation {
    const char *name;
    uint8_t opcode;
    /* For blkdebug */
    const char *iotype;
    /* In the record */
    const char *reported;
    /* When the guest is told of the error */
    uint16_t failed;
} Operation;

static const Operation op_read = {
    "read", NVME_CMD_READ, "read", "read", NVME_UNRECOVERED_READ,
};
static const Operation op_write = {
    "write", NVME_CMD_WRITE, "write", "write", NVME_WRITE_FAULT,
};
static const Operation op_zeroes = {
    "write-zeroes", NVME_CMD_WRITE_ZEROES, "write-zeroes", "write",
    NVME_WRITE_FAULT,
};
static const Operation op_flush = {
    "flush", NVME_CMD_FLUSH, "flush", "flush", NVME_WRITE_FAULT,
};
static const Operation op_discard = {
    "discard", NVME_CMD_DSM, "discard", "discard", NVME_INTERNAL_DEV_ERROR,
};
static const Operation op_compare = {
    "compare", NVME_CMD_COMPARE, "read", "read", NVME_UNRECOVERED_READ,
};
static const Operation op_verify = {
    "verify", NVME_CMD_VERIFY, "read", "read", NVME_UNRECOVERED_READ,
};
static const Operation op_append = {
    "append", NVME_CMD_ZONE_APPEND, "write", "write", NVME_WRITE_FAULT,
};
static const Operation op_copy = {
    "copy", NVME_CMD_COPY, "write", "write", NVME_WRITE_FAULT,
};
static const Operation op_copy_from = {
    "copy-from", NVME_CMD_COPY, "read", "read", NVME_UNRECOVERED_READ,
};

/* For the administrator, and of the whole namespace */
static const Operation op_format = {
    "format", NVME_ADM_CMD_FORMAT_NVM, "write-zeroes", "write",
    NVME_INTERNAL_DEV_ERROR,
};

static const Operation *const operations[] = {
    &op_read, &op_write, &op_zeroes, &op_flush, &op_discard, &op_compare,
    &op_verify,
};

typedef struct Command {
    uint16_t cid;
    /* Of the data, and of the metadata if there is any */
    uint64_t addr;
    uint64_t metadata;
} Command;

/* Fill in what a command needs in memory; returns what goes to the queue */
static NvmeCmd command(Vm *vm, Command *c, const Operation *op, uint64_t lba)
{
    const NvmeDsmRange range = {
        .nlb = cpu_to_le32(1), .slba = cpu_to_le64(lba),
    };
    /* From the block before */
    const NvmeCopySourceRangeFormat0_2 source = {
        .slba = cpu_to_le64(lba - 1),
    };
    NvmeCmd cmd = {
        .opcode = op->opcode,
        .nsid = cpu_to_le32(1),
    };

    c->addr = guest_alloc(&vm->alloc, VMQ_SECTOR);
    c->metadata = guest_alloc(&vm->alloc, 8);
    qtest_memset(vm->qts, c->addr, op == &op_compare ? OLD : NEW, VMQ_SECTOR);
    qtest_memset(vm->qts, c->metadata, METADATA_NEW, 8);
    cmd.dptr.prp1 = cpu_to_le64(c->addr);

    if (op == &op_discard) {
        qtest_memwrite(vm->qts, c->addr, &range, sizeof(range));
        cmd.cdw11 = cpu_to_le32(NVME_DSMGMT_AD);
    } else if (op->opcode == NVME_CMD_COPY) {
        qtest_memwrite(vm->qts, c->addr, &source, sizeof(source));
        cmd.cdw10 = cpu_to_le32(lba);
    } else if (op != &op_flush && op != &op_format) {
        cmd.cdw10 = cpu_to_le32(lba);
        cmd.cdw12 = cpu_to_le32(vm->ns->prinfo << 26);
        if (vm->ns->metadata) {
            cmd.mptr = cpu_to_le64(c->metadata);
        }
    }
    return cmd;
}

static Command submit_at(Vm *vm, const Operation *op, uint64_t lba)
{
    Queue *q = op == &op_format ? &vm->admin : &vm->io;
    Command c;

    c.cid = submit(vm, q, command(vm, &c, op, lba));
    return c;
}

static Command submit_op(Vm *vm, const Operation *op)
{
    if (op == &op_flush) {
        /* There must be something to flush */
        wait_status(vm, submit_at(vm, &op_write, LBA + 8).cid, NVME_SUCCESS);
    }
    return submit_at(vm, op, LBA);
}

/* Images */

/* Blocks from one before LBA on are OLD, as is the metadata of LBA */
static char *make_image(void)
{
    g_autofree char *data = g_malloc(16 * VMQ_SECTOR);
    char *image = vmq_make_image("raw", VMQ_IMAGE_SIZE);
    int fd = open(image, O_WRONLY);

    g_assert_cmpint(fd, >=, 0);
    memset(data, OLD, 16 * VMQ_SECTOR);
    g_assert_cmpint(pwrite(fd, data, 16 * VMQ_SECTOR, OFFSET - VMQ_SECTOR),
                    ==, 16 * VMQ_SECTOR);
    g_assert_cmpint(pwrite(fd, data, 8, METADATA_OFFSET), ==, 8);
    close(fd);
    return image;
}

/*
 * What makes blkdebug fail the next @n requests of that kind, at @offset, or
 * anywhere if it is < 0
 */
static char *debug_options(const char *iotype, int64_t offset, int n)
{
    g_autoptr(GString) s = g_string_new(NULL);
    int i;

    for (i = 0; i < n; i++) {
        g_string_append_printf(s, ",inject-error.%d.event=none,"
                               "inject-error.%d.iotype=%s,"
                               "inject-error.%d.once=on", i, i, iotype, i);
        if (offset >= 0) {
            g_string_append_printf(s, ",inject-error.%d.sector=%" PRId64, i,
                                   offset / VMQ_SECTOR);
        }
    }
    return g_string_free(g_steal_pointer(&s), false);
}

/* Node 'disk', which does so */
static char *debug_args(const char *image, const char *iotype, int64_t offset,
                        int n)
{
    g_autofree char *options = debug_options(iotype, offset, n);

    return g_strdup_printf(
        "-blockdev file,node-name=file,filename=%s,discard=unmap "
        "-blockdev blkdebug,node-name=disk,image=file,discard=unmap%s",
        image, options);
}

/*
 * Node 'disk': one request a second, and the clock stands still.  The next @n
 * writes fail.
 */
static char *throttle_args(int n)
{
    g_autofree char *options = debug_options("write", -1, n);

    return g_strdup_printf(
        "-blockdev null-co,node-name=null,size=%d,read-zeroes=on "
        "-blockdev blkdebug,node-name=debug,image=null%s "
        "-object throttle-group,id=t,x-iops-total=1 "
        "-blockdev throttle,node-name=disk,throttle-group=t,file=debug",
        VMQ_IMAGE_SIZE, options);
}

/* The data of a command that has succeeded are where they belong */
static void check_data(Vm *vm, const Operation *op, const Command *c,
                       const char *image)
{
    switch (op->opcode) {
    case NVME_CMD_READ:
        g_assert_cmphex(qtest_readb(vm->qts, c->addr), ==, OLD);
        if (vm->ns == &with_metadata) {
            g_assert_cmphex(qtest_readb(vm->qts, c->metadata), ==, OLD);
        }
        break;
    case NVME_CMD_WRITE:
        g_assert_cmphex(vmq_byte_at(image, OFFSET), ==, NEW);
        if (vm->ns == &with_metadata) {
            g_assert_cmphex(vmq_byte_at(image, METADATA_OFFSET), ==,
                            METADATA_NEW);
        } else if (vm->ns == &with_pi) {
            g_assert_cmphex(vmq_byte_at(image, METADATA_OFFSET), !=, OLD);
        }
        break;
    case NVME_CMD_WRITE_ZEROES:
        g_assert_cmphex(vmq_byte_at(image, OFFSET), ==, 0);
        break;
    default:
        /* Not all file systems discard */
        break;
    }
}

/* What the policy makes of a failed command */

static void add_rule(QTestState *qts, const char *action)
{
    hwe_add_rule(qts, "{ 'id': 'rule', 'source': 'block-io',"
                 "  'component': %s, 'action': %s }", PATH, action);
}

static void wait_held(Vm *vm, int n)
{
    while (vmq_held_requests(vm->qts) != n) {
        g_usleep(1000);
    }
}

static void assert_str(QDict *dict, const char *key, const char *value)
{
    g_assert_cmpstr(qdict_get_try_str(dict, key), ==, value);
}

/* Returns: the record, to be unreferenced */
static QDict *wait_record(Vm *vm, const Operation *op, HweAction action,
                          int64_t offset)
{
    QDict *record = hwe_event(vm->qts, "HARDWARE_ERROR");
    QDict *info = qdict_get_qdict(record, "info");

    assert_str(record, "action",
               hwe_action_name(action == HWE_NONE ? HWE_REPORT : action));
    assert_str(info, "source", "block-io");
    assert_str(info, "component", PATH);
    assert_str(info, "node-name", "disk");
    assert_str(info, "operation", op->reported);
    assert_str(info, "action", "report");
    g_assert_cmpint(qdict_get_int(info, "errno"), ==, EIO);
    if (op != &op_flush) {
        g_assert_cmpint(qdict_get_int(info, "offset"), ==, offset);
    }
    return record;
}

/* The command that has failed is held */
static void check_held(Vm *vm, const Operation *op, const Command *c,
                       HweAction action, const char *image,
                       const char *before, QDict *record)
{
    bool is_quiesce = action == HWE_QUIESCE;
    g_autoptr(QDict) event = hwe_event(vm->qts, "BLOCK_IO_ERROR");
    g_autofree char *after = NULL;

    assert_str(event, "action", "stop");
    assert_str(event, "operation",
               g_str_equal(op->reported, "read") ? "read" : "write");
    if (is_quiesce) {
        g_autoptr(QDict) quiesced = hwe_expect_quiesced(vm->qts, record);

        g_assert_cmpint(qdict_get_int(quiesced, "held-requests"), ==, 1);
        g_assert_true(vmq_can_write(image, "raw"));
        vmq_abuse(vm->qts, image);
        g_assert_cmphex(status(vm, c->cid), ==, PENDING);
        g_assert_cmpint(vmq_held_requests(vm->qts), ==, 1);
        hwe_unquiesce(vm->qts, record);
    } else {
        vmq_wait_status(vm->qts, "io-error");
    }
    g_assert_cmphex(status(vm, c->cid), ==, PENDING);
    g_assert_cmpint(vmq_held_requests(vm->qts), ==, 1);
    after = vmq_checksum(image);
    g_assert_cmpstr(before, ==, after);
}

typedef struct PolicyCase {
    const Namespace *ns;
    const Operation *op;
    int64_t offset;
} PolicyCase;

static void test_policy(const void *opaque)
{
    const HweCase *hwe = opaque;
    const PolicyCase *p = hwe->data;
    const Operation *op = p->op;
    g_autofree char *image = make_image();
    g_autofree char *args = debug_args(image, op->iotype,
                                       op == &op_flush ? -1 : p->offset, 1);
    g_autofree char *before = NULL;
    g_autoptr(QDict) record = NULL;
    Vm *vm = vm_start(p->ns, args);
    bool reported = hwe->action != HWE_IGNORE;
    Command c;

    if (hwe->action != HWE_NONE) {
        add_rule(vm->qts, hwe_action_name(hwe->action));
    }
    c = submit_op(vm, op);
    if (hwe_contains(hwe->action)) {
        wait_held(vm, 1);
    }
    /* What it has written before it failed is there */
    before = vmq_checksum(image);
    if (reported) {
        record = wait_record(vm, op, hwe->action, p->offset);
    }

    if (hwe_contains(hwe->action)) {
        check_held(vm, op, &c, hwe->action, image, before, record);
        vmq_cont(vm->qts);
        wait_status(vm, c.cid, NVME_SUCCESS);
        check_data(vm, op, &c, image);
    } else {
        wait_status(vm, c.cid, op->failed);
        g_assert_cmpint(hwe_count("BLOCK_IO_ERROR"), ==, 0);
    }
    g_assert_cmpint(vmq_held_requests(vm->qts), ==, 0);
    vmq_assert_status(vm->qts, "running");
    hwe_assert_records(vm->qts, reported);

    /* It does as well as before */
    c = submit_op(vm, op);
    wait_status(vm, c.cid, NVME_SUCCESS);
    check_data(vm, op, &c, image);
    vm_quit(vm);
    unlink(image);
}

/* A command that may not be executed again: the guest is told */
static void test_told(const void *opaque)
{
    const HweCase *hwe = opaque;
    const PolicyCase *p = hwe->data;
    g_autofree char *image = make_image();
    g_autofree char *args = debug_args(image, p->op->iotype, p->offset, 1);
    g_autoptr(QDict) record = NULL;
    Vm *vm = vm_start(p->ns, args);

    if (hwe->action != HWE_NONE) {
        add_rule(vm->qts, hwe_action_name(hwe->action));
    }
    wait_status(vm, submit_op(vm, p->op).cid, p->op->failed);
    if (hwe->action != HWE_IGNORE) {
        record = wait_record(vm, p->op, hwe->action, p->offset);
    }
    g_assert_cmpint(vmq_held_requests(vm->qts), ==, 0);
    if (hwe->action == HWE_QUIESCE) {
        qobject_unref(hwe_expect_quiesced(vm->qts, record));
        hwe_unquiesce(vm->qts, record);
    } else if (hwe->action == HWE_STOP) {
        qobject_unref(hwe_event(vm->qts, "STOP"));
    }
    if (hwe_contains(hwe->action)) {
        vmq_cont(vm->qts);
    }
    wait_status(vm, submit_op(vm, p->op).cid, NVME_SUCCESS);
    hwe_assert_records(vm->qts, hwe->action != HWE_IGNORE);
    vm_quit(vm);
    unlink(image);
}

/* Metadata where none can be: the guest is to blame, and no disk */
static void test_guest_error(void)
{
    g_autofree char *image = make_image();
    g_autofree char *args = debug_args(image, "write", OFFSET, 0);
    Vm *vm = vm_start(&with_metadata, args);
    NvmeCmd cmd;
    Command c;

    add_rule(vm->qts, "stop");
    cmd = command(vm, &c, &op_write, LBA);
    cmd.mptr = cpu_to_le64(vm->bar.addr);
    wait_status(vm, submit(vm, &vm->io, cmd), NVME_WRITE_FAULT);
    hwe_expect_none(vm->qts);
    vm_quit(vm);
    unlink(image);
}

/* A Copy that has not come to read anything */
static void test_guest_error_copy(void)
{
    g_autofree char *image = make_image();
    g_autofree char *args = debug_args(image, "read", OFFSET, 0);
    Vm *vm = vm_start(&separate, args);
    const NvmeCopySourceRangeFormat0_2 source = {
        .slba = cpu_to_le64(VMQ_IMAGE_SIZE / VMQ_SECTOR),
    };
    NvmeCmd cmd;
    Command c;

    add_rule(vm->qts, "stop");
    cmd = command(vm, &c, &op_copy, LBA);
    qtest_memwrite(vm->qts, c.addr, &source, sizeof(source));
    wait_status(vm, submit(vm, &vm->io, cmd), NVME_LBA_RANGE);
    hwe_expect_none(vm->qts);
    vm_quit(vm);
    unlink(image);
}

/* A VM that is stopped, and that holds @n writes to LBA and the blocks after */

typedef struct Held {
    char *image;
    char *before;
    Vm *vm;
    uint16_t cid[QUEUE_ENTRIES];
} Held;

static Held held_start(const Namespace *ns, const Operation *op, int n,
                       uint64_t lba)
{
    Held h = { .image = make_image() };
    g_autofree char *args = debug_args(h.image, "write", -1, n);
    int i;

    h.before = vmq_checksum(h.image);
    h.vm = vm_start(ns, args);
    add_rule(h.vm->qts, "stop");
    for (i = 0; i < n; i++) {
        Command c;

        /* Appended to one zone */
        h.cid[i] = queue_add(h.vm, &h.vm->io,
                             command(h.vm, &c, op,
                                     op == &op_append ? lba : lba + i));
    }
    queue_ring(h.vm, &h.vm->io);
    wait_held(h.vm, n);
    vmq_wait_status(h.vm->qts, "io-error");
    for (i = 0; i < n; i++) {
        g_assert_cmphex(status(h.vm, h.cid[i]), ==, PENDING);
    }
    return h;
}

static void held_assert_unchanged(Held *h)
{
    g_autofree char *after = vmq_checksum(h->image);

    g_assert_cmpstr(h->before, ==, after);
}

static void held_end(Held *h)
{
    vm_quit(h->vm);
    unlink(h->image);
    g_free(h->image);
    g_free(h->before);
}

/* The controller has dropped them all; it works, and nothing comes after */
static void held_check_dropped(Held *h)
{
    Vm *vm = h->vm;

    g_assert_cmpint(vmq_held_requests(vm->qts), ==, 0);
    held_assert_unchanged(h);
    vmq_cont(vm->qts);
    controller_start(vm);
    wait_status(vm, submit_at(vm, &op_flush, 0).cid, NVME_SUCCESS);
    held_assert_unchanged(h);
    wait_status(vm, submit_at(vm, &op_write, LBA).cid, NVME_SUCCESS);
    g_assert_cmphex(vmq_byte_at(h->image, OFFSET), ==, NEW);
}

static void test_held_many(void)
{
    const int n = 8;
    Held h = held_start(&plain, &op_write, n, LBA);
    int i;

    held_assert_unchanged(&h);
    vmq_cont(h.vm->qts);
    for (i = 0; i < n; i++) {
        wait_status(h.vm, h.cid[i], NVME_SUCCESS);
        g_assert_cmphex(vmq_byte_at(h.image, OFFSET + i * VMQ_SECTOR), ==,
                        NEW);
    }
    g_assert_cmpint(vmq_held_requests(h.vm->qts), ==, 0);
    held_end(&h);
}

static void step_until_ended(Vm *vm, uint16_t cid)
{
    while (status(vm, cid) == PENDING) {
        qtest_clock_step(vm->qts, NANOSECONDS_PER_SECOND / 4);
        g_usleep(1000);
    }
}

/* They are executed in the order in which they failed */
static void test_held_order(void)
{
    const int n = 4;
    g_autofree char *args = throttle_args(n);
    Vm *vm = vm_start(&plain, args);
    uint16_t cid[4];
    int i, first;

    add_rule(vm->qts, "stop");
    for (i = 0; i < n; i++) {
        cid[i] = submit_at(vm, &op_write, LBA + i).cid;
    }
    /* Draining does not wait for the throttle */
    wait_held(vm, n);
    vmq_wait_status(vm->qts, "io-error");
    first = vm->num_ended;

    /* Now they come one by one */
    vmq_cont(vm->qts);
    for (i = 0; i < n; i++) {
        step_until_ended(vm, cid[i]);
        g_assert_cmpint(vm->ended[first + i], ==, cid[i]);
        g_assert_cmphex(status(vm, cid[i]), ==, NVME_SUCCESS);
    }
    vm_quit(vm);
}

/* One that fails again is held again */
static void test_held_again(void)
{
    g_autofree char *image = make_image();
    g_autofree char *args = debug_args(image, "write", OFFSET, 3);
    Vm *vm = vm_start(&plain, args);
    Command c;
    int i;

    add_rule(vm->qts, "stop");
    c = submit_op(vm, &op_write);
    for (i = 0; i < 3; i++) {
        wait_held(vm, 1);
        vmq_wait_status(vm->qts, "io-error");
        g_assert_cmphex(status(vm, c.cid), ==, PENDING);
        qtest_qmp_assert_success(vm->qts, "{ 'execute': 'cont' }");
        if (i < 2) {
            /* What is seen next must be of the next round */
            qobject_unref(hwe_event(vm->qts, "STOP"));
            qobject_unref(hwe_event(vm->qts, "RESUME"));
        }
    }
    wait_status(vm, c.cid, NVME_SUCCESS);
    check_data(vm, &op_write, &c, image);
    vm_quit(vm);
    unlink(image);
}

static void test_held_controller_reset(void)
{
    Held h = held_start(&plain, &op_write, 3, LBA);

    controller_reset(h.vm);
    held_check_dropped(&h);
    held_end(&h);
}

static void test_held_system_reset(void)
{
    Held h = held_start(&plain, &op_write, 3, LBA);
    uint64_t bar;

    qtest_qmp_assert_success(h.vm->qts, "{ 'execute': 'system_reset' }");
    qobject_unref(hwe_event(h.vm->qts, "RESET"));
    bar = h.vm->bar.addr;
    qpci_config_writel(h.vm->dev, PCI_BASE_ADDRESS_0, bar);
    held_check_dropped(&h);
    held_end(&h);
}

/* They end as those in flight do */
static void test_held_delete_queue(void)
{
    const int n = 3;
    Held h = held_start(&plain, &op_write, n, LBA);
    int i;

    delete_sq(h.vm);
    for (i = 0; i < n; i++) {
        g_assert_cmphex(status(h.vm, h.cid[i]), ==, NVME_WRITE_FAULT);
    }
    g_assert_cmpint(vmq_held_requests(h.vm->qts), ==, 0);
    vmq_cont(h.vm->qts);
    h.vm->io.tail = 0;
    create_sq(h.vm);
    wait_status(h.vm, submit_at(h.vm, &op_flush, 0).cid, NVME_SUCCESS);
    held_assert_unchanged(&h);
    held_end(&h);
}

static void test_held_abort(void)
{
    const int n = 3;
    Held h = held_start(&plain, &op_write, n, LBA);
    int i;

    admin_command(h.vm, (NvmeCmd) {
        .opcode = NVME_ADM_CMD_ABORT,
        .cdw10 = cpu_to_le32(h.cid[1] << 16 | h.vm->io.id),
    });
    wait_status(h.vm, h.cid[1], NVME_WRITE_FAULT);
    g_assert_cmpint(vmq_held_requests(h.vm->qts), ==, n - 1);
    held_assert_unchanged(&h);

    vmq_cont(h.vm->qts);
    for (i = 0; i < n; i += 2) {
        wait_status(h.vm, h.cid[i], NVME_SUCCESS);
        g_assert_cmphex(vmq_byte_at(h.image, OFFSET + i * VMQ_SECTOR), ==,
                        NEW);
    }
    g_assert_cmphex(vmq_byte_at(h.image, OFFSET + VMQ_SECTOR), ==, OLD);
    held_end(&h);
}

/* One that the guest has given up is not held when it fails */
static void test_held_aborted(void)
{
    g_autofree char *args = throttle_args(1);
    g_autoptr(QDict) record = NULL;
    Vm *vm = vm_start(&plain, args);
    uint16_t cid;

    add_rule(vm->qts, "stop");
    wait_status(vm, submit_at(vm, &op_read, LBA).cid, NVME_SUCCESS);
    cid = submit_at(vm, &op_write, LBA).cid;
    g_assert_cmphex(status(vm, cid), ==, PENDING);
    admin_command(vm, (NvmeCmd) {
        .opcode = NVME_ADM_CMD_ABORT,
        .cdw10 = cpu_to_le32(cid << 16 | vm->io.id),
    });
    g_assert_cmphex(status(vm, cid), ==, PENDING);
    step_until_ended(vm, cid);
    g_assert_cmphex(status(vm, cid), ==, NVME_WRITE_FAULT);
    g_assert_cmpint(vmq_held_requests(vm->qts), ==, 0);
    record = wait_record(vm, &op_write, HWE_STOP, OFFSET);
    vm_quit(vm);
}

/* The guest is told of a namespace that it has not got any more */
static void test_held_detach(void)
{
    /* One controller: 0 */
    const uint16_t list[] = { cpu_to_le16(1), 0 };
    Held h = held_start(&separate, &op_write, 2, LBA);
    uint64_t addr = guest_alloc(&h.vm->alloc, 4096);

    qtest_memset(h.vm->qts, addr, 0, 4096);
    qtest_memwrite(h.vm->qts, addr, list, sizeof(list));
    admin_command(h.vm, (NvmeCmd) {
        .opcode = NVME_ADM_CMD_NS_ATTACHMENT,
        .nsid = cpu_to_le32(1),
        .dptr.prp1 = cpu_to_le64(addr),
        .cdw10 = cpu_to_le32(NVME_NS_ATTACHMENT_DETACH),
    });
    g_assert_cmpint(vmq_held_requests(h.vm->qts), ==, 2);
    vmq_cont(h.vm->qts);
    wait_status(h.vm, h.cid[0], NVME_WRITE_FAULT);
    wait_status(h.vm, h.cid[1], NVME_WRITE_FAULT);
    g_assert_cmpint(vmq_held_requests(h.vm->qts), ==, 0);
    held_assert_unchanged(&h);
    held_end(&h);
}

static void unplug(QTestState *qts, const char *id, int slot)
{
    g_autoptr(QDict) deleted = NULL;

    qtest_qmp_assert_success(qts, "{ 'execute': 'device_del',"
                             "  'arguments': { 'id': %s } }", id);
    /* What the guest's ACPI would do */
    qtest_outl(qts, 0xae08, 1 << slot);
    /* Its bus goes first */
    do {
        qobject_unref(deleted);
        deleted = hwe_event(qts, "DEVICE_DELETED");
    } while (g_strcmp0(qdict_get_try_str(deleted, "device"), id));
}

static void test_held_unplug(void)
{
    Held h = held_start(&plain, &op_write, 3, LBA);

    unplug(h.vm->qts, "dev", SLOT);
    g_assert_cmpint(vmq_held_requests(h.vm->qts), ==, 0);
    vmq_cont(h.vm->qts);
    held_assert_unchanged(&h);
    held_end(&h);
}

/* What one controller holds is no matter of another one's */
static void test_held_unplug_other(void)
{
    const int n = 3;
    Held h = held_start(&plain, &op_write, n, LBA);
    int i;

    unplug(h.vm->qts, "other", OTHER_SLOT);
    g_assert_cmpint(vmq_held_requests(h.vm->qts), ==, n);
    vmq_cont(h.vm->qts);
    for (i = 0; i < n; i++) {
        wait_status(h.vm, h.cid[i], NVME_SUCCESS);
    }
    held_end(&h);
}

static void test_held_quit(void)
{
    Held h = held_start(&plain, &op_write, 3, LBA);

    held_assert_unchanged(&h);
    held_end(&h);
}

/* Zones: of 8 blocks, the one that LBA begins */

static void test_zone_append(void)
{
    Held h = held_start(&zoned, &op_append, 2, LBA);
    Vm *vm = h.vm;
    Command c;

    held_assert_unchanged(&h);
    vmq_cont(vm->qts);
    wait_status(vm, h.cid[0], NVME_SUCCESS);
    wait_status(vm, h.cid[1], NVME_SUCCESS);
    g_assert_cmpint(vm->result[h.cid[0]], ==, LBA);
    g_assert_cmpint(vm->result[h.cid[1]], ==, LBA + 1);
    g_assert_cmphex(vmq_byte_at(h.image, OFFSET), ==, NEW);
    g_assert_cmphex(vmq_byte_at(h.image, OFFSET + VMQ_SECTOR), ==, NEW);

    /* The write pointer has moved just once */
    c = submit_op(vm, &op_append);
    wait_status(vm, c.cid, NVME_SUCCESS);
    g_assert_cmpint(vm->result[c.cid], ==, LBA + 2);
    held_end(&h);
}

/* The write pointer moves on for those that are dropped, too */
static void test_zone_abort(void)
{
    Held h = held_start(&zoned, &op_append, 1, LBA);
    Vm *vm = h.vm;
    int i;

    admin_command(vm, (NvmeCmd) {
        .opcode = NVME_ADM_CMD_ABORT,
        .cdw10 = cpu_to_le32(h.cid[0] << 16 | vm->io.id),
    });
    wait_status(vm, h.cid[0], NVME_WRITE_FAULT);
    vmq_cont(vm->qts);
    for (i = 1; i < 8; i++) {
        wait_status(vm, submit_op(vm, &op_append).cid, NVME_SUCCESS);
    }
    wait_status(vm, submit_op(vm, &op_append).cid, NVME_ZONE_FULL);
    held_end(&h);
}

static void test_zone_reset(void)
{
    g_autofree char *image = make_image();
    g_autofree char *args = debug_args(image, "write-zeroes", OFFSET, 1);
    Vm *vm = vm_start(&zoned, args);
    uint16_t cid;
    Command c;

    add_rule(vm->qts, "stop");
    wait_status(vm, submit_op(vm, &op_append).cid, NVME_SUCCESS);
    cid = submit(vm, &vm->io, (NvmeCmd) {
        .opcode = NVME_CMD_ZONE_MGMT_SEND,
        .nsid = cpu_to_le32(1),
        .cdw10 = cpu_to_le32(LBA),
        .cdw13 = cpu_to_le32(NVME_ZONE_ACTION_RESET),
    });
    wait_held(vm, 1);
    vmq_wait_status(vm->qts, "io-error");
    g_assert_cmphex(status(vm, cid), ==, PENDING);
    vmq_cont(vm->qts);
    wait_status(vm, cid, NVME_SUCCESS);
    c = submit_op(vm, &op_append);
    wait_status(vm, c.cid, NVME_SUCCESS);
    g_assert_cmpint(vm->result[c.cid], ==, LBA);
    vm_quit(vm);
    unlink(image);
}

/* Placed data are counted once */
static void test_placed(void)
{
    Held h = held_start(&placed, &op_write, 2, LBA);
    uint64_t addr = guest_alloc(&h.vm->alloc, sizeof(NvmeFdpStatsLog));

    vmq_cont(h.vm->qts);
    wait_status(h.vm, h.cid[0], NVME_SUCCESS);
    wait_status(h.vm, h.cid[1], NVME_SUCCESS);
    admin_command(h.vm, (NvmeCmd) {
        .opcode = NVME_ADM_CMD_GET_LOG_PAGE,
        .dptr.prp1 = cpu_to_le64(addr),
        .cdw10 = cpu_to_le32((sizeof(NvmeFdpStatsLog) / 4 - 1) << 16 |
                             NVME_LOG_FDP_STATS),
        /* Of endurance group 1 */
        .cdw11 = cpu_to_le32(1 << 16),
    });
    g_assert_cmpint(qtest_readq(h.vm->qts, addr), ==, 2 * VMQ_SECTOR);
    held_end(&h);
}

/* Cases */

int main(int argc, char **argv)
{
    static const PolicyCase more[] = {
        { &with_metadata, &op_read, OFFSET },
        { &with_metadata, &op_write, OFFSET },
        { &with_metadata, &op_read, METADATA_OFFSET },
        { &with_metadata, &op_write, METADATA_OFFSET },
        { &with_pi, &op_read, OFFSET },
        { &with_pi, &op_write, OFFSET },
        { &with_pi, &op_write, METADATA_OFFSET },
        { &with_pi, &op_zeroes, OFFSET },
    };
    static const PolicyCase told[] = {
        { &separate, &op_copy, OFFSET },
        { &separate, &op_copy_from, OFFSET - VMQ_SECTOR },
        { &plain, &op_format, 0 },
        { &atomic, &op_write, OFFSET },
    };
    static PolicyCase cases[ARRAY_SIZE(operations)];
    int i, ret;

    g_test_init(&argc, &argv, NULL);
    vmq_tmpdir_make();

    for (i = 0; i < ARRAY_SIZE(operations); i++) {
        cases[i] = (PolicyCase) { &plain, operations[i], OFFSET };
        hwe_add_cases(test_policy, &cases[i], "nvme/policy/plain/%s",
                      operations[i]->name);
    }
    for (i = 0; i < ARRAY_SIZE(more); i++) {
        hwe_add_cases(test_policy, &more[i], "nvme/policy/%s/%s%s",
                      more[i].ns->name, more[i].op->name,
                      more[i].offset == OFFSET ? "" : "-of-metadata");
    }
    for (i = 0; i < ARRAY_SIZE(told); i++) {
        hwe_add_cases(test_told, &told[i], "nvme/policy/%s/%s",
                      told[i].ns->name, told[i].op->name);
    }
    qtest_add_func("hw-error/nvme/guest-error/metadata", test_guest_error);
    qtest_add_func("hw-error/nvme/guest-error/copy", test_guest_error_copy);
    qtest_add_func("hw-error/nvme/held/many", test_held_many);
    qtest_add_func("hw-error/nvme/held/order", test_held_order);
    qtest_add_func("hw-error/nvme/held/again", test_held_again);
    qtest_add_func("hw-error/nvme/held/controller-reset",
                   test_held_controller_reset);
    qtest_add_func("hw-error/nvme/held/system-reset", test_held_system_reset);
    qtest_add_func("hw-error/nvme/held/delete-queue", test_held_delete_queue);
    qtest_add_func("hw-error/nvme/held/abort", test_held_abort);
    qtest_add_func("hw-error/nvme/held/aborted", test_held_aborted);
    qtest_add_func("hw-error/nvme/held/detach", test_held_detach);
    qtest_add_func("hw-error/nvme/held/unplug", test_held_unplug);
    qtest_add_func("hw-error/nvme/held/unplug-other", test_held_unplug_other);
    qtest_add_func("hw-error/nvme/held/quit", test_held_quit);
    qtest_add_func("hw-error/nvme/placed/write", test_placed);
    qtest_add_func("hw-error/nvme/zone/append", test_zone_append);
    qtest_add_func("hw-error/nvme/zone/abort", test_zone_abort);
    qtest_add_func("hw-error/nvme/zone/reset", test_zone_reset);

    ret = g_test_run();
    vmq_tmpdir_remove();
    return ret;
}
