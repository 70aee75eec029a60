/*
 * Test of the quiesced run state: commands, states, and what is refused
 *
 * The test acts as the guest: I/O through qtest is what a vCPU could have
 * done in the instant before it was stopped.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/socket.h>
#include <sys/un.h>
#include "qemu/bswap.h"
#include "qemu/timer.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "vm-quiesce-util.h"

#define REFUSED_QMP "is not permitted until 'vm-unquiesce'"
#define REFUSED_HMP "not permitted until 'unquiesce'"

/* PIIX4 power management, at the address that firmware would choose */
#define PM_BASE 0x600
#define PM1_CNT (PM_BASE + 4)
#define SUS_TYP_SOFT_OFF (0 << 10)
#define SUS_TYP_SUSPEND (1 << 10)
#define SUS_EN (1 << 13)

static void pm1_control(QTestState *qts, uint16_t value)
{
    const uint32_t pm_device = 0x80000000 | 1 << 11 | 3 << 8;

    qtest_outl(qts, 0xcf8, pm_device | 0x40);
    qtest_outl(qts, 0xcfc, PM_BASE | 1);
    qtest_outl(qts, 0xcf8, pm_device | 0x80);
    qtest_outb(qts, 0xcfc, 1);
    qtest_outw(qts, PM1_CNT, value);
}

/* Run states */

static void enter_running(QTestState *qts)
{
}

static void enter_paused(QTestState *qts)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'stop' }");
    qtest_qmp_eventwait(qts, "STOP");
}

static void enter_guest_panicked(QTestState *qts)
{
    qtest_outb(qts, 0x505, 1);
    qtest_qmp_eventwait(qts, "STOP");
}

static void enter_watchdog(QTestState *qts)
{
    qtest_outb(qts, 0x443, 0);
    qtest_clock_step(qts, 60 * NANOSECONDS_PER_SECOND);
    qtest_qmp_eventwait(qts, "STOP");
}

static void enter_suspended(QTestState *qts)
{
    pm1_control(qts, SUS_EN | SUS_TYP_SUSPEND);
    qtest_qmp_eventwait(qts, "SUSPEND");
}

static void enter_shutdown(QTestState *qts)
{
    pm1_control(qts, SUS_EN | SUS_TYP_SOFT_OFF);
    qtest_qmp_eventwait(qts, "STOP");
}

static void enter_io_error(QTestState *qts)
{
    vmq_ide_write(qts, 0);
    qtest_qmp_eventwait(qts, "STOP");
}

static void enter_postmigrate(QTestState *qts)
{
    vmq_migrate(qts, "exec:cat > /dev/null");
}

typedef struct StateCase {
    const char *state;
    const char *args;
    void (*enter)(QTestState *qts);
} StateCase;

static const StateCase state_cases[] = {
    { "running", "", enter_running },
    { "paused", "", enter_paused },
    { "prelaunch", "-S", enter_running },
    { "io-error",
      "-drive if=none,id=d,file.driver=blkdebug,file.image.driver=null-co,"
      "file.image.read-zeroes=on,file.inject-error.0.event=pwritev,"
      "file.inject-error.0.once=on,format=raw,werror=stop,rerror=stop "
      "-device ide-hd,drive=d,bus=ide.0", enter_io_error },
    { "watchdog", "-device ib700 -action watchdog=pause", enter_watchdog },
    { "guest-panicked", "-device pvpanic -action panic=pause",
      enter_guest_panicked },
    { "suspended", "", enter_suspended },
    { "shutdown", "-no-shutdown", enter_shutdown },
    { "postmigrate", "", enter_postmigrate },
};

