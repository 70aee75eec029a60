/*
 * Tests of migration convergence: loads, and what may go wrong
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "qemu/cutils.h"
#include "migration/bootfile.h"
#include "migration/convergence-util.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "vm-quiesce-util.h"

/* Two VMs, the capability is on, and the second one listens */
static void start_enforced(Cvg *c)
{
    cvg_start(c, "");
    cvg_set_capability(c, "convergence");
    cvg_listen(c);
}

static void assert_last_decision(Cvg *c, const char *decision)
{
    g_assert_cmpstr(qdict_get_str(cvg_last_pass(c), "decision"), ==, decision);
}

/* The greatest value of @name in all passes */
static int64_t most(Cvg *c, const char *name)
{
    const QListEntry *e;
    int64_t value = 0;

    QLIST_FOREACH_ENTRY(c->events, e) {
        QDict *event = qobject_to(QDict, qlist_entry_obj(e));

        value = MAX(value, qdict_get_int(qdict_get_qdict(event, "pass"), name));
    }
    return value;
}

static void test_off(void)
{
    g_autoptr(QDict) record = NULL;
    Cvg c;

    cvg_start(&c, "");
    cvg_listen(&c);
    cvg_migrate(&c);
    cvg_run_to(&c, &cvg_converging, "completed");
    cvg_assert_memory(&c);
    g_assert_cmpint(cvg_passes(&c), ==, 0);
    record = cvg_assert_history(&c, "completed");
    g_assert_false(qdict_haskey(record, "mode"));
    g_assert_false(qdict_haskey(record, "predicted-downtime"));
    g_assert_cmpint(qlist_size(qdict_get_qlist(record, "passes")), ==, 0);
    cvg_free(&c);
}

static void test_converging(void)
{
    g_autoptr(QDict) record = NULL;
    QDict *last;
    Cvg c;

    start_enforced(&c);
    cvg_migrate(&c);
    cvg_run_to(&c, &cvg_converging, "completed");
    cvg_assert_memory(&c);
    record = cvg_assert_history(&c, "completed");
    g_assert_cmpint(cvg_passes(&c), >=, 2);
    assert_last_decision(&c, "switch-over");
    last = cvg_last_pass(&c);
    g_assert_cmpint(qdict_get_int(last, "predicted-downtime"), <=, 40);
    g_assert_cmpint(qdict_get_int(last, "predicted-downtime"), ==,
                    qdict_get_int(record, "predicted-downtime"));
    g_assert_cmpstr(qdict_get_str(record, "mode"), ==, "enforce");
    g_assert_false(qdict_get_bool(record, "postcopy"));
    g_assert_cmpint(qdict_get_int(record, "bytes"), >=, CVG_CONTENT_SIZE);
    cvg_free(&c);
}

#if defined(CONFIG_LINUX) && defined(CONFIG_TRACE_LOG)
/* Of two threads on one CPU, the one that sends waits for it now and then */
static void test_waited(void)
{
    g_autofree char *path = vmq_tmpfile("trace");
    g_autofree char *args = g_strdup_printf(
        "-trace enable=convergence_round -D %s", path);
    g_autofree char *text = NULL;
    int64_t ns, waited, all_ns = 0, all_waited = 0;
    const char *line;
    cpu_set_t one;
    Cvg c;

    cvg_start_source(&c, args);
    cvg_start_destination(&c, "");
    cvg_set_capability(&c, "convergence");
    cvg_listen(&c);
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    /* Threads of migration are bound as well, for this one makes them */
    g_assert_cmpint(sched_setaffinity(qtest_pid(c.from), sizeof(one), &one),
                    ==, 0);
    cvg_migrate(&c);
    cvg_run_to(&c, &cvg_converging, "completed");

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    for (line = text; (line = strstr(line, " bytes in ")); line++) {
        g_assert_cmpint(sscanf(line, " bytes in %" SCNd64 " ns, %" SCNd64,
                               &ns, &waited), ==, 2);
        all_ns += ns;
        all_waited += waited;
    }
    g_assert_cmpint(all_waited, >, 0);
    g_assert_cmpint(all_waited, <=, all_ns);
    cvg_free(&c);
    unlink(path);
}
#endif

/* An idle guest: one pass, and nothing left to be sent */
static void test_idle(void)
{
    Cvg c;

    start_enforced(&c);
    cvg_migrate(&c);
    cvg_run_to(&c, NULL, "completed");
    cvg_assert_memory(&c);
    qobject_unref(cvg_assert_history(&c, "completed"));
    g_assert_cmpint(cvg_passes(&c), ==, 1);
    assert_last_decision(&c, "switch-over");
    cvg_free(&c);
}

