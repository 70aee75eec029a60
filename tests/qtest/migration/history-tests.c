/*
 * Tests of the migration history, and of what is not to change: the stream
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/convergence-util.h"
#include "migration/migration-qmp.h"
#include "qemu/uuid.h"
#include "vm-quiesce-util.h"

#define MAX_RECORDS     16
#define MAX_PASSES      256
#define FIRST_PASSES    16

/* Of the stream */
#define QEMU_VM_SECTION_FOOTER  0x7e

/* The environment variable that names a QEMU without the series */
#define UNPATCHED       "QTEST_QEMU_BINARY_UNPATCHED"

static void set_id(QTestState *qts, const char *id)
{
    migrate_set_parameter_str(qts, "migration-id", id);
}

static void test_both_sides(void)
{
    g_autoptr(QDict) from = NULL;
    g_autoptr(QList) history = NULL;
    g_autofree char *before = NULL, *after = NULL;
    QDict *to;
    Cvg c;

    cvg_start(&c, "");
    set_id(c.from, "web1-0042");
    set_id(c.to, "web1-0042");
    cvg_listen(&c);
    cvg_migrate(&c);
    cvg_run_to(&c, &cvg_converging, "completed");
    cvg_assert_memory(&c);
    from = cvg_assert_history(&c, "completed");
    history = cvg_history(c.to);
    g_assert_cmpint(qlist_size(history), ==, 1);
    to = cvg_last_record(history);
    g_assert_cmpstr(qdict_get_str(from, "id"), ==, "web1-0042");
    g_assert_cmpstr(qdict_get_str(to, "id"), ==, "web1-0042");
    g_assert_cmpstr(qdict_get_str(to, "direction"), ==, "incoming");
    g_assert_cmpstr(qdict_get_str(to, "outcome"), ==, "completed");
    g_assert_false(qdict_haskey(to, "error"));
    g_assert_false(qdict_haskey(to, "bytes"));
    g_assert_false(qdict_haskey(to, "mode"));
    g_assert_cmpint(qdict_get_int(to, "downtime"), <=,
                    qdict_get_int(to, "total-time"));
    g_assert_cmpint(qdict_get_int(from, "downtime"), <=,
                    qdict_get_int(from, "total-time"));
    g_assert_cmpint(qdict_get_int(from, "downtime-limit"), ==, 40);
    g_assert_cmpint(qdict_get_int(from, "max-bandwidth"), ==, CVG_BANDWIDTH);

    /* What is over does not change; the destination migrates on */
    before = qtest_hmp(c.to, "info migrate-history");
    g_usleep(50000);
    after = qtest_hmp(c.to, "info migrate-history");
    g_assert_cmpstr(before, ==, after);
    g_free(c.uri);
    c.uri = g_strdup("exec:cat > /dev/null");
    set_id(c.to, "web1-0043");
    qtest_qmp_assert_success(c.to, "{ 'execute': 'migrate',"
                             "  'arguments': { 'uri': %s } }", c.uri);
    vmq_wait_migration(c.to, "completed");
    g_assert_cmpint(cvg_history_length(c.to), ==, 2);
    cvg_free(&c);
}

/* Migrate to nobody; returns the id in the record, to be freed */
static char *fail_once(Cvg *c)
{
    g_autoptr(QDict) record = NULL;

    cvg_migrate(c);
    cvg_run_to(c, NULL, "failed");
    record = cvg_assert_history(c, "failed");
    return g_strdup(qdict_get_str(record, "id"));
}

static void test_ids(void)
{
    g_autofree char *one = NULL, *two = NULL, *three = NULL;
    QemuUUID uuid;
    Cvg c;

    cvg_start_source(&c, "");
    c.uri = g_strdup("unix:/nonexistent/socket");
    one = fail_once(&c);
    two = fail_once(&c);
    g_assert_cmpint(qemu_uuid_parse(one, &uuid), ==, 0);
    g_assert_cmpint(qemu_uuid_parse(two, &uuid), ==, 0);
    g_assert_cmpstr(one, !=, two);
    set_id(c.from, "x");
    three = fail_once(&c);
    g_assert_cmpstr(three, ==, "x");
    cvg_free(&c);
}