static void test_state(const void *opaque)
{
    const StateCase *c = opaque;
    QTestState *qts = qtest_initf("-machine pc %s", c->args);
    bool needs_reset = g_str_equal(c->state, "shutdown");
    g_autofree char *token = NULL;
    QDict *data;

    c->enter(qts);
    vmq_assert_status(qts, c->state);

    token = vmq_start(qts, 60000);
    data = vmq_wait(qts, "VM_QUIESCED", token);
    g_assert_cmpstr(qdict_get_str(data, "previous-status"), ==, c->state);
    qobject_unref(data);
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'cont' }"), REFUSED_QMP);
    vmq_assert_status(qts, "quiesced");
    vmq_unquiesce(qts, token);
    vmq_assert_status(qts, "paused");

    if (needs_reset) {
        vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'cont' }"),
                         "Resetting the Virtual Machine is required");
        qtest_qmp_assert_success(qts, "{ 'execute': 'system_reset' }");
        qtest_qmp_eventwait(qts, "RESET");
    }
    qtest_qmp_assert_success(qts, "{ 'execute': 'cont' }");
    vmq_assert_status(qts, g_str_equal(c->state, "suspended") ? "suspended"
                                                              : "running");

    /* It leads there again */
    g_free(token);
    token = vmq_quiesce(qts);
    vmq_unquiesce(qts, token);
    qtest_quit(qts);
}

/*
 * Only hardware virtualization gets into some states by itself: make others
 * by loading a VM's state in which the run state's name was exchanged.
 */
static char *make_stream(const char *state)
{
    char *path = vmq_tmpfile("stream");
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    const char pattern[] = "\0\0\0\7paused";
    QTestState *qts = qtest_init("-machine pc -S");
    g_autofree char *data = NULL;
    char *p;
    gsize len;

    vmq_cont(qts);
    enter_paused(qts);
    vmq_migrate(qts, uri);
    qtest_quit(qts);

    g_assert_true(g_file_get_contents(path, &data, &len, NULL));
    p = memmem(data, len, pattern, sizeof(pattern));
    g_assert_nonnull(p);
    stl_be_p(p, strlen(state) + 1);
    strcpy(p + 4, state);
    g_assert_true(g_file_set_contents(path, data, len, NULL));
    return path;
}

static void test_internal_error(void)
{
    g_autofree char *stream = make_stream("internal-error");
    QTestState *qts = qtest_initf("-machine pc -incoming file:%s", stream);
    g_autofree char *token = NULL;

    vmq_wait_status(qts, "internal-error");
    token = vmq_quiesce(qts);
    vmq_unquiesce(qts, token);
    vmq_assert_status(qts, "paused");
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'cont' }"),
                     "Resetting the Virtual Machine is required");
    qtest_quit(qts);
    unlink(stream);
}

/* A stream that claims to be quiesced is refused, and does not abort QEMU */
static void test_load_quiesced(void)
{
    g_autofree char *stream = make_stream("quiesced");
    g_autofree char *uri = g_strdup_printf("file:%s", stream);
    QTestState *qts = qtest_init("-machine pc -incoming defer");

    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate-incoming',"
                             "  'arguments': { 'uri': %s,"
                             "    'exit-on-error': false } }", uri);
    vmq_wait_migration(qts, "failed");
    vmq_assert_status(qts, "inmigrate");
    qtest_quit(qts);
    unlink(stream);
}

static void test_inmigrate(void)
{
    QTestState *qts = qtest_init("-incoming defer");

    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'vm-quiesce',"
                               "  'arguments': { 'reason': 'test' } }"),
                     "it waits for an incoming migration");
    vmq_assert_status(qts, "inmigrate");
    qtest_quit(qts);
}

