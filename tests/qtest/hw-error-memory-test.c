/*
 * Test of hardware errors: memory that cannot be read
 *
 * The file behind the guest's RAM is truncated behind QEMU's back: what is
 * beyond its end gives a real SIGBUS.  Bad memory that KVM finds is tested
 * elsewhere: it takes a guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "elf.h"
#include "hw-error-util.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qobject/qjson.h"
#include "vm-quiesce-util.h"

#define RAM_SIZE 0x1000000
/* What can be read up to here, after cut() */
#define GOOD_SIZE 0x401000
#define PAGE 0x1000
#define MARK "written by the test"
#define MARK_ADDR 0x400100

#define NOTE_NAME "QEMU-BADMEM"

typedef struct Bad {
    QTestState *qts;
    char *ram;
    char *out;
} Bad;

static void make_ram(const char *path, off_t size)
{
    int fd = open(path, O_CREAT | O_RDWR, 0600);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, size), ==, 0);
    g_assert_cmpint(pwrite(fd, MARK, sizeof(MARK), MARK_ADDR), ==,
                    sizeof(MARK));
    close(fd);
}

static void start(Bad *b, const char *args)
{
    b->ram = vmq_tmpfile("ram");
    b->out = vmq_tmpfile("out");
    make_ram(b->ram, RAM_SIZE);
    b->qts = hwe_start("-machine pc,memory-backend=ram -m 16 -nodefaults"
                       " -object memory-backend-file,id=ram,size=16M,"
                       "share=on,mem-path=%s %s", b->ram, args);
}

static void cut(Bad *b)
{
    g_assert_cmpint(truncate(b->ram, GOOD_SIZE), ==, 0);
}

static void stop(Bad *b)
{
    /* QEMU must not meet it when it ends */
    g_assert_cmpint(truncate(b->ram, RAM_SIZE), ==, 0);
    qtest_quit(b->qts);
    unlink(b->out);
    unlink(b->ram);
    g_free(b->out);
    g_free(b->ram);
}

/* Check that HARDWARE_ERROR says what cut() has done, and nothing else */
static void check_error(Bad *b, const char *action)
{
    QDict *data = hwe_event(b->qts, "HARDWARE_ERROR");
    QDict *info = qdict_get_qdict(data, "info");

    g_assert_cmpstr(qdict_get_str(data, "action"), ==, action);
    g_assert_cmpstr(qdict_get_str(info, "source"), ==, "guest-memory");
    g_assert_cmpstr(qdict_get_str(info, "severity"), ==, "recoverable");
    g_assert_cmpstr(qdict_get_str(info, "ram-block"), ==, "ram");
    g_assert_cmpint(qdict_get_int(info, "ram-offset"), ==, GOOD_SIZE);
    g_assert_cmpint(qdict_get_int(info, "guest-address"), ==, GOOD_SIZE);
    g_assert_cmpint(qdict_get_int(info, "page-size"), ==, PAGE);
    g_assert_cmpint(qdict_get_int(info, "count"), ==,
                    (RAM_SIZE - GOOD_SIZE) / PAGE);
    g_assert_true(qdict_haskey(info, "host-address"));
    g_assert_false(qdict_haskey(info, "vcpu"));
    g_assert_false(qdict_haskey(info, "numa-node"));
    g_assert_false(qdict_get_bool(info, "action-required"));
    qobject_unref(data);
}

static void dump(Bad *b, const char *args)
{
    g_autofree char *command = g_strdup_printf(
        "{ 'execute': 'dump-guest-memory', 'arguments': {"
        "  'paging': false, 'protocol': 'file:%s' %s } }", b->out, args);
    bool done;

    qtest_qmp_assert_success(b->qts, "%p",
                             qobject_from_json(command, &error_abort));
    do {
        QDict *state = qtest_qmp_assert_success_ref(
            b->qts, "{ 'execute': 'query-dump' }");

        done = g_str_equal(qdict_get_str(state, "status"), "completed");
        g_assert_cmpstr(qdict_get_str(state, "status"), !=, "failed");
        qobject_unref(state);
    } while (!done);
}

