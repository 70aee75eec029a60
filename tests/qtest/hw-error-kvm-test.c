/*
 * Test of hardware errors: a vCPU that KVM cannot run
 *
 * Real failures of a real KVM: an instruction that no KVM can emulate, with an
 * operand that is not memory; and memory that is no longer there, because the
 * file behind it was truncated.  Failures that no guest can cause are tested
 * elsewhere.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw-error-util.h"
#include "qemu/bitops.h"
#include "qemu/bswap.h"
#include "qobject/qlist.h"
#include "qobject/qnum.h"
#include "vm-quiesce-util.h"

#define RAM_SIZE        0x1000000
#define GOOD_SIZE       0x400000
#define BAD_ADDR        0x800000

/* The firmware: what starts the guest, what another vCPU does, reset vector */
#define BIOS_SIZE       0x10000
#define SECOND          0x1000
#define RESET           0xfff0

/* What the test has put into the guest's memory */
#define GDT_POINTER     0x500
#define GDT             0x600
#define DONE            0x6000
#define STACK           0x7000
#define USER            0x8000
#define PML4            0x10000
#define PDPT            0x11000
#define PD              0x12000

static const uint8_t reset[] = {
    0xea, 0x00, 0x00, 0x00, 0xf0,               /* ljmp   $0xf000,$0 */
};

static const uint8_t emulation[] = {
    0xb8, 0x00, 0xa0,                           /* mov    $0xa000,%ax */
    0x8e, 0xd8,                                 /* mov    %ax,%ds */
    0xd8, 0x06, 0x00, 0x00,                     /* fadds  0 */
};
#define FADDS           5

static const uint8_t start_second[] = {
    0x66, 0xb9, 0x1b, 0x00, 0x00, 0x00,         /* mov    $0x1b,%ecx */
    0x0f, 0x32,                                 /* rdmsr */
    0x80, 0xcc, 0x0c,                           /* or     $0xc,%ah: x2APIC */
    0x0f, 0x30,                                 /* wrmsr */
    0x66, 0xb9, 0x30, 0x08, 0x00, 0x00,         /* mov    $0x830,%ecx: ICR */
    0x66, 0x31, 0xd2,                           /* xor    %edx,%edx */
    0x66, 0xb8, 0x00, 0x45, 0x0c, 0x00,         /* mov    $0xc4500,%eax: INIT */
    0x0f, 0x30,                                 /* wrmsr */
    0x66, 0xb8, 0xf1, 0x46, 0x0c, 0x00,         /* mov    $0xc46f1,%eax: SIPI */
    0x0f, 0x30,                                 /* wrmsr */
    0xf4,                                       /* hlt */
    0xeb, 0xfd,                                 /* jmp    hlt */
};

/* To ring 3: where KVM emulates ring 0, it takes such memory for a device */
static const uint8_t start_user[] = {
    0x66, 0x0f, 0x01, 0x16, 0x00, 0x05,         /* lgdtl  GDT_POINTER */
    0x66, 0xb8, 0x20, 0x00, 0x00, 0x00,         /* mov    $0x20,%eax: PAE */
    0x0f, 0x22, 0xe0,                           /* mov    %eax,%cr4 */
    0x66, 0xb8, 0x00, 0x00, 0x01, 0x00,         /* mov    $PML4,%eax */
    0x0f, 0x22, 0xd8,                           /* mov    %eax,%cr3 */
    0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0,         /* mov    $0xc0000080,%ecx */
    0x66, 0xb8, 0x00, 0x01, 0x00, 0x00,         /* mov    $0x100,%eax: LME */
    0x66, 0x31, 0xd2,                           /* xor    %edx,%edx */
    0x0f, 0x30,                                 /* wrmsr */
    0x66, 0xb8, 0x01, 0x00, 0x00, 0x80,         /* mov    $0x80000001,%eax */
    0x0f, 0x22, 0xc0,                           /* mov    %eax,%cr0: PG, PE */
    0x66, 0xea, 0x3a, 0x00, 0x0f, 0x00, 8, 0,   /* ljmpl  $8,$1f */
    0xbc, 0x00, 0x70, 0x00, 0x00,               /* 1: mov $STACK,%esp */
    0x6a, 0x13,                                 /* push   $0x13 */
    0x68, 0x00, 0x70, 0x00, 0x00,               /* push   $STACK */
    0x6a, 0x02,                                 /* push   $2 */
    0x6a, 0x1b,                                 /* push   $0x1b */
    0x68, 0x00, 0x80, 0x00, 0x00,               /* push   $USER */
    0x48, 0xcf,                                 /* iretq */
};