/* An outgoing migration that cannot end is cancelled */
static void test_precopy(void)
{
    QTestState *qts = qtest_init("-m 256");
    g_autofree char *token = NULL;
    QDict *ret;

    qtest_memset(qts, 0x100000, 0x5a, 200 * 1024 * 1024);
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate-set-parameters',"
                             "  'arguments': { 'max-bandwidth': 4096 } }");
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate',"
                             "  'arguments': {"
                             "    'uri': 'exec:cat > /dev/null' } }");
    vmq_wait_migration(qts, "active");
    vmq_assert_unquiesce_fails(qts, "none", "The VM is not quiesced");

    token = vmq_quiesce(qts);
    ret = qtest_qmp_assert_success_ref(qts, "{ 'execute': 'query-migrate' }");
    g_assert_cmpstr(qdict_get_str(ret, "status"), ==, "cancelled");
    qobject_unref(ret);

    vmq_unquiesce(qts, token);
    vmq_cont(qts);
    qtest_quit(qts);
}

/* Events */

/* Check that QMP sends @expected next: the name of an event, or 'return' */
static void assert_next(QTestState *qts, const char *expected)
{
    QDict *rsp = qtest_qmp_receive_dict(qts);
    const char *event = qdict_get_try_str(rsp, "event");

    g_assert_cmpstr(event ?: qdict_first(rsp)->key, ==, expected);
    qobject_unref(rsp);
}

static void send_quiesce(QTestState *qts)
{
    qtest_qmp_send(qts, "{ 'execute': 'vm-quiesce',"
                   "  'arguments': { 'reason': 'test' } }");
}

static void send_unquiesce(QTestState *qts)
{
    QDict *ret = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'query-vm-quiesce' }");

    qtest_qmp_send(qts, "{ 'execute': 'vm-unquiesce',"
                   "  'arguments': { 'token': %s } }",
                   qdict_get_str(ret, "token"));
    qobject_unref(ret);
}

static void test_events(void)
{
    QTestState *qts = qtest_init("");
    g_autofree char *token = NULL;
    QDict *data;

    send_quiesce(qts);
    assert_next(qts, "return");
    assert_next(qts, "STOP");
    assert_next(qts, "VM_QUIESCED");

    send_unquiesce(qts);
    assert_next(qts, "VM_UNQUIESCED");
    assert_next(qts, "return");

    /* STOP was sent already */
    send_quiesce(qts);
    assert_next(qts, "return");
    assert_next(qts, "VM_QUIESCED");

    send_unquiesce(qts);
    assert_next(qts, "VM_UNQUIESCED");
    assert_next(qts, "return");

    qtest_qmp_send(qts, "{ 'execute': 'cont' }");
    assert_next(qts, "RESUME");
    assert_next(qts, "return");

    token = vmq_start(qts, 60000);
    data = vmq_wait(qts, "VM_QUIESCED", token);
    g_assert_cmpstr(qdict_get_str(data, "reason"), ==, "test");
    g_assert_cmpint(qdict_get_int(data, "held-requests"), ==, 0);
    g_assert_true(qdict_haskey(data, "duration-ms"));
    qobject_unref(data);
    qtest_quit(qts);
}

/* Arguments and tokens */

static void assert_phase(QTestState *qts, const char *phase, const char *token)
{
    QDict *ret = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'query-vm-quiesce' }");

    g_assert_cmpstr(qdict_get_str(ret, "phase"), ==, phase);
    g_assert_cmpstr(qdict_get_try_str(ret, "token"), ==, token);
    g_assert_false(qlist_empty(qdict_get_qlist(ret, "participants")));
    qobject_unref(ret);
}