static char *load(Bad *b, size_t *size)
{
    char *data;

    g_assert_true(g_file_get_contents(b->out, &data, size, NULL));
    return data;
}

/* The content of the note among @notes, or NULL */
static const char *find_note(const char *notes, size_t size, size_t *note_size)
{
    const char *end = notes + size;

    while (notes < end) {
        size_t name_size = ldl_le_p(notes), desc_size = ldl_le_p(notes + 4);
        const char *name = notes + sizeof(Elf64_Nhdr);
        const char *desc = name + ROUND_UP(name_size, 4);

        if (name_size == sizeof(NOTE_NAME) &&
            !memcmp(name, NOTE_NAME, sizeof(NOTE_NAME))) {
            g_assert_cmpint(ldl_le_p(notes + 8), ==, 1);
            *note_size = desc_size;
            return desc;
        }
        notes = desc + ROUND_UP(desc_size, 4);
    }
    g_assert_true(notes == end);
    return NULL;
}

/* Check that the one among @notes lists one range */
static void check_note(const char *notes, size_t size, uint64_t addr,
                       uint64_t length)
{
    size_t note_size;
    const char *note = find_note(notes, size, &note_size);

    g_assert_nonnull(note);
    g_assert_cmpint(note_size, ==, 32);
    g_assert_cmpint(ldl_le_p(note), ==, 1);
    g_assert_cmpint(ldl_le_p(note + 4), ==, 0);
    g_assert_cmpint(ldq_le_p(note + 8), ==, 1);
    g_assert_cmphex(ldq_le_p(note + 16), ==, addr);
    g_assert_cmphex(ldq_le_p(note + 24), ==, length);
}

/* The program header for the memory at @addr, or for the notes if @type is */
static const Elf64_Phdr *find_phdr(const char *elf, size_t size, int type,
                                   uint64_t addr)
{
    const Elf64_Ehdr *ehdr = (const Elf64_Ehdr *)elf;
    const Elf64_Phdr *phdr = (const Elf64_Phdr *)(elf + ehdr->e_phoff);
    int i;

    for (i = 0; i < ehdr->e_phnum; i++) {
        if (phdr[i].p_type == type &&
            (type == PT_NOTE || (phdr[i].p_paddr <= addr &&
                                 addr < phdr[i].p_paddr + phdr[i].p_memsz))) {
            g_assert_cmpint(phdr[i].p_offset + phdr[i].p_filesz, <=, size);
            return &phdr[i];
        }
    }
    g_assert_not_reached();
}

static void check_elf_note(const char *elf, size_t size, uint64_t addr,
                           uint64_t length)
{
    const Elf64_Phdr *notes = find_phdr(elf, size, PT_NOTE, 0);

    check_note(elf + notes->p_offset, notes->p_filesz, addr, length);
}

static void check_elf_no_note(const char *elf, size_t size)
{
    const Elf64_Phdr *notes = find_phdr(elf, size, PT_NOTE, 0);
    size_t note_size;

    g_assert_null(find_note(elf + notes->p_offset, notes->p_filesz,
                            &note_size));
}

static const char *dumped(const char *elf, size_t size, uint64_t addr)
{
    const Elf64_Phdr *phdr = find_phdr(elf, size, PT_LOAD, addr);

    return elf + phdr->p_offset + (addr - phdr->p_paddr);
}

/* Has it all that can be read, and nothing in place of the rest? */
static void check_elf_memory(const char *elf, size_t size)
{
    size_t i;

    g_assert_cmpstr(dumped(elf, size, MARK_ADDR), ==, MARK);
    for (i = GOOD_SIZE; i < RAM_SIZE; i += PAGE) {
        g_assert_cmpint(*dumped(elf, size, i), ==, 0);
    }
}

static void check_elf(Bad *b)
{
    size_t size;
    g_autofree char *elf = load(b, &size);

    check_elf_note(elf, size, GOOD_SIZE, RAM_SIZE - GOOD_SIZE);
    check_elf_memory(elf, size);
}