/* The oldest ones go, also the only one that was completed */
static void test_length(void)
{
    g_autofree char *path = vmq_tmpfile("state");
    g_autoptr(QList) history = NULL;
    const QListEntry *e;
    int i;
    Cvg c;

    cvg_start_source(&c, "");
    c.uri = g_strdup_printf("file:%s", path);
    set_id(c.from, "m0");
    cvg_migrate(&c);
    cvg_run_to(&c, NULL, "completed");
    unlink(path);
    vmq_wait_status(c.from, "postmigrate");
    qtest_qmp_assert_success(c.from, "{ 'execute': 'cont' }");

    g_free(c.uri);
    c.uri = g_strdup("unix:/nonexistent/socket");
    for (i = 1; i <= MAX_RECORDS; i++) {
        g_autofree char *id = g_strdup_printf("m%d", i);

        g_assert_cmpint(cvg_history_length(c.from), ==, i);
        set_id(c.from, id);
        g_free(fail_once(&c));
    }
    history = cvg_history(c.from);
    g_assert_cmpint(qlist_size(history), ==, MAX_RECORDS);
    i = 1;
    QLIST_FOREACH_ENTRY(history, e) {
        g_autofree char *id = g_strdup_printf("m%d", i++);
        QDict *record = qobject_to(QDict, qlist_entry_obj(e));

        g_assert_cmpstr(qdict_get_str(record, "id"), ==, id);
        g_assert_cmpstr(qdict_get_str(record, "outcome"), ==, "failed");
    }
    cvg_free(&c);
}

static bool until_one(Cvg *c)
{
    return cvg_passes(c) >= 1;
}

static bool until_dropped(Cvg *c)
{
    return cvg_passes(c) >= MAX_PASSES + 10;
}

/* Of many passes those in the middle are dropped, and the record says so */
static void test_many_passes(void)
{
    const CvgLoad load = { .size = 4 * MiB, .rate = 1024 * GiB };
    g_autofree char *text = NULL;
    g_autoptr(QDict) record = NULL;
    const QListEntry *e;
    int n, expected = 1;
    Cvg c;

    cvg_start_source(&c, "");
    migrate_set_capability(c.from, "convergence", true);
    migrate_set_parameter_str(c.from, "convergence-mode", "observe");
    migrate_set_parameter_int(c.from, "downtime-limit", 1);
    cvg_migrate_here(&c);
    g_assert_true(cvg_run(&c, &load, until_one));
    migrate_set_parameter_int(c.from, "max-bandwidth", 0);
    g_assert_true(cvg_run(&c, &load, until_dropped));
    migrate_cancel(c.from);
    cvg_run_to(&c, NULL, "cancelled");

    record = cvg_assert_history(&c, "cancelled");
    n = cvg_passes(&c);
    g_assert_cmpint(qdict_get_int(record, "passes-dropped"), ==,
                    n - MAX_PASSES);
    QLIST_FOREACH_ENTRY(qdict_get_qlist(record, "passes"), e) {
        QDict *pass = qobject_to(QDict, qlist_entry_obj(e));

        g_assert_cmpint(qdict_get_int(pass, "pass"), ==, expected);
        expected += expected == FIRST_PASSES ? n - MAX_PASSES + 1 : 1;
    }
    g_assert_cmpint(expected, ==, n + 1);
    text = qtest_hmp(c.from, "info migrate-history");
    cvg_assert_contains(text, " passes in the middle are not kept\r\n");
    cvg_free(&c);
}