static void test_arguments(void)
{
    QTestState *qts = qtest_init("");
    g_autofree char *long_reason = g_strnfill(1025, 'x');
    g_autofree char *token = NULL, *second = NULL;

    assert_phase(qts, "none", NULL);
    vmq_assert_unquiesce_fails(qts, "x", "The VM is not quiesced");
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'vm-quiesce' }"),
                     "'reason' is missing");
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'vm-quiesce',"
                               "  'arguments': { 'reason': '' } }"),
                     "Parameter 'reason' must have 1 to 1024 bytes");
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'vm-quiesce',"
                               "  'arguments': { 'reason': %s } }",
                               long_reason),
                     "Parameter 'reason' must have 1 to 1024 bytes");
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'vm-quiesce',"
                               "  'arguments': { 'reason': 'x',"
                               "    'deadline-ms': 0 } }"),
                     "Parameter 'deadline-ms' must be positive");
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'vm-quiesce',"
                               "  'arguments': { 'reason': 'x',"
                               "    'deadline-ms': -1 } }"),
                     "deadline-ms");
    vmq_assert_status(qts, "running");
    assert_phase(qts, "none", NULL);

    token = vmq_quiesce(qts);
    assert_phase(qts, "quiesced", token);
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'vm-quiesce',"
                               "  'arguments': { 'reason': 'again' } }"),
                     "The VM is quiesced already");
    vmq_assert_unquiesce_fails(qts, "", "does not match");
    vmq_assert_unquiesce_fails(qts, "x", "does not match");
    assert_phase(qts, "quiesced", token);
    vmq_assert_status(qts, "quiesced");

    vmq_unquiesce(qts, token);
    assert_phase(qts, "none", NULL);
    vmq_assert_unquiesce_fails(qts, token, "The VM is not quiesced");

    /* A token is good for once */
    second = vmq_quiesce(qts);
    g_assert_cmpstr(second, !=, token);
    vmq_assert_unquiesce_fails(qts, token, "does not match");
    vmq_unquiesce(qts, second);
    qtest_quit(qts);
}

/* What is refused */

static const char *const allowed_qmp[] = {
    "vm-quiesce", "vm-unquiesce", "hw-error-report", "hw-error-clear", "quit",
    "yank", "qmp_capabilities", "human-monitor-command", "add_client",
    "getfd", "closefd", "add-fd", "remove-fd", "dump-guest-memory",
    "dump-skeys", "memsave", "pmemsave", "screendump", "ringbuf-read",
    "trace-event-get-state",
    "trace-event-set-state", "device-list-properties", "qom-get", "qom-list",
    "qom-list-get", "qom-list-properties", "qom-list-types", "qom-set",
    "migrate", "migrate_cancel", "migrate-set-capabilities", "job-dismiss",
    NULL
};

static const char *const allowed_hmp[] = {
    "quiesce", "unquiesce", "quit", "help", "info", "cpu", "closefd",
    "dump-guest-memory", "dump-skeys", "gdbserver", "getfd", "gpa2hpa",
    "gpa2hva", "gva2gpa", "log", "logfile", "memsave", "pmemsave", "print",
    "qom-get", "qom-list", "ringbuf_read", "screendump", "sum", "trace-event",
    "x", "xp", NULL
};

/* Every command of the schema but those listed: also those to come */
static void test_refused_qmp(void)
{
    QTestState *qts = qtest_init("");
    g_autofree char *token = vmq_quiesce(qts);
    QDict *rsp = qtest_qmp(qts, "{ 'execute': 'query-commands' }");
    const QListEntry *e;
    int n = 0;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), e) {
        const char *name = qdict_get_str(qobject_to(QDict, qlist_entry_obj(e)),
                                         "name");

        if (g_str_has_prefix(name, "query-") ||
            g_str_has_prefix(name, "x-query-") ||
            g_strv_contains(allowed_qmp, name)) {
            continue;
        }
        vmq_assert_error(qtest_qmp(qts, "{ 'execute': %s }", name),
                         REFUSED_QMP);
        n++;
    }
    g_test_message("%d QMP commands refused", n);
    g_assert_cmpint(n, >, 100);
    qobject_unref(rsp);
    vmq_assert_status(qts, "quiesced");
    vmq_unquiesce(qts, token);
    qtest_quit(qts);
}