static char *disk_args(const char *image)
{
    return g_strdup_printf("-blockdev file,node-name=file,filename=%s "
                           "-blockdev qcow2,node-name=disk,file=file "
                           "-device virtio-blk-pci,id=dev,drive=disk", image);
}

static void assert_disk_writable(QTestState *qts)
{
    g_autofree char *reply = qtest_hmp(
        qts, "qemu-io -d /machine/peripheral/dev/virtio-backend "
        "\"write -q -P 7 0 64k\"");

    g_assert_cmpstr(reply, ==, "");
}

static void assert_not_converged(Cvg *c)
{
    g_autoptr(QDict) record = cvg_assert_history(c, "failed");
    g_autofree char *error = cvg_error(c->from);

    assert_last_decision(c, "abort");
    g_assert_true(g_str_has_prefix(error, "Migration does not converge: "));
    cvg_assert_contains(error, qdict_get_str(cvg_last_pass(c), "reason"));
    g_assert_cmpstr(qdict_get_str(record, "error"), ==, error);
    g_assert_false(qdict_haskey(record, "downtime"));
}

/* It gives up; everything is as if nothing had been tried */
static void test_abort(void)
{
    g_autofree char *image = vmq_make_image("qcow2", VMQ_IMAGE_SIZE);
    g_autofree char *args = disk_args(image);
    Cvg c;

    cvg_start(&c, args);
    cvg_set_capability(&c, "convergence");
    cvg_listen(&c);
    cvg_migrate(&c);
    cvg_run_to(&c, &cvg_diverging, "failed");
    assert_not_converged(&c);
    g_assert_cmpint(most(&c, "throttle"), >, 0);
    vmq_assert_status(c.from, "running");
    assert_disk_writable(c.from);

    /* Another one, when the guest is quieter */
    qtest_quit(c.to);
    cvg_start_destination(&c, args);
    cvg_set_capability(&c, "convergence");
    cvg_listen(&c);
    cvg_migrate(&c);
    cvg_run_to(&c, &cvg_converging, "completed");
    cvg_assert_memory(&c);
    assert_disk_writable(c.to);
    g_assert_cmpint(cvg_history_length(c.from), ==, 2);
    cvg_free(&c);
    unlink(image);
}

static void test_abort_recovered(void)
{
    Cvg c;

    start_enforced(&c);
    cvg_migrate(&c);
    cvg_run_to(&c, &cvg_diverging, "failed");
    assert_not_converged(&c);
    cvg_assert_recovered(&c);
    cvg_free(&c);
}

/* More is predicted than the limit allows */
static void test_time_limit(void)
{
    Cvg c;

    start_enforced(&c);
    migrate_set_parameter_int(c.from, "convergence-time-limit", 1);
    cvg_migrate(&c);
    cvg_run_to(&c, &cvg_diverging, "failed");
    assert_not_converged(&c);
    g_assert_cmpint(cvg_passes(&c), <=, 3);
    cvg_assert_recovered(&c);
    cvg_free(&c);
}

static void test_no_slowdown(void)
{
    Cvg c;

    start_enforced(&c);
    migrate_set_parameter_int(c.from, "convergence-max-slowdown", 0);
    cvg_migrate(&c);
    g_assert_false(cvg_run(&c, &cvg_diverging, cvg_until_throttled));
    g_assert_cmpstr(c.status, ==, "failed");
    assert_not_converged(&c);
    g_assert_cmpint(most(&c, "next-throttle"), ==, 0);
    cvg_free(&c);
}

/* Everything is reported, nothing is carried out */
static bool until_four_passes(Cvg *c)
{
    g_assert_cmpint(c->throttle, ==, 0);
    return cvg_passes(c) >= 4;
}

static void test_observe(void)
{
    g_autoptr(QDict) record = NULL;
    const QListEntry *e;
    bool aborted = false;
    Cvg c;

    start_enforced(&c);
    migrate_set_parameter_str(c.from, "convergence-mode", "observe");
    migrate_set_parameter_int(c.from, "convergence-time-limit", 1);
    cvg_migrate(&c);
    g_assert_true(cvg_run(&c, &cvg_diverging, until_four_passes));
    cvg_run_to(&c, NULL, "completed");
    cvg_assert_memory(&c);
    record = cvg_assert_history(&c, "completed");
    g_assert_cmpstr(qdict_get_str(record, "mode"), ==, "observe");
    QLIST_FOREACH_ENTRY(c.events, e) {
        QDict *event = qobject_to(QDict, qlist_entry_obj(e));
        QDict *pass = qdict_get_qdict(event, "pass");

        aborted |= g_str_equal(qdict_get_str(pass, "decision"), "abort");
    }
    g_assert_true(aborted);
    g_assert_cmpint(most(&c, "throttle"), ==, 0);
    cvg_free(&c);
}