/* A dump lists what nobody knew of, and is complete but for that */
static void test_dump_elf(void)
{
    Bad b;

    start(&b, "");
    cut(&b);
    dump(&b, "");
    check_elf(&b);
    check_error(&b, "report");

    /* The next one as well; but that is no news */
    dump(&b, "");
    check_elf(&b);
    hwe_assert_records(b.qts, 1);
    stop(&b);
}

static void test_dump_detached(void)
{
    Bad b;

    start(&b, "");
    cut(&b);
    dump(&b, ", 'detach': true");
    check_elf(&b);
    check_error(&b, "report");
    stop(&b);
}

/* What goes bad while the dump is being written cannot be listed */
static void test_dump_late(void)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autofree char *protocol = NULL;
    const char *elf;
    uint8_t buf[4096];
    ssize_t len;
    int fd;
    Bad b;

    start(&b, "");
    g_assert_cmpint(mkfifo(b.out, 0600), ==, 0);
    fd = open(b.out, O_RDONLY | O_NONBLOCK);
    g_assert_cmpint(fd, >=, 0);
    protocol = g_strdup_printf("file:%s", b.out);
    qtest_qmp_assert_success(
        b.qts, "{ 'execute': 'dump-guest-memory', 'arguments': {"
        "  'paging': false, 'protocol': %s, 'detach': true } }", protocol);
    g_assert_cmpint(fcntl(fd, F_SETFL, 0), ==, 0);

    /* Once it is written, all memory has been looked at */
    while ((len = read(fd, buf, sizeof(buf))) > 0) {
        if (!bytes->len) {
            cut(&b);
        }
        g_byte_array_append(bytes, buf, len);
    }
    g_assert_cmpint(len, ==, 0);
    close(fd);

    elf = (const char *)bytes->data;
    check_elf_no_note(elf, bytes->len);
    check_elf_memory(elf, bytes->len);
    check_error(&b, "report");
    stop(&b);
}

/* What is not dumped is not looked at */
static void test_dump_filter(void)
{
    size_t size;
    g_autofree char *elf = NULL;
    Bad b;

    start(&b, "");
    cut(&b);
    dump(&b, ", 'begin': 3145728, 'length': 1048576");
    elf = load(&b, &size);
    check_elf_no_note(elf, size);
    hwe_assert_records(b.qts, 0);
    g_free(g_steal_pointer(&elf));

    dump(&b, ", 'begin': 4194304, 'length': 8192");
    elf = load(&b, &size);
    check_elf_note(elf, size, GOOD_SIZE, PAGE);
    g_assert_cmpstr(dumped(elf, size, MARK_ADDR), ==, MARK);
    stop(&b);
}

/* Without bad memory there is no note */
static void test_dump_clean(void)
{
    size_t size;
    g_autofree char *elf = NULL;
    Bad b;

    start(&b, "");
    dump(&b, "");
    elf = load(&b, &size);
    check_elf_no_note(elf, size);
    g_assert_cmpstr(dumped(elf, size, MARK_ADDR), ==, MARK);
    hwe_assert_records(b.qts, 0);
    stop(&b);
}

/* In kdump's format the notes are those of an ELF file */
static void test_dump_kdump(void)
{
    g_autofree char *data = NULL;
    const char *sub_header;
    size_t size;
    Bad b;

    start(&b, "");
    cut(&b);
    dump(&b, ", 'format': 'kdump-raw-zlib'");
    data = load(&b, &size);
    g_assert_cmpint(size, >, 2 * PAGE);
    g_assert_true(!memcmp(data, "KDUMP   ", 8));
    /* struct KdumpSubHeader64: offset_note, note_size */
    sub_header = data + PAGE;
    check_note(data + ldq_le_p(sub_header + 48), ldq_le_p(sub_header + 56),
               GOOD_SIZE, RAM_SIZE - GOOD_SIZE);
    check_error(&b, "report");
    stop(&b);
}