static const uint8_t user[] = {
    0x8a, 0x04, 0x25, 0x00, 0x00, 0x80, 0x00,   /* mov    BAD_ADDR,%al */
    0xc6, 0x04, 0x25, 0x00, 0x60, 0x00, 0x00, 1, /* movb  $1,DONE */
    0xeb, 0xfe,                                 /* jmp    . */
};

static const uint64_t gdt[] = {
    0,
    0x00af9b000000ffff,                         /* code, 64 bits */
    0x00cff3000000ffff,                         /* data, ring 3 */
    0x00affb000000ffff,                         /* code, 64 bits, ring 3 */
};

typedef struct Guest {
    QTestState *qts;
    char *bios;
    char *ram;
} Guest;

static void make_bios(Guest *g, const uint8_t *first, size_t size)
{
    g_autofree uint8_t *image = g_malloc0(BIOS_SIZE);

    memcpy(image, first, size);
    memcpy(image + SECOND, emulation, sizeof(emulation));
    memcpy(image + RESET, reset, sizeof(reset));
    g->bios = vmq_tmpfile("bios");
    g_assert_true(g_file_set_contents(g->bios, (char *)image, BIOS_SIZE, NULL));
}

/* The first GiB is mapped one to one, for ring 3 */
static void make_ram(Guest *g)
{
    g_autofree uint8_t *ram = g_malloc0(RAM_SIZE);
    int i;

    stw_le_p(ram + GDT_POINTER, sizeof(gdt) - 1);
    stl_le_p(ram + GDT_POINTER + 2, GDT);
    for (i = 0; i < ARRAY_SIZE(gdt); i++) {
        stq_le_p(ram + GDT + 8 * i, gdt[i]);
    }
    stq_le_p(ram + PML4, PDPT | 7);
    stq_le_p(ram + PDPT, PD | 7);
    for (i = 0; i < 512; i++) {
        stq_le_p(ram + PD + 8 * i, i * 0x200000ull | 0x87);
    }
    memcpy(ram + USER, user, sizeof(user));
    g->ram = vmq_tmpfile("ram");
    g_assert_true(g_file_set_contents(g->ram, (char *)ram, RAM_SIZE, NULL));
}

static void resume(Guest *g)
{
    qtest_qmp_assert_success(g->qts, "{ 'execute': 'cont' }");
}

static void stop(Guest *g)
{
    if (g->ram) {
        /* QEMU must not meet it when it ends */
        g_assert_cmpint(truncate(g->ram, RAM_SIZE), ==, 0);
    }
    qtest_quit(g->qts);
    unlink(g->bios);
    g_free(g->bios);
    if (g->ram) {
        unlink(g->ram);
        g_free(g->ram);
    }
}

/* Whether there is a KVM that QEMU can use; skips the test if there is not */
static bool has_kvm(void)
{
    g_autoptr(QDict) kvm = NULL;
    QTestState *qts;
    bool enabled;

    if (!qtest_has_accel("kvm")) {
        g_test_skip("/dev/kvm cannot be opened");
        return false;
    }
    /* Otherwise QEMU goes on to the next accelerator, which is qtest */
    qts = qtest_init("-accel kvm -machine pc -m 16 -nodefaults -S");
    kvm = qtest_qmp_assert_success_ref(qts, "{ 'execute': 'query-kvm' }");
    enabled = qdict_get_bool(kvm, "enabled");
    qtest_quit(qts);
    if (!enabled) {
        g_test_skip("QEMU cannot use KVM");
    }
    return enabled;
}