static bool until_one_pass(Cvg *c)
{
    return cvg_passes(c) >= 1;
}

static void test_limit_raised(void)
{
    Cvg c;

    start_enforced(&c);
    cvg_migrate(&c);
    g_assert_true(cvg_run(&c, &cvg_diverging, until_one_pass));
    migrate_set_parameter_int(c.from, "downtime-limit", 5000);
    cvg_run_to(&c, &cvg_diverging, "completed");
    cvg_assert_memory(&c);
    assert_last_decision(&c, "switch-over");
    qobject_unref(cvg_assert_history(&c, "completed"));
    cvg_free(&c);
}

static void test_limit_lowered(void)
{
    Cvg c;

    start_enforced(&c);
    migrate_set_parameter_int(c.from, "downtime-limit", 5000);
    /* Or all is sent before the limit is lowered */
    migrate_set_parameter_int(c.from, "max-bandwidth", 4096);
    migrate_set_parameter_int(c.from, "avail-switchover-bandwidth",
                              CVG_BANDWIDTH / 8);
    cvg_migrate(&c);
    g_assert_true(cvg_run(&c, NULL, cvg_until_active));
    migrate_set_parameter_int(c.from, "downtime-limit", 20);
    migrate_set_parameter_int(c.from, "max-bandwidth", CVG_BANDWIDTH);
    cvg_run_to(&c, &cvg_diverging, "failed");
    assert_not_converged(&c);
    cvg_free(&c);
}

/* Many times that the guest's memory was found to be sent, and a while */
static bool until_waiting(Cvg *c)
{
    vmq_assert_status(c->from, "running");
    return get_migration_pass(c->from) >= 4 &&
           g_get_monotonic_time() > c->last_us + 2 * G_USEC_PER_SEC;
}

/* No switchover without the destination's consent, whatever the mode */
static void test_no_ack(const void *opaque)
{
    const char *mode = opaque;
    Cvg c;

    cvg_start_source(&c, "");
    cvg_set_capability(&c, "return-path");
    cvg_set_capability(&c, "switchover-ack");
    /* Upstream makes pass after pass, thousands per second */
    migrate_set_capability(c.from, "events", false);
    if (mode) {
        cvg_set_capability(&c, "convergence");
        migrate_set_parameter_str(c.from, "convergence-mode", mode);
    }
    cvg_migrate_here(&c);
    g_assert_true(cvg_run(&c, NULL, until_waiting));
    g_assert_cmpint(cvg_passes(&c), <, 100);
    migrate_cancel(c.from);
    /*
     * Upstream closes the return path before it says that it cancels, so that
     * it may fail of that
     */
    g_assert_true(cvg_run(&c, NULL, NULL));
    g_assert_cmpstr(c.status, !=, "completed");
    qobject_unref(cvg_assert_history(&c, c.status));
    cvg_free(&c);
}

static bool skip_without_userfaultfd(void)
{
    if (ufd_version_check(NULL)) {
        return false;
    }
    g_test_skip("userfaultfd is not available");
    return true;
}

static void assert_postcopy(Cvg *c)
{
    g_autoptr(QDict) record = cvg_assert_history(c, "completed");
    g_autoptr(QList) history = cvg_history(c->to);

    cvg_assert_memory(c);
    g_assert_true(qdict_get_bool(record, "postcopy"));
    g_assert_true(qdict_get_bool(cvg_last_record(history), "postcopy"));
}

static void test_fallback_postcopy(void)
{
    Cvg c;

    if (skip_without_userfaultfd()) {
        return;
    }
    start_enforced(&c);
    cvg_set_capability(&c, "postcopy-ram");
    migrate_set_parameter_str(c.from, "convergence-fallback", "postcopy");
    cvg_migrate(&c);
    cvg_run_to(&c, &cvg_diverging, "completed");
    assert_last_decision(&c, "postcopy");
    assert_postcopy(&c);
    cvg_free(&c);
}

/* A phase that a migration is in, and how to get there */
typedef struct Phase {
    const char *name;
    const char *capability;
    const CvgLoad *load;
    bool (*until)(Cvg *c);
} Phase;