static void check_saved(Bad *b, uint64_t addr, size_t expected)
{
    size_t size, i;
    g_autofree char *data = load(b, &size);

    g_assert_cmpint(size, ==, expected);
    if (addr <= MARK_ADDR) {
        g_assert_cmpstr(data + MARK_ADDR - addr, ==, MARK);
    }
    for (i = GOOD_SIZE > addr ? GOOD_SIZE - addr : 0; i < size; i++) {
        g_assert_cmpint(data[i], ==, 0);
    }
}

static void test_pmemsave(void)
{
    Bad b;

    start(&b, "");
    cut(&b);
    qtest_qmp_assert_success(b.qts, "{ 'execute': 'pmemsave', 'arguments': {"
                             "  'val': 0, 'size': 16777216, 'filename': %s } }",
                             b.out);
    check_saved(&b, 0, RAM_SIZE);
    check_error(&b, "report");
    stop(&b);
}

/* Virtual addresses are physical ones here; sizes are not those of pages */
static void test_memsave(void)
{
    QDict *data, *info;
    Bad b;

    start(&b, "");
    cut(&b);
    qtest_qmp_assert_success(b.qts, "{ 'execute': 'memsave', 'arguments': {"
                             "  'val': 4194309, 'size': 9999,"
                             "  'filename': %s } }", b.out);
    check_saved(&b, 4194309, 9999);
    data = hwe_event(b.qts, "HARDWARE_ERROR");
    info = qdict_get_qdict(data, "info");
    g_assert_cmpint(qdict_get_int(info, "guest-address"), ==, GOOD_SIZE);
    g_assert_cmpint(qdict_get_int(info, "count"), ==, 2);
    qobject_unref(data);
    stop(&b);
}

/* A rule is for what a dump finds, too; the dump is complete all the same */
static void test_rule(void)
{
    Bad b;

    start(&b, "-object hw-error-rule,id=r,source=guest-memory,action=quiesce");
    cut(&b);
    dump(&b, "");
    check_elf(&b);
    check_error(&b, "quiesce");
    vmq_assert_status(b.qts, "quiesced");
    dump(&b, "");
    check_elf(&b);
    stop(&b);
}

static void test_numa(void)
{
    QDict *data, *info;
    Bad b = { .ram = vmq_tmpfile("ram"), .out = vmq_tmpfile("out") };

    make_ram(b.ram, RAM_SIZE);
    b.qts = hwe_start("-machine pc -m 32 -nodefaults"
                      " -object memory-backend-ram,id=m0,size=16M"
                      " -object memory-backend-file,id=m1,size=16M,"
                      "share=on,mem-path=%s"
                      " -numa node,memdev=m0 -numa node,memdev=m1", b.ram);
    cut(&b);
    dump(&b, "");
    data = hwe_event(b.qts, "HARDWARE_ERROR");
    info = qdict_get_qdict(data, "info");
    g_assert_cmpstr(qdict_get_str(info, "ram-block"), ==, "m1");
    g_assert_cmpint(qdict_get_int(info, "numa-node"), ==, 1);
    g_assert_cmpint(qdict_get_int(info, "guest-address"), ==,
                    RAM_SIZE + GOOD_SIZE);
    g_assert_cmpint(qdict_get_int(info, "ram-offset"), ==, GOOD_SIZE);
    qobject_unref(data);
    stop(&b);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    vmq_tmpdir_make();
    qtest_add_func("/hw-error/memory/dump/elf", test_dump_elf);
    qtest_add_func("/hw-error/memory/dump/detached", test_dump_detached);
    qtest_add_func("/hw-error/memory/dump/late", test_dump_late);
    qtest_add_func("/hw-error/memory/dump/filter", test_dump_filter);
    qtest_add_func("/hw-error/memory/dump/clean", test_dump_clean);
    qtest_add_func("/hw-error/memory/dump/kdump", test_dump_kdump);
    qtest_add_func("/hw-error/memory/pmemsave", test_pmemsave);
    qtest_add_func("/hw-error/memory/memsave", test_memsave);
    qtest_add_func("/hw-error/memory/rule", test_rule);
    qtest_add_func("/hw-error/memory/numa", test_numa);
    ret = g_test_run();
    vmq_tmpdir_remove();
    return ret;
}