/* The guest does not run yet */
static void start(Guest *g, HweAction action, const char *args)
{
    g_autofree char *all = g_strdup_printf(
        "-accel kvm -machine pc%s -m 16 -nodefaults -S -bios %s %s",
        g->ram ? ",memory-backend=ram" : "", g->bios, args);

    g->qts = hwe_init(all, "kvm", action);
}

static void start_emulation(Guest *g, HweAction action)
{
    *g = (Guest) {};
    make_bios(g, emulation, sizeof(emulation));
    start(g, action, "");
}

static void start_smp(Guest *g, HweAction action)
{
    *g = (Guest) {};
    make_bios(g, start_second, sizeof(start_second));
    start(g, action, "-smp 2");
}

static void start_memory(Guest *g, HweAction action)
{
    g_autofree char *args = NULL;

    *g = (Guest) {};
    make_bios(g, start_user, sizeof(start_user));
    make_ram(g);
    args = g_strdup_printf("-object memory-backend-file,id=ram,size=%d,"
                           "share=on,mem-path=%s", RAM_SIZE, g->ram);
    start(g, action, args);
    g_assert_cmpint(truncate(g->ram, GOOD_SIZE), ==, 0);
}

/* Check that the VM is where upstream leaves it, and cannot go on */
static void expect_internal_error(Guest *g)
{
    vmq_assert_status(g->qts, "internal-error");
    vmq_assert_error(qtest_qmp(g->qts, "{ 'execute': 'cont' }"),
                     "Resetting the Virtual Machine is required");
}

static void check_vcpu(Guest *g, QDict *info, int vcpu)
{
    g_autoptr(QDict) rsp = qtest_qmp(g->qts,
                                     "{ 'execute': 'query-cpus-fast' }");
    const QListEntry *e;

    g_assert_cmpint(qdict_get_int(info, "vcpu"), ==, vcpu);
    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), e) {
        QDict *cpu = qobject_to(QDict, qlist_entry_obj(e));

        g_assert_true((qdict_get_int(cpu, "cpu-index") == vcpu) ==
                      g_str_equal(qdict_get_str(info, "qom-path"),
                                  qdict_get_str(cpu, "qom-path")));
    }
}

/* Check what is the same for all failures; @info can be queried, too */
static void check_info(Guest *g, QDict *info, int vcpu)
{
    g_autoptr(QDict) log = qtest_qmp_assert_success_ref(
        g->qts, "{ 'execute': 'query-hardware-errors' }");
    QObject *record = qlist_peek(qdict_get_qlist(log, "errors"));

    g_assert_true(qobject_is_equal(
        QOBJECT(info), qdict_get(qobject_to(QDict, record), "info")));
    g_assert_cmpstr(qdict_get_str(info, "source"), ==, "kvm");
    g_assert_cmpstr(qdict_get_str(info, "severity"), ==, "fatal");
    check_vcpu(g, info, vcpu);
}

static void check_emulation(Guest *g, QDict *info)
{
    const QListEntry *data = qlist_first(qdict_get_qlist(info, "data"));

    g_assert_cmpstr(qdict_get_str(info, "reason"), ==, "emulation-failure");
    /* KVM_INTERNAL_ERROR_EMULATION */
    g_assert_cmpint(qdict_get_int(info, "code"), ==, 1);
    /* KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES, since Linux 5.14 */
    if (data && qnum_get_uint(qobject_to(QNum, qlist_entry_obj(data))) & 1) {
        uint64_t size_and_bytes = qnum_get_uint(
            qobject_to(QNum, qlist_entry_obj(qlist_next(data))));

        g_assert_cmphex(extract64(size_and_bytes, 8, 32), ==,
                        ldl_le_p(emulation + FADDS));
    }
}