static bool until_first_pass(Cvg *c)
{
    return cvg_until_active(c) && cvg_passes(c) == 0;
}

static const Phase phases[] = {
    { "first-pass", NULL, &cvg_diverging, until_first_pass },
    { "throttled", NULL, &cvg_diverging, cvg_until_throttled },
    { "withheld", NULL, &cvg_hot, cvg_until_withheld },
    { "pre-switchover", "pause-before-switchover", &cvg_converging,
      cvg_until_pre_switchover },
};

static const Phase withheld_postcopy = {
    "withheld", "postcopy-ram", &cvg_hot, cvg_until_withheld,
};

/*
 * What comes when is for the engine to decide, and it measures: on a busy host
 * it may not come to that, or be over, at the first attempt
 */
#define ATTEMPTS 20

static void enter(Cvg *c, const Phase *phase)
{
    int i;

    for (i = 0; i < ATTEMPTS; i++) {
        start_enforced(c);
        if (phase->capability) {
            cvg_set_capability(c, phase->capability);
        }
        migrate_set_parameter_int(c->from, "downtime-limit", 20);
        cvg_migrate(c);
        if (cvg_run(c, phase->load, phase->until)) {
            /* And stay there */
            migrate_set_parameter_int(c->from, "max-bandwidth", 64 * KiB);
            if (cvg_is(c, phase->until)) {
                return;
            }
        }
        cvg_free(c);
    }
    g_error("no migration came to the phase '%s'", phase->name);
}

/* Pages that are withheld until the guest is stopped are not lost */
static void test_withheld(void)
{
    int i;
    Cvg c;

    for (i = 0; i < ATTEMPTS; i++) {
        start_enforced(&c);
        migrate_set_parameter_int(c.from, "downtime-limit", 20);
        cvg_migrate(&c);
        g_assert_true(cvg_run(&c, &cvg_hot, NULL));
        qobject_unref(cvg_assert_history(&c, c.status));
        if (g_str_equal(c.status, "completed")) {
            cvg_assert_memory(&c);
            if (qdict_get_int(cvg_last_pass(&c), "pages-withheld")) {
                cvg_free(&c);
                return;
            }
        }
        cvg_free(&c);
    }
    g_error("no pages were withheld until the end");
}

/* All of them are still sent, though postcopy sends only what is dirty */
static void test_withheld_postcopy(void)
{
    Cvg c;

    if (skip_without_userfaultfd()) {
        return;
    }
    enter(&c, &withheld_postcopy);
    qtest_qmp_assert_success(c.from, "{ 'execute': 'migrate-start-postcopy' }");
    cvg_run_to(&c, &cvg_hot, "completed");
    assert_postcopy(&c);
    cvg_free(&c);
}

static void test_cancel(const void *opaque)
{
    const Phase *phase = opaque;
    Cvg c;

    enter(&c, phase);
    migrate_cancel(c.from);
    cvg_run_to(&c, NULL, "cancelled");
    qobject_unref(cvg_assert_history(&c, "cancelled"));
    vmq_wait_status(c.from, "running");
    cvg_assert_recovered(&c);
    cvg_free(&c);
}