static void test_refused_hmp(void)
{
    QTestState *qts = qtest_init("");
    g_autofree char *help = qtest_hmp(qts, "help");
    g_auto(GStrv) lines = g_strsplit(help, "\r\n", 0);
    g_autofree char *token = vmq_quiesce(qts);
    int i, n = 0;

    for (i = 0; lines[i]; i++) {
        char *name = lines[i];
        g_autofree char *answer = NULL;
        size_t len;

        /* Help on one command may take several lines */
        len = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-");
        if (!strchr(" |", name[len])) {
            continue;
        }
        name[len] = '\0';
        if (!len || g_strv_contains(allowed_hmp, name)) {
            continue;
        }
        answer = qtest_hmp(qts, "%s", name);
        if (!strstr(answer, REFUSED_HMP)) {
            g_error("'%s' is answered by '%s'", name, answer);
        }
        n++;
    }
    g_test_message("%d HMP commands refused", n);
    g_assert_cmpint(n, >, 50);
    vmq_assert_status(qts, "quiesced");
    vmq_unquiesce(qts, token);
    qtest_quit(qts);
}

static void test_refused_qom_set(void)
{
    QTestState *qts = qtest_init("-device virtio-balloon-pci,id=b");
    g_autofree char *token = vmq_quiesce(qts);

    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'qom-set', 'arguments': {"
                               "  'path': '/machine', 'property': 'usb',"
                               "  'value': true } }"),
                     "Property 'usb' cannot be set until 'vm-unquiesce'");
    qtest_qmp_assert_success(qts, "{ 'execute': 'qom-set', 'arguments': {"
                             "  'path': 'b', 'property':"
                             "    'guest-stats-polling-interval',"
                             "  'value': 2 } }");
    vmq_unquiesce(qts, token);
    qtest_quit(qts);
}

/* Events that say that something was done, not only asked for */
static bool assert_harmless(QTestState *qts, const char *name, QDict *event,
                            void *opaque)
{
    static const char *const harmful[] = {
        "RESET", "SHUTDOWN", "SUSPEND", "RESUME", "STOP", "POWERDOWN", NULL
    };

    g_assert_false(g_strv_contains(harmful, name));
    return false;
}

/*
 * What the guest asked for in the instant before it was stopped waits until
 * the VM leaves the state, and then happens.
 */
static void test_pending_guest_requests(void)
{
    QTestState *qts = qtest_init("-machine pc -device pvpanic "
                                 "-action panic=pause -no-shutdown "
                                 "-device ib700 -action watchdog=reset");
    g_autofree char *token = vmq_quiesce(qts);
    int i;

    qtest_qmp_set_event_callback(qts, assert_harmless, NULL);

    /* panic, suspend, power off, reset, watchdog */
    qtest_outb(qts, 0x505, 1);
    pm1_control(qts, SUS_EN | SUS_TYP_SUSPEND);
    pm1_control(qts, SUS_EN | SUS_TYP_SOFT_OFF);
    qtest_outb(qts, 0x92, 1);
    qtest_outb(qts, 0x443, 0);
    qtest_clock_step(qts, 60 * NANOSECONDS_PER_SECOND);
    for (i = 0; i < 10; i++) {
        vmq_assert_status(qts, "quiesced");
    }
    qtest_qmp_set_event_callback(qts, NULL, NULL);

    vmq_unquiesce(qts, token);
    qtest_qmp_eventwait(qts, "RESET");
    qtest_quit(qts);
}

/* gdb */

static int unix_connect(const char *path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    g_assert_cmpint(fd, >=, 0);
    g_strlcpy(addr.sun_path, path, sizeof(addr.sun_path));
    g_assert_cmpint(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), ==, 0);
    return fd;
}