static void check_memory(Guest *g, QDict *info)
{
    g_assert_cmpint(qdict_get_int(info, "code"), ==, EFAULT);
    /* Newer kernels tell the address */
    if (qdict_haskey(info, "guest-address")) {
        g_assert_cmpstr(qdict_get_str(info, "reason"), ==, "memory-fault");
        g_assert_cmphex(qdict_get_int(info, "guest-address"), ==, BAD_ADDR);
    } else {
        g_assert_cmpstr(qdict_get_str(info, "reason"), ==, "run-failed");
        g_assert_false(qdict_haskey(info, "data"));
    }
}

typedef struct Failure {
    void (*start)(Guest *g, HweAction action);
    void (*check)(Guest *g, QDict *info);
    int vcpu;
} Failure;

static const Failure failure_emulation = {
    start_emulation, check_emulation, 0
};
static const Failure failure_smp = { start_smp, check_emulation, 1 };
static const Failure failure_memory = { start_memory, check_memory, 0 };

/* Unless it is quiesced, the VM is stopped as without hardware errors */
static void test_failure(const void *opaque)
{
    const HweCase *c = opaque;
    const Failure *f = c->data;
    Guest g;

    if (!has_kvm()) {
        return;
    }
    f->start(&g, c->action);
    resume(&g);
    if (c->action != HWE_IGNORE) {
        g_autoptr(QDict) info = hwe_expect(g.qts, c->action, false,
                                           "internal-error");

        check_info(&g, info, f->vcpu);
        f->check(&g, info);
    }
    if (!hwe_contains(c->action)) {
        qobject_unref(hwe_event(g.qts, "STOP"));
    }
    if (c->action != HWE_QUIESCE) {
        expect_internal_error(&g);
    }
    if (c->action == HWE_IGNORE) {
        hwe_assert_records(g.qts, 0);
        g_assert_cmpint(hwe_count("HARDWARE_ERROR"), ==, 0);
    }
    stop(&g);
}

/* A VM that comes back has the same vCPU, which fails again */
static void test_again(void)
{
    Guest g;
    int i;

    if (!has_kvm()) {
        return;
    }
    start_emulation(&g, HWE_QUIESCE);
    for (i = 0; i < 2; i++) {
        g_autoptr(QDict) record = NULL, quiesced = NULL;
        g_autofree char *registers = NULL;

        resume(&g);
        record = hwe_event(g.qts, "HARDWARE_ERROR");
        quiesced = hwe_expect_quiesced(g.qts, record);
        g_assert_cmpstr(qdict_get_str(quiesced, "previous-status"), ==,
                        "running");
        registers = qtest_hmp(g.qts, "info registers");
        g_assert_nonnull(strstr(registers, "EIP=00000005"));
        hwe_unquiesce(g.qts, record);
    }
    hwe_remove_rule(g.qts, "rule");
    resume(&g);
    vmq_wait_status(g.qts, "internal-error");
    stop(&g);
}

/* When what was wrong is mended, the guest goes on, and has noticed nothing */
static void test_mended(void)
{
    g_autoptr(QDict) record = NULL;
    Guest g;

    if (!has_kvm()) {
        return;
    }
    start_memory(&g, HWE_QUIESCE);
    resume(&g);
    record = hwe_event(g.qts, "HARDWARE_ERROR");
    qobject_unref(hwe_expect_quiesced(g.qts, record));
    g_assert_cmpint(truncate(g.ram, RAM_SIZE), ==, 0);
    g_assert_cmpint(qtest_readb(g.qts, DONE), ==, 0);
    hwe_unquiesce(g.qts, record);
    resume(&g);
    while (!qtest_readb(g.qts, DONE)) {
        g_usleep(1000);
    }
    vmq_assert_status(g.qts, "running");
    hwe_assert_records(g.qts, 1);
    stop(&g);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    vmq_tmpdir_make();
    hwe_add_cases(test_failure, &failure_emulation, "kvm/emulation");
    hwe_add_cases(test_failure, &failure_smp, "kvm/smp");
    hwe_add_cases(test_failure, &failure_memory, "kvm/memory");
    qtest_add_func("/hw-error/kvm/again", test_again);
    qtest_add_func("/hw-error/kvm/mended", test_mended);
    ret = g_test_run();
    vmq_tmpdir_remove();
    return ret;
}