/* What a human reads of an aborted and of a completed migration */
static void test_hmp(void)
{
    g_autofree char *active = NULL, *text = NULL;
    Cvg c;

    cvg_start(&c, "");
    cvg_set_capability(&c, "convergence");
    migrate_set_parameter_int(c.from, "convergence-time-limit", 1);
    set_id(c.from, "first");
    c.uri = g_strdup("exec:cat > /dev/null");
    cvg_migrate(&c);
    g_assert_true(cvg_run(&c, NULL, cvg_until_active));
    active = qtest_hmp(c.from, "info migrate-history");
    cvg_assert_contains(active, " first: outgoing, active after ");
    cvg_run_to(&c, &cvg_diverging, "failed");

    set_id(c.from, "second");
    migrate_set_parameter_int(c.from, "convergence-time-limit", 100000);
    cvg_listen(&c);
    cvg_migrate(&c);
    cvg_run_to(&c, NULL, "completed");
    text = qtest_hmp(c.from, "info migrate-history");
    cvg_assert_contains(text, " first: outgoing, failed after ");
    cvg_assert_contains(text, "  Migration does not converge: ");
    cvg_assert_contains(text, " ms pass 1: ");
    cvg_assert_contains(text, "              abort: ");
    cvg_assert_contains(text, " second: outgoing, completed after ");
    cvg_assert_contains(text, "              switch-over: ");
    cvg_assert_contains(text, " ms (predicted ");
    cvg_free(&c);
}

/* Snapshots go through a migration's states, but are none */
static void test_snapshot(void)
{
    g_autofree char *image = vmq_make_image("qcow2", VMQ_IMAGE_SIZE * 4);
    g_autofree char *args = g_strdup_printf(
        "-blockdev file,node-name=file,filename=%s "
        "-blockdev qcow2,node-name=disk,file=file", image);
    g_autofree char *saved = NULL, *loaded = NULL;
    Cvg c;

    cvg_start_source(&c, args);
    migrate_set_capability(c.from, "convergence", true);
    saved = qtest_hmp(c.from, "savevm s");
    g_assert_cmpstr(saved, ==, "");
    g_assert_cmpint(cvg_history_length(c.from), ==, 0);
    loaded = qtest_hmp(c.from, "loadvm s");
    g_assert_cmpstr(loaded, ==, "");
    g_assert_cmpint(cvg_history_length(c.from), ==, 0);
    qtest_qmp_assert_success(c.from, "{ 'execute': 'snapshot-save',"
                             "  'arguments': { 'job-id': 'j', 'tag': 't',"
                             "    'vmstate': 'disk',"
                             "    'devices': [ 'disk' ] } }");
    while (true) {
        g_autofree char *jobs = NULL;
        QDict *rsp = qtest_qmp(c.from, "{ 'execute': 'query-jobs' }");
        const QListEntry *e = qlist_first(qdict_get_qlist(rsp, "return"));
        QDict *job = qobject_to(QDict, qlist_entry_obj(e));
        bool over = g_str_equal(qdict_get_str(job, "status"), "concluded");

        g_assert_false(qdict_haskey(job, "error"));
        qobject_unref(rsp);
        if (over) {
            break;
        }
        g_usleep(1000);
    }
    g_assert_cmpint(cvg_history_length(c.from), ==, 0);
    g_assert_cmpint(cvg_passes(&c), ==, 0);
    vmq_assert_status(c.from, "running");

    /* A real one is noticed as before */
    g_free(c.uri);
    c.uri = g_strdup("unix:/nonexistent/socket");
    g_free(fail_once(&c));
    cvg_free(&c);
    unlink(image);
}

/*
 * Whatever differs from run to run is fixed: the VM never ran, and its clock
 * is not the host's
 */
static QTestState *start_still(const char *binary, const char *content)
{
    g_autofree char *args = g_strdup_printf(
        "-machine pc-i440fx-10.2 -nodefaults -m %d -S "
        "-rtc base=2026-01-01,clock=vm "
        "-device loader,file=%s,addr=%d,force-raw=on",
        (int)(CVG_RAM / MiB), content, (int)CVG_CONTENT);

    return qtest_init_ext(binary, args, NULL, true);
}