/* Sends @packet, returns the reply without framing */
static char *gdb_command(int fd, const char *packet)
{
    g_autoptr(GString) reply = g_string_new(NULL);
    g_autofree char *frame = NULL;
    uint8_t sum = 0;
    const char *c;
    char byte;

    for (c = packet; *c; c++) {
        sum += *c;
    }
    frame = g_strdup_printf("$%s#%02x", packet, sum);
    g_assert_cmpint(write(fd, frame, strlen(frame)), ==, strlen(frame));

    do {
        g_assert_cmpint(read(fd, &byte, 1), ==, 1);
    } while (byte != '$');
    while (read(fd, &byte, 1) == 1 && byte != '#') {
        g_string_append_c(reply, byte);
    }
    g_assert_cmpint(read(fd, &byte, 1), ==, 1);
    g_assert_cmpint(read(fd, &byte, 1), ==, 1);
    g_assert_cmpint(write(fd, "+", 1), ==, 1);
    return g_strdup(reply->str);
}

/* The guest believes to be off: it must not go on behind that */
static void test_pending_power_off(void)
{
    QTestState *qts = qtest_init("-machine pc -no-shutdown");
    g_autofree char *token = vmq_quiesce(qts);

    pm1_control(qts, SUS_EN | SUS_TYP_SOFT_OFF);
    vmq_assert_status(qts, "quiesced");
    vmq_unquiesce(qts, token);
    qtest_qmp_eventwait(qts, "SHUTDOWN");
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'cont' }"),
                     "Resetting the Virtual Machine is required");
    qtest_qmp_assert_success(qts, "{ 'execute': 'system_reset' }");
    qtest_qmp_eventwait(qts, "RESET");
    vmq_cont(qts);
    qtest_quit(qts);
}

static void test_gdb(void)
{
    static const char *const refused[] = {
        "c", "C05", "s", "S05", "vCont;c", "vCont;s:1", "M100,1:00", "P0=00",
        "G00", "Z0,1000,1", "bc",
    };
    static const char *const permitted[] = { "g", "m100,4", "?", "vCont?" };
    g_autofree char *path = vmq_tmpfile("gdb");
    QTestState *qts = qtest_initf("-accel tcg -chardev socket,id=g,path=%s,"
                                  "server=on,wait=off -gdb chardev:g", path);
    g_autofree char *token = vmq_quiesce(qts);
    int i, fd = unix_connect(path);

    for (i = 0; i < ARRAY_SIZE(refused); i++) {
        g_autofree char *reply = gdb_command(fd, refused[i]);

        g_assert_cmpstr(reply, ==, "E01");
        vmq_assert_status(qts, "quiesced");
    }
    for (i = 0; i < ARRAY_SIZE(permitted); i++) {
        g_autofree char *reply = gdb_command(fd, permitted[i]);

        g_assert_cmpstr(reply, !=, "");
        g_assert_cmpint(reply[0], !=, 'E');
    }

    /* Detaching continues a VM, usually */
    g_free(gdb_command(fd, "D"));
    vmq_assert_status(qts, "quiesced");
    close(fd);
    vmq_assert_status(qts, "quiesced");

    vmq_unquiesce(qts, token);
    vmq_assert_status(qts, "paused");
    qtest_quit(qts);
}

/* What stays */

static void test_post_mortem(void)
{
    QTestState *qts = qtest_init("-machine pc -vga std");
    g_autofree char *file = vmq_tmpfile("mem");
    g_autofree char *uri = g_strdup_printf("file:%s", file);
    g_autofree char *data = NULL, *token = NULL, *regs = NULL;
    gsize len;

    qtest_memwrite(qts, 0x200000, "last words", 10);
    token = vmq_quiesce(qts);

    qtest_qmp_assert_success(qts, "{ 'execute': 'pmemsave', 'arguments': {"
                             "  'val': %d, 'size': 10, 'filename': %s } }",
                             0x200000, file);
    g_assert_true(g_file_get_contents(file, &data, &len, NULL));
    g_assert_cmpmem(data, len, "last words", 10);

    qtest_qmp_assert_success(qts, "{ 'execute': 'dump-guest-memory',"
                             "  'arguments': { 'paging': false,"
                             "    'protocol': %s } }", uri);
    g_free(data);
    g_assert_true(g_file_get_contents(file, &data, &len, NULL));
    g_assert_nonnull(memmem(data, len, "last words", 10));

    qtest_qmp_assert_success(qts, "{ 'execute': 'screendump', 'arguments': {"
                             "  'filename': %s } }", file);
    regs = qtest_hmp(qts, "info registers");
    g_assert_nonnull(strstr(regs, "IP="));

    vmq_assert_status(qts, "quiesced");
    vmq_unquiesce(qts, token);
    qtest_quit(qts);
    unlink(file);
}