/* Connect until nobody else can, as nobody is there to accept */
static int full_listener(const char *path, GArray *clients)
{
    int server = qtest_socket_server(path);
    struct sockaddr_un addr = { .sun_family = AF_UNIX };

    pstrcpy(addr.sun_path, sizeof(addr.sun_path), path);
    while (true) {
        int fd = socket(PF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        int ret;

        g_assert_cmpint(fd, >=, 0);
        ret = connect(fd, (struct sockaddr *)&addr, sizeof(addr));
        g_array_append_val(clients, fd);
        if (ret) {
            g_assert_cmpint(errno, ==, EAGAIN);
            return server;
        }
    }
}

static bool until_setup(Cvg *c)
{
    return g_str_equal(c->status, "setup");
}

static void test_cancel_setup(void)
{
    g_autoptr(GArray) clients = g_array_new(false, false, sizeof(int));
    g_autofree char *path = vmq_tmpfile("socket");
    int i, server;
    Cvg c;

    cvg_start_source(&c, "");
    server = full_listener(path, clients);
    cvg_set_capability(&c, "convergence");
    c.uri = g_strdup_printf("unix:%s", path);
    cvg_migrate(&c);
    g_assert_true(cvg_run(&c, NULL, until_setup));
    migrate_cancel(c.from);
    cvg_run_to(&c, NULL, "cancelled");
    /* It waits for the connection still, which another one would get */
    vmq_assert_error(qtest_qmp(c.from, "{ 'execute': 'migrate',"
                               "  'arguments': { 'uri': 'exec:cat' } }"),
                     "The previous migration has not ended yet");
    cvg_run_to(&c, NULL, "cancelled");
    g_assert_cmpint(cvg_history_length(c.from), ==, 1);
    /* Now it is refused */
    close(server);
    for (i = 0; i < clients->len; i++) {
        close(g_array_index(clients, int, i));
    }
    qobject_unref(cvg_assert_history(&c, "cancelled"));
    cvg_assert_recovered(&c);
    cvg_free(&c);
}

static void assert_failed(Cvg *c)
{
    g_autoptr(QDict) record = NULL;
    g_autofree char *error = NULL;

    cvg_run_to(c, NULL, "failed");
    vmq_wait_status(c->from, "running");
    record = cvg_assert_history(c, "failed");
    error = cvg_error(c->from);
    g_assert_cmpstr(qdict_get_str(record, "error"), ==, error);
    cvg_assert_recovered(c);
}

static void test_link_lost(const void *opaque)
{
    const Phase *phase = opaque;
    Cvg c;

    enter(&c, phase);
    qtest_quit(c.to);
    c.to = NULL;
    if (cvg_until_pre_switchover(&c)) {
        /* It sends nothing there */
        migrate_continue(c.from, "pre-switchover");
    }
    assert_failed(&c);
    cvg_free(&c);
}

/* The other side is not QEMU: it closes the socket at once */
static void test_link_closed(void)
{
    Cvg c;

    cvg_start_source(&c, "");
    cvg_set_capability(&c, "convergence");
    cvg_migrate_here(&c);
    close(c.fd);
    c.fd = -1;
    assert_failed(&c);
    cvg_free(&c);
}

static void test_nobody_listens(void)
{
    Cvg c;

    cvg_start_source(&c, "");
    cvg_set_capability(&c, "convergence");
    c.uri = g_strdup("unix:/nonexistent/socket");
    cvg_migrate(&c);
    assert_failed(&c);
    cvg_free(&c);
}

/* The destination cannot load what it gets, says so, and remembers */
static void test_bad_destination(const void *opaque)
{
    const char *args = opaque;
    g_autoptr(QList) history = NULL;
    QDict *record;
    Cvg c;

    cvg_start_source(&c, "");
    cvg_start_destination(&c, args);
    cvg_set_capability(&c, "convergence");
    cvg_listen(&c);
    cvg_migrate(&c);
    assert_failed(&c);
    vmq_assert_status(c.to, "inmigrate");
    history = cvg_history(c.to);
    g_assert_cmpint(qlist_size(history), ==, 1);
    record = cvg_last_record(history);
    g_assert_cmpstr(qdict_get_str(record, "direction"), ==, "incoming");
    g_assert_cmpstr(qdict_get_str(record, "outcome"), ==, "failed");
    g_assert_cmpstr(qdict_get_str(record, "error"), !=, "");
    g_assert_false(qdict_haskey(record, "downtime"));
    cvg_free(&c);
}

static void test_quiesce(const void *opaque)
{
    const Phase *phase = opaque;
    g_autofree char *token = NULL;
    Cvg c;

    enter(&c, phase);
    token = vmq_quiesce(c.from);
    cvg_run_to(&c, NULL, "cancelled");
    qobject_unref(cvg_assert_history(&c, "cancelled"));
    vmq_unquiesce(c.from, token);
    qtest_qmp_assert_success(c.from, "{ 'execute': 'cont' }");
    cvg_assert_recovered(&c);
    cvg_free(&c);
}

/* Times that the guest of bootfile.h has gone through its memory per second */
static double guest_speed(QTestState *qts)
{
    int64_t begin = g_get_monotonic_time(), now;
    uint8_t last = qtest_readb(qts, X86_TEST_MEM_START);
    uint64_t rounds = 0;

    do {
        uint8_t value = qtest_readb(qts, X86_TEST_MEM_START);

        rounds += (uint8_t)(value - last);
        last = value;
        g_usleep(1000);
        now = g_get_monotonic_time();
    } while (now - begin < G_USEC_PER_SEC / 2);
    return (double)rounds * G_USEC_PER_SEC / (now - begin);
}

/* Wait until it is faster than @speed; at first it has no memory yet */
static double guest_faster(QTestState *qts, double speed)
{
    double now;
    int i;

    for (i = 0; i < 60; i++) {
        now = guest_speed(qts);
        if (now > speed) {
            break;
        }
    }
    return now;
}

/* vCPUs that run are slowed down, and then not any more */
static void test_full_speed(void)
{
    g_autofree char *dir = vmq_tmpfile("boot");
    double throttled, after;
    Cvg c = { .fd = -1 };

    if (!qtest_has_accel("tcg")) {
        g_test_skip("TCG is not available");
        return;
    }
    g_assert_cmpint(g_mkdir(dir, 0700), ==, 0);
    bootfile_create(qtest_get_arch(), dir, false);
    c.events = qlist_new();
    c.from = qtest_initf("-accel tcg -machine pc -nodefaults -m 128 "
                         "-drive if=none,id=d0,file=%s,format=raw "
                         "-device ide-hd,drive=d0,secs=1,cyls=1,heads=1",
                         bootfile_get());
    migrate_set_capability(c.from, "convergence", true);
    migrate_set_parameter_int(c.from, "downtime-limit", 10);
    g_assert_cmpfloat(guest_faster(c.from, 0), >, 0);

    c.uri = g_strdup("exec:cat > /dev/null");
    cvg_migrate(&c);
    g_assert_true(cvg_run(&c, NULL, cvg_until_throttled));
    migrate_set_parameter_int(c.from, "max-bandwidth", 64 * KiB);
    throttled = guest_speed(c.from);
    g_assert_true(cvg_is(&c, cvg_until_throttled));
    migrate_set_parameter_int(c.from, "max-bandwidth", 128 * MiB);
    cvg_run_to(&c, NULL, "failed");
    /* It hardly ran, if the host was as busy as now */
    after = guest_faster(c.from, throttled * 2);
    g_test_message("%.1f, then %.1f rounds per second", throttled, after);
    g_assert_cmpfloat(after, >, throttled * 2);

    qtest_quit(c.from);
    qobject_unref(c.events);
    g_free(c.uri);
    g_free(c.status);
    bootfile_delete();
    rmdir(dir);
}

void cvg_add_load_tests(void)
{
    qtest_add_func("convergence/off", test_off);
    qtest_add_func("convergence/converging", test_converging);
#if defined(CONFIG_LINUX) && defined(CONFIG_TRACE_LOG)
    qtest_add_func("convergence/waited", test_waited);
#endif
    qtest_add_func("convergence/idle", test_idle);
    qtest_add_func("convergence/abort", test_abort);
    qtest_add_func("convergence/abort-recovered", test_abort_recovered);
    qtest_add_func("convergence/time-limit", test_time_limit);
    qtest_add_func("convergence/no-slowdown", test_no_slowdown);
    qtest_add_func("convergence/observe", test_observe);
    qtest_add_func("convergence/limit-raised", test_limit_raised);
    qtest_add_func("convergence/limit-lowered", test_limit_lowered);
    qtest_add_data_func("convergence/no-ack/off", NULL, test_no_ack);
    qtest_add_data_func("convergence/no-ack/observe", "observe", test_no_ack);
    qtest_add_data_func("convergence/no-ack/enforce", "enforce", test_no_ack);
    qtest_add_func("convergence/fallback-postcopy", test_fallback_postcopy);
    qtest_add_func("convergence/withheld", test_withheld);
    qtest_add_func("convergence/withheld-postcopy", test_withheld_postcopy);
    qtest_add_func("convergence/full-speed", test_full_speed);
}

static void add_for_phase(const char *name, const Phase *phase,
                          void (*test)(const void *))
{
    g_autofree char *path = g_strdup_printf("convergence/%s/%s", name,
                                            phase->name);

    qtest_add_data_func(path, phase, test);
}

void cvg_add_failure_tests(void)
{
    int i;

    qtest_add_func("convergence/cancel/setup", test_cancel_setup);
    for (i = 0; i < ARRAY_SIZE(phases); i++) {
        add_for_phase("cancel", &phases[i], test_cancel);
        add_for_phase("link-lost", &phases[i], test_link_lost);
        add_for_phase("quiesce", &phases[i], test_quiesce);
    }
    qtest_add_func("convergence/link-closed", test_link_closed);
    qtest_add_func("convergence/nobody-listens", test_nobody_listens);
    qtest_add_data_func("convergence/bad-destination/memory", "-m 24",
                        test_bad_destination);
    qtest_add_data_func("convergence/bad-destination/machine", "-machine q35",
                        test_bad_destination);
}