/* The stream of a still VM; @mode NULL for the capability off */
static char *stream(const char *binary, const char *mode, gsize *len)
{
    g_autofree char *path = vmq_tmpfile("state");
    g_autofree char *content = vmq_tmpfile("content");
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    g_autofree char *page = g_malloc(CVG_PAGE);
    QTestState *qts;
    char *data;

    memset(page, 0x5a, CVG_PAGE);
    g_assert_true(g_file_set_contents(content, page, CVG_PAGE, NULL));
    qts = start_still(binary, content);
    unlink(content);
    if (mode) {
        migrate_set_capability(qts, "convergence", true);
        migrate_set_parameter_str(qts, "convergence-mode", mode);
    }
    vmq_migrate(qts, uri);
    qtest_quit(qts);
    g_assert_true(g_file_get_contents(path, &data, len, NULL));
    unlink(path);
    return data;
}

/*
 * The number of the last section says how many there might have been before it,
 * sent or not: forget it, in its header and its footer
 */
static void forget_number(char *data, gsize len)
{
    static const char name[] = "\x0bglobalstate";
    char *at = memmem(data, len, name, sizeof(name) - 1);
    char footer[5] = { QEMU_VM_SECTION_FOOTER };

    g_assert_nonnull(at);
    memcpy(footer + 1, at - 4, 4);
    memset(at - 4, 0, 4);
    at = memmem(at, len - (at - data), footer, sizeof(footer));
    g_assert_nonnull(at);
    memset(at + 1, 0, 4);
}

/*
 * Where a round of sending ends depends on time, so a busy host may need more
 * than one attempt; but a difference that is one never goes away
 */
static void assert_same_stream(const char *binary, const char *mode)
{
    int i;

    for (i = 0; i < 10; i++) {
        gsize off_len, len;
        g_autofree char *off = stream(binary, NULL, &off_len);
        g_autofree char *on = stream(NULL, mode, &len);

        forget_number(off, off_len);
        forget_number(on, len);
        if (off_len == len && !memcmp(off, on, len)) {
            return;
        }
    }
    g_assert_not_reached();
}

static void test_stream_observe(void)
{
    assert_same_stream(NULL, "observe");
}

static bool skip_without_unpatched(void)
{
    if (getenv(UNPATCHED)) {
        return false;
    }
    g_test_skip(UNPATCHED " is not set");
    return true;
}

static void test_stream_unpatched(void)
{
    if (!skip_without_unpatched()) {
        assert_same_stream(UNPATCHED, NULL);
    }
}

static void test_to_unpatched(void)
{
    Cvg c;

    if (skip_without_unpatched()) {
        return;
    }
    cvg_start_binaries(&c, NULL, UNPATCHED);
    migrate_set_capability(c.from, "convergence", true);
    cvg_listen(&c);
    cvg_migrate(&c);
    cvg_run_to(&c, &cvg_converging, "completed");
    cvg_assert_memory(&c);
    qobject_unref(cvg_assert_history(&c, "completed"));
    cvg_free(&c);
}

static void test_from_unpatched(void)
{
    g_autoptr(QList) history = NULL;
    Cvg c;

    if (skip_without_unpatched()) {
        return;
    }
    cvg_start_binaries(&c, UNPATCHED, NULL);
    migrate_set_capability(c.to, "convergence", true);
    cvg_listen(&c);
    cvg_migrate(&c);
    cvg_run_to(&c, NULL, "completed");
    cvg_assert_memory(&c);
    history = cvg_history(c.to);
    g_assert_cmpstr(qdict_get_str(cvg_last_record(history), "outcome"), ==,
                    "completed");
    cvg_free(&c);
}

void cvg_add_history_tests(void)
{
    qtest_add_func("migration-history/both-sides", test_both_sides);
    qtest_add_func("migration-history/ids", test_ids);
    qtest_add_func("migration-history/length", test_length);
    qtest_add_func("migration-history/many-passes", test_many_passes);
    qtest_add_func("migration-history/hmp", test_hmp);
    qtest_add_func("migration-history/snapshot", test_snapshot);
}

void cvg_add_stream_tests(void)
{
    qtest_add_func("convergence/stream/observe", test_stream_observe);
    qtest_add_func("convergence/stream/unpatched", test_stream_unpatched);
    qtest_add_func("convergence/stream/to-unpatched", test_to_unpatched);
    qtest_add_func("convergence/stream/from-unpatched", test_from_unpatched);
}