static void test_quit(void)
{
    QTestState *qts = qtest_init("");

    g_free(vmq_quiesce(qts));
    qtest_qmp_assert_success(qts, "{ 'execute': 'quit' }");
    qtest_wait_qemu(qts);
    qtest_quit(qts);
}

static void test_sigterm(void)
{
    /* Also if the guest's end would only pause */
    QTestState *qts = qtest_init("-no-shutdown");

    g_free(vmq_quiesce(qts));
    kill(qtest_pid(qts), SIGTERM);
    qtest_wait_qemu(qts);
    qtest_quit(qts);
}

static void test_hmp(void)
{
    QTestState *qts = qtest_init("");
    g_autofree char *started = NULL, *info = NULL, *left = NULL, *bad = NULL;
    g_auto(GStrv) words = NULL;

    bad = qtest_hmp(qts, "quiesce test -1");
    g_assert_nonnull(strstr(bad, "Error: "));
    vmq_assert_status(qts, "running");

    started = qtest_hmp(qts, "quiesce test 5000");
    g_assert_true(g_str_has_prefix(started, "Token: "));
    qtest_qmp_eventwait(qts, "VM_QUIESCED");

    info = qtest_hmp(qts, "info quiesce");
    g_assert_nonnull(strstr(info, "Phase: quiesced"));
    g_assert_nonnull(strstr(info, "Reason: test"));

    words = g_strsplit_set(started, " \r\n", 3);
    left = qtest_hmp(qts, "unquiesce %s", words[1]);
    g_assert_cmpstr(left, ==, "");
    vmq_assert_status(qts, "paused");
    qtest_quit(qts);
}

/* Network */

/* Packets that have come in on @fd so far */
static int count_packets(int fd)
{
    char buf[2048];
    int n = 0;

    while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) >= 0) {
        n++;
    }
    return n;
}

static int bind_dgram(const char *path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

    g_strlcpy(addr.sun_path, path, sizeof(addr.sun_path));
    g_assert_cmpint(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), ==, 0);
    return fd;
}

/* A NIC announces itself every 10 ms, and goes on while the VM is stopped */
static void test_announce(void)
{
    g_autofree char *local = vmq_tmpfile("local");
    g_autofree char *remote = vmq_tmpfile("remote");
    int fd = bind_dgram(remote);
    g_autofree char *token = NULL;
    QTestState *qts;

    qts = qtest_initf("-netdev dgram,id=n,local.type=unix,local.path=%s,"
                      "remote.type=unix,remote.path=%s "
                      "-device e1000,netdev=n", local, remote);

    qtest_qmp_assert_success(qts, "{ 'execute': 'announce-self',"
                             "  'arguments': { 'initial': 10, 'max': 10,"
                             "    'rounds': 1000, 'step': 0 } }");
    while (!count_packets(fd)) {
        g_usleep(1000);
    }

    token = vmq_quiesce(qts);
    count_packets(fd);
    g_usleep(300 * 1000);
    g_assert_cmpint(count_packets(fd), ==, 0);

    vmq_unquiesce(qts, token);
    vmq_cont(qts);
    while (!count_packets(fd)) {
        g_usleep(1000);
    }
    qtest_quit(qts);
    close(fd);
    unlink(local);
    unlink(remote);
}

/* Wait until @fd can be read, or @timeout_ms is over */
static bool readable(int fd, int timeout_ms)
{
    GPollFD pfd = { .fd = fd, .events = G_IO_IN };

    return g_poll(&pfd, 1, timeout_ms) == 1;
}

