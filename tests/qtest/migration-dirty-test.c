/*
 * Test that migration under TCG loses no write of the guest, wherever among
 * QEMU's RAM blocks its memory is
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqtest.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "qemu/bswap.h"

/* What the guest writes to: some pages, and one far behind them */
#define HOT         0x200000
#define HOT_END     0x240000
#define LONE        0x1800000
#define PAGE        0x1000

/*
 * The guest writes to more memory than can be sent in the downtime, so the
 * migration goes on.  What was written is looked for when what remains could be
 * sent in the downtime, 40 pages: LONE is among them, as it is sent last.
 */
#define BANDWIDTH   2500000
#define SWITCHOVER  8000000
#define DOWNTIME_MS 20
#define PASSES      8

#define BIOS_ADDR   0xf0000
#define BIOS_SIZE   0x10000
#define GDT         0x100
#define GDT_POINTER 0x200
#define RESET       0xfff0

/* Increments a counter in each page, over and over; nothing interrupts it */
static const uint8_t code[] = {
    0x2e, 0x66, 0x0f, 0x01, 0x16, 0x00, 0x02,   /* lgdtl  %cs:GDT_POINTER */
    0x0f, 0x20, 0xc0,                           /* mov    %cr0,%eax */
    0x0c, 0x01,                                 /* or     $1,%al */
    0x0f, 0x22, 0xc0,                           /* mov    %eax,%cr0 */
    0x66, 0xea, 0x17, 0x00, 0x0f, 0x00, 8, 0,   /* ljmpl  $8,$1f */
    0x66, 0xb8, 0x10, 0x00,                     /* 1: mov $0x10,%ax */
    0x8e, 0xd8,                                 /* mov    %ax,%ds */
    0xff, 0x05, 0x00, 0x00, 0x80, 0x01,         /* 2: incl LONE */
    0xbf, 0x00, 0x00, 0x20, 0x00,               /* mov    $HOT,%edi */
    0xff, 0x07,                                 /* 3: incl (%edi) */
    0x81, 0xc7, 0x00, 0x10, 0x00, 0x00,         /* add    $PAGE,%edi */
    0x81, 0xff, 0x00, 0x00, 0x24, 0x00,         /* cmp    $HOT_END,%edi */
    0x75, 0xf0,                                 /* jne    3b */
    0xeb, 0xe3,                                 /* jmp    2b */
};

static const uint64_t gdt[] = {
    0,
    0x00cf9b000000ffff,                         /* code */
    0x00cf93000000ffff,                         /* data */
};

static const uint8_t reset[] = {
    0xea, 0x00, 0x00, 0x00, 0xf0,               /* ljmp   $0xf000,$0 */
};

typedef struct Blocks {
    const char *name;
    const char *args;
} Blocks;

/* In the first case the guest's memory is at RAM address 0, as it mostly is */
static const Blocks blocks[] = {
    { "only", "" },
    { "behind-smaller", "-object memory-backend-ram,id=other,size=1M" },
    { "behind-larger", "-object memory-backend-ram,id=other,size=64M" },
    { "numa", "-object memory-backend-ram,id=m0,size=16M "
              "-object memory-backend-ram,id=m1,size=16M "
              "-numa node,memdev=m0 -numa node,memdev=m1" },
};

static char *make_bios(const char *dir)
{
    g_autofree char *image = g_malloc0(BIOS_SIZE);
    char *path = g_build_filename(dir, "bios", NULL);
    int i;

    memcpy(image, code, sizeof(code));
    for (i = 0; i < ARRAY_SIZE(gdt); i++) {
        stq_le_p(image + GDT + i * sizeof(gdt[0]), gdt[i]);
    }
    stw_le_p(image + GDT_POINTER, sizeof(gdt) - 1);
    stl_le_p(image + GDT_POINTER + 2, BIOS_ADDR + GDT);
    memcpy(image + RESET, reset, sizeof(reset));
    g_assert_true(g_file_set_contents(path, image, BIOS_SIZE, NULL));
    return path;
}

static void migrate(const Blocks *b)
{
    g_autofree char *dir = g_dir_make_tmp("qtest-migration-XXXXXX", NULL);
    g_autofree char *bios = make_bios(dir);
    g_autofree char *socket = g_build_filename(dir, "socket", NULL);
    g_autofree char *uri = g_strdup_printf("unix:%s", socket);
    g_autofree char *args = g_strdup_printf(
        "-accel tcg -machine pc -m 32 -nodefaults -bios %s %s", bios, b->args);
    g_autofree char *status = NULL;
    QTestState *from, *to;
    uint64_t addr;

    from = qtest_init(args);
    /* It does not run: its memory stays as it was sent */
    to = qtest_initf("%s -S -incoming %s", args, uri);
    while (!qtest_readl(from, HOT_END - PAGE)) {
        g_usleep(1000);
    }

    migrate_set_parameter_int(from, "max-bandwidth", BANDWIDTH);
    migrate_set_parameter_int(from, "avail-switchover-bandwidth", SWITCHOVER);
    migrate_set_parameter_int(from, "downtime-limit", DOWNTIME_MS);
    migrate_qmp(from, to, uri, NULL, "{}");
    /* It ends sooner if QEMU does not know of the writes */
    do {
        g_usleep(1000);
        g_free(status);
        status = migrate_query_status(from);
    } while (!g_str_equal(status, "completed") &&
             get_migration_pass(from) < PASSES);
    migrate_ensure_converge(from);
    wait_for_migration_complete(from);
    wait_for_migration_complete(to);

    g_assert_cmphex(qtest_readl(to, LONE), ==, qtest_readl(from, LONE));
    for (addr = HOT; addr < HOT_END; addr += PAGE) {
        g_assert_cmphex(qtest_readl(to, addr), ==, qtest_readl(from, addr));
    }

    qtest_quit(to);
    qtest_quit(from);
    unlink(socket);
    unlink(bios);
    rmdir(dir);
}

static void test_writes(const void *opaque)
{
    if (!qtest_has_accel("tcg")) {
        g_test_skip("there is no TCG");
        return;
    }
    migrate(opaque);
}

int main(int argc, char **argv)
{
    int i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(blocks); i++) {
        g_autofree char *path = g_strdup_printf("migration/dirty/%s",
                                                blocks[i].name);

        qtest_add_data_func(path, &blocks[i], test_writes);
    }
    return g_test_run();
}