/* What comes in from the network is mirrored, also while a VM is stopped */
static void test_mirror(void)
{
    g_autofree char *local = vmq_tmpfile("local");
    g_autofree char *remote = vmq_tmpfile("remote");
    g_autofree char *mirror = vmq_tmpfile("mirror");
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = bind_dgram(remote);
    g_autofree char *token = NULL;
    char packet[64] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52 };
    char buf[2048];
    QTestState *qts;
    int out;

    qts = qtest_initf("-netdev dgram,id=n,local.type=unix,local.path=%s,"
                      "remote.type=unix,remote.path=%s "
                      "-device e1000,netdev=n "
                      "-chardev socket,id=c,path=%s,server=on,wait=off "
                      "-object filter-mirror,id=f,netdev=n,queue=tx,outdev=c",
                      local, remote, mirror);
    out = unix_connect(mirror);
    /* QEMU has seen the connection when it has answered */
    vmq_assert_status(qts, "running");
    g_strlcpy(addr.sun_path, local, sizeof(addr.sun_path));

    do {
        g_assert_cmpint(sendto(fd, packet, sizeof(packet), 0,
                               (struct sockaddr *)&addr, sizeof(addr)),
                        ==, sizeof(packet));
    } while (!readable(out, 100));
    while (readable(out, 100)) {
        g_assert_cmpint(read(out, buf, sizeof(buf)), >, 0);
    }

    token = vmq_quiesce(qts);
    g_assert_cmpint(sendto(fd, packet, sizeof(packet), 0,
                           (struct sockaddr *)&addr, sizeof(addr)),
                    ==, sizeof(packet));
    g_assert_false(readable(out, 300));

    vmq_unquiesce(qts, token);
    qtest_quit(qts);
    close(out);
    close(fd);
    unlink(local);
    unlink(remote);
    unlink(mirror);
}

int main(int argc, char **argv)
{
    int i, ret;

    g_test_init(&argc, &argv, NULL);
    vmq_tmpdir_make();

    for (i = 0; i < ARRAY_SIZE(state_cases); i++) {
        g_autofree char *path = g_strdup_printf("vm-quiesce/state/%s",
                                                state_cases[i].state);

        qtest_add_data_func(path, &state_cases[i], test_state);
    }
    qtest_add_func("vm-quiesce/state/internal-error", test_internal_error);
    qtest_add_func("vm-quiesce/state/inmigrate", test_inmigrate);
    qtest_add_func("vm-quiesce/state/precopy", test_precopy);
    qtest_add_func("vm-quiesce/state/load-quiesced", test_load_quiesced);
    qtest_add_func("vm-quiesce/events", test_events);
    qtest_add_func("vm-quiesce/arguments", test_arguments);
    qtest_add_func("vm-quiesce/refused/qmp", test_refused_qmp);
    qtest_add_func("vm-quiesce/refused/hmp", test_refused_hmp);
    qtest_add_func("vm-quiesce/refused/qom-set", test_refused_qom_set);
    qtest_add_func("vm-quiesce/refused/gdb", test_gdb);
    qtest_add_func("vm-quiesce/refused/pending", test_pending_guest_requests);
    qtest_add_func("vm-quiesce/refused/pending-power-off",
                   test_pending_power_off);
    qtest_add_func("vm-quiesce/post-mortem", test_post_mortem);
    qtest_add_func("vm-quiesce/quit", test_quit);
    qtest_add_func("vm-quiesce/sigterm", test_sigterm);
    qtest_add_func("vm-quiesce/hmp", test_hmp);
    qtest_add_func("vm-quiesce/network/announce", test_announce);
    qtest_add_func("vm-quiesce/network/mirror", test_mirror);

    ret = g_test_run();
    vmq_tmpdir_remove();
    return ret;
}
