/*
 * Helpers for tests of migration convergence and history
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib-unix.h>
#include "migration/convergence-util.h"
#include "migration/migration-qmp.h"
#include "vm-quiesce-util.h"

/* The longest that any wait may take */
#define TIMEOUT_US  (120 * G_USEC_PER_SEC)

const CvgLoad cvg_diverging = {
    .size = 8 * MiB,
    .rate = 256 * MiB,
};

const CvgLoad cvg_converging = {
    .size = 8 * MiB,
    .rate = 16 * MiB,
    .passes = 2,
};

const CvgLoad cvg_hot = {
    .size = 11 * MiB,
    .rate = 8 * MiB,
    .passes = 2,
    .hot = 256 * KiB,
};

static bool on_event(QTestState *qts, const char *name, QDict *event,
                     void *opaque)
{
    Cvg *c = opaque;

    if (g_str_equal(name, "MIGRATION_CONVERGENCE")) {
        qlist_append(c->events, qobject_ref(qdict_get_qdict(event, "data")));
        return true;
    }
    return false;
}

static char *make_content(void)
{
    uint32_t *data = g_malloc(CVG_CONTENT_SIZE);
    int i;

    for (i = 0; i < CVG_CONTENT_SIZE / sizeof(*data); i++) {
        data[i] = g_test_rand_int();
    }
    return (char *)data;
}

static QTestState *start(Cvg *c, const char *binary, const char *args)
{
    g_autofree char *all = g_strdup_printf("-machine pc -nodefaults -m %d %s",
                                           (int)(CVG_RAM / MiB), args);
    QTestState *qts = qtest_init_ext(binary, all, NULL, true);

    qtest_qmp_set_event_callback(qts, on_event, c);
    migrate_set_capability(qts, "events", true);
    return qts;
}

static void start_source(Cvg *c, const char *binary, const char *args)
{
    g_autofree char *content = vmq_tmpfile("content");
    g_autofree char *all = g_strdup_printf(
        "-device loader,file=%s,addr=%d,force-raw=on %s",
        content, (int)CVG_CONTENT, args);

    *c = (Cvg) {
        .fd = -1,
        .events = qlist_new(),
        .pattern = g_test_rand_int(),
        .before = make_content(),
    };
    g_assert_true(g_file_set_contents(content, c->before, CVG_CONTENT_SIZE,
                                      NULL));
    c->from = start(c, binary, all);
    migrate_set_parameter_int(c->from, "max-bandwidth", CVG_BANDWIDTH);
    migrate_set_parameter_int(c->from, "avail-switchover-bandwidth",
                              2 * CVG_BANDWIDTH);
    migrate_set_parameter_int(c->from, "downtime-limit", 40);
    unlink(content);
}

void cvg_start_source(Cvg *c, const char *args)
{
    start_source(c, NULL, args);
}

void cvg_start_destination(Cvg *c, const char *args)
{
    g_autofree char *all = g_strdup_printf("-incoming defer %s", args);

    c->to = start(c, NULL, all);
}

void cvg_start_binaries(Cvg *c, const char *from, const char *to)
{
    start_source(c, from, "");
    c->to = start(c, to, "-incoming defer");
}

void cvg_start(Cvg *c, const char *args)
{
    cvg_start_source(c, args);
    cvg_start_destination(c, args);
}

void cvg_listen(Cvg *c)
{
    g_autofree char *path = vmq_tmpfile("socket");

    g_free(c->uri);
    c->uri = g_strdup_printf("unix:%s", path);
    migrate_incoming_qmp(c->to, c->uri, NULL, "{ 'exit-on-error': false }");
}

void cvg_free(Cvg *c)
{
    g_autofree char *path = vmq_tmpfile("socket");

    if (c->fd >= 0) {
        close(c->fd);
    }
    qtest_quit(c->from);
    if (c->to) {
        qtest_quit(c->to);
    }
    unlink(path);
    qobject_unref(c->events);
    g_free(c->uri);
    g_free(c->status);
    g_free(c->before);
}

void cvg_set_capability(Cvg *c, const char *name)
{
    migrate_set_capability(c->from, name, true);
    if (c->to) {
        migrate_set_capability(c->to, name, true);
    }
}

void cvg_migrate(Cvg *c)
{
    QDict *rsp;

    qobject_unref(c->events);
    c->events = qlist_new();
    c->last_us = g_get_monotonic_time();
    c->at = 0;
    while (true) {
        rsp = qtest_qmp(c->from, "{ 'execute': 'migrate',"
                        "  'arguments': { 'uri': %s } }", c->uri);
        if (qdict_haskey(rsp, "return")) {
            break;
        }
        vmq_assert_error(rsp, "The previous migration has not ended yet");
        g_usleep(1000);
    }
    qobject_unref(rsp);
}

void cvg_migrate_here(Cvg *c)
{
    g_autofree char *path = vmq_tmpfile("socket");
    int server = qtest_socket_server(path);

    g_free(c->uri);
    c->uri = g_strdup_printf("unix:%s", path);
    cvg_migrate(c);
    c->fd = accept(server, NULL, NULL);
    g_assert_cmpint(c->fd, >=, 0);
    g_assert_true(g_unix_set_fd_nonblocking(c->fd, true, NULL));
    close(server);
    unlink(path);
}

/* Up to 1 MiB: what comes later waits until the next call */
static void read_some(Cvg *c)
{
    static char buf[64 * KiB];
    int i;

    for (i = 0; i < MiB / sizeof(buf); i++) {
        if (RETRY_ON_EINTR(read(c->fd, buf, sizeof(buf))) <= 0) {
            break;
        }
    }
}

int cvg_passes(Cvg *c)
{
    return qlist_size(c->events);
}

QDict *cvg_last_pass(Cvg *c)
{
    const QListEntry *e, *last = NULL;

    QLIST_FOREACH_ENTRY(c->events, e) {
        last = e;
    }
    g_assert_nonnull(last);
    return qdict_get_qdict(qobject_to(QDict, qlist_entry_obj(last)), "pass");
}

static void write_range(Cvg *c, CvgRange *range, uint64_t at, uint64_t size)
{
    *range = (CvgRange) { at, size };
    if (size) {
        qtest_memset(c->from, CVG_CONTENT + at, c->pattern, size);
    }
}

static void write_some(Cvg *c, const CvgLoad *load)
{
    int64_t now = g_get_monotonic_time();
    uint64_t bytes = load->rate * (now - c->last_us) / G_USEC_PER_SEC;
    uint64_t first;
    int i;

    bytes = ROUND_UP(MIN(bytes, load->size), CVG_PAGE);
    if (load->passes && cvg_passes(c) >= load->passes) {
        bytes = 0;
    }
    first = MIN(bytes, load->size - c->at);

    for (i = 0; i < ARRAY_SIZE(c->last); i++) {
        memset(c->before + c->last[i].at, c->pattern, c->last[i].size);
    }
    c->last_us = now;
    /* A zero page is next to nothing to be sent */
    c->pattern = c->pattern % UINT8_MAX + 1;
    write_range(c, &c->last[0], CVG_CONTENT_SIZE - load->hot, load->hot);
    write_range(c, &c->last[1], c->at, first);
    write_range(c, &c->last[2], 0, bytes - first);
    c->at = (c->at + bytes) % load->size;
}

static bool is_over(const char *status)
{
    return g_str_equal(status, "completed") ||
           g_str_equal(status, "failed") || g_str_equal(status, "cancelled");
}

static void look(Cvg *c)
{
    g_autoptr(QDict) info = migrate_query(c->from);

    g_free(c->status);
    c->status = g_strdup(qdict_get_try_str(info, "status") ?: "none");
    c->throttle = qdict_get_try_int(info, "cpu-throttle-percentage", 0);
}

bool cvg_is(Cvg *c, bool (*until)(Cvg *c))
{
    look(c);
    return until(c);
}

bool cvg_run(Cvg *c, const CvgLoad *load, bool (*until)(Cvg *c))
{
    int64_t end = g_get_monotonic_time() + TIMEOUT_US;

    while (true) {
        look(c);
        if (until && until(c)) {
            return true;
        }
        if (is_over(c->status)) {
            return !until;
        }
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        /* The guest is stopped in the other states; the test is part of it */
        if (load && g_str_equal(c->status, "active")) {
            write_some(c, load);
        }
        if (c->fd >= 0) {
            read_some(c);
        }
        g_usleep(1000);
    }
}

bool cvg_until_active(Cvg *c)
{
    return g_str_equal(c->status, "active");
}

bool cvg_until_throttled(Cvg *c)
{
    return c->throttle && g_str_equal(c->status, "active");
}

bool cvg_until_withheld(Cvg *c)
{
    /* Decided, and in force until the next pass at least */
    return cvg_passes(c) && g_str_equal(c->status, "active") &&
           g_str_equal(qdict_get_str(cvg_last_pass(c), "decision"), "withhold");
}

bool cvg_until_pre_switchover(Cvg *c)
{
    return g_str_equal(c->status, "pre-switchover");
}

void cvg_run_to(Cvg *c, const CvgLoad *load, const char *status)
{
    g_assert_true(cvg_run(c, load, NULL));
    if (g_str_equal(c->status, "failed") && !g_str_equal(status, "failed")) {
        g_autofree char *error = cvg_error(c->from);

        g_test_message("failed: %s", error);
    }
    g_assert_cmpstr(c->status, ==, status);
}

static char *memory(QTestState *qts)
{
    g_autofree char *path = vmq_tmpfile("memory");
    char *data;
    gsize len;

    qtest_qmp_assert_success(qts, "{ 'execute': 'pmemsave', 'arguments': {"
                             "  'val': %d, 'size': %d, 'filename': %s } }",
                             (int)(1 * MiB), (int)(CVG_RAM - 1 * MiB), path);
    g_assert_true(g_file_get_contents(path, &data, &len, NULL));
    g_assert_cmpint(len, ==, CVG_RAM - 1 * MiB);
    unlink(path);
    return data;
}

static bool written_last(Cvg *c, uint64_t at)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(c->last); i++) {
        if (at >= c->last[i].at && at < c->last[i].at + c->last[i].size) {
            return true;
        }
    }
    return false;
}

/* Whether @to is right for the page at @at, of which the source has @from */
static bool page_arrived(Cvg *c, uint64_t at, const char *from, const char *to)
{
    int i;

    if (!memcmp(from, to, CVG_PAGE)) {
        return true;
    }
    if (!written_last(c, at)) {
        return false;
    }
    /* Perhaps it was being sent then */
    for (i = 0; i < CVG_PAGE; i++) {
        if (to[i] != from[i] && to[i] != c->before[at + i]) {
            return false;
        }
    }
    return true;
}

void cvg_assert_memory(Cvg *c)
{
    g_autofree char *from = NULL, *to = NULL;
    uint64_t at;
    int differ = 0;

    qtest_qmp_eventwait(c->to, "RESUME");
    from = memory(c->from);
    to = memory(c->to);
    for (at = 0; at < CVG_RAM - 1 * MiB; at += CVG_PAGE) {
        if (!page_arrived(c, at, from + at, to + at)) {
            g_test_message("the page at 0x%" PRIx64 " differs",
                           CVG_CONTENT + at);
            differ++;
        }
    }
    g_assert_cmpint(differ, ==, 0);
}

void cvg_assert_recovered(Cvg *c)
{
    vmq_assert_status(c->from, "running");

    /* The throttle is told only while a migration is active */
    migrate_set_capability(c->from, "convergence", false);
    migrate_set_parameter_int(c->from, "max-bandwidth", 4096);
    g_free(c->uri);
    c->uri = g_strdup("exec:cat > /dev/null");
    cvg_migrate(c);
    g_assert_true(cvg_run(c, NULL, cvg_until_active));
    g_assert_cmpint(c->throttle, ==, 0);
    migrate_cancel(c->from);
    cvg_run_to(c, NULL, "cancelled");
    g_assert_cmpint(cvg_passes(c), ==, 0);
    vmq_assert_status(c->from, "running");
}

QList *cvg_history(QTestState *qts)
{
    QDict *rsp = qtest_qmp(qts, "{ 'execute': 'query-migration-history' }");
    QList *list;

    g_assert_true(qdict_haskey(rsp, "return"));
    list = qobject_ref(qdict_get_qlist(rsp, "return"));
    qobject_unref(rsp);
    return list;
}

QDict *cvg_last_record(QList *history)
{
    const QListEntry *e, *last = NULL;

    QLIST_FOREACH_ENTRY(history, e) {
        last = e;
    }
    g_assert_nonnull(last);
    return qobject_to(QDict, qlist_entry_obj(last));
}

size_t cvg_history_length(QTestState *qts)
{
    g_autoptr(QList) history = cvg_history(qts);

    return qlist_size(history);
}

static bool is_final(const char *decision)
{
    return g_str_equal(decision, "switch-over") ||
           g_str_equal(decision, "postcopy") || g_str_equal(decision, "abort");
}

static void assert_sent(const QDict *p, const QDict *last)
{
    uint64_t sent = qdict_get_int(p, "pages-sent");

    g_assert_cmpint(sent, <=, last ? qdict_get_int(last, "pages-remaining") :
                                     (CVG_RAM + 16 * MiB) / CVG_PAGE);
    /* Headers and markers besides, many of them when nothing is to be sent */
    g_assert_cmpint(qdict_get_int(p, "bytes-sent"), <=,
                    sent * (CVG_PAGE + 64) + MiB);
}

/* What holds between a pass and the one before, NULL for the first */
static void assert_pass(const QDict *p, const QDict *last, bool enforced)
{
    uint64_t remaining = qdict_get_int(p, "pages-remaining");

    g_assert_cmpint(qdict_get_int(p, "pass"), ==,
                    last ? qdict_get_int(last, "pass") + 1 : 1);
    g_assert_cmpint(qdict_get_int(p, "page-size"), ==, CVG_PAGE);
    g_assert_cmpint(qdict_get_int(p, "pages-withheld"), <=, remaining);
    g_assert_cmpint(remaining, <=, (CVG_RAM + 16 * MiB) / CVG_PAGE);
    g_assert_cmpint(qdict_get_int(p, "throttle"), <=, 99);
    g_assert_cmpint(qdict_get_int(p, "next-throttle"), <=, 99);
    g_assert_cmpstr(qdict_get_str(p, "reason"), !=, "");
    g_assert_cmpint(qdict_haskey(p, "pages-remaining-last"), ==, !!last);
    if (enforced) {
        g_assert_cmpint(qdict_get_int(p, "pages-dirtied"), <=, remaining);
    }
    if (!last) {
        return;
    }
    g_assert_cmpint(qdict_get_int(p, "pages-remaining-last"), ==,
                    qdict_get_int(last, "pages-remaining"));
    g_assert_cmpint(qdict_get_int(p, "time"), >=,
                    qdict_get_int(last, "time"));
    if (enforced) {
        g_assert_cmpint(qdict_get_int(p, "throttle"), ==,
                        qdict_get_int(last, "next-throttle"));
        g_assert_false(is_final(qdict_get_str(last, "decision")));
    } else {
        g_assert_cmpint(qdict_get_int(p, "pages-withheld"), ==, 0);
    }
}

static void assert_passes(Cvg *c, const QDict *record)
{
    const char *mode = qdict_get_str(record, "mode");
    bool enforced = g_str_equal(mode, "enforce");
    QList *passes = qdict_get_qlist(record, "passes");
    const QListEntry *in_record = qlist_first(passes), *e;
    const QDict *last = NULL;
    uint64_t bytes = 0;

    QLIST_FOREACH_ENTRY(c->events, e) {
        QDict *event = qobject_to(QDict, qlist_entry_obj(e));
        QDict *pass = qdict_get_qdict(event, "pass");

        g_assert_cmpstr(qdict_get_str(event, "id"), ==,
                        qdict_get_str(record, "id"));
        g_assert_cmpstr(qdict_get_str(event, "mode"), ==, mode);
        /* In mode observe, several short ones may be reported as one */
        assert_pass(pass, last, enforced);
        if (enforced && !c->counts_late) {
            assert_sent(pass, last);
        }
        if (qdict_get_int(record, "passes-dropped") == 0) {
            g_assert_nonnull(in_record);
            g_assert_true(qobject_is_equal(QOBJECT(pass),
                                           qlist_entry_obj(in_record)));
            in_record = qlist_next(in_record);
        }
        bytes += qdict_get_int(pass, "bytes-sent");
        last = pass;
    }
    g_assert_cmpint(bytes, <=, qdict_get_int(record, "bytes"));
    g_assert_cmpint(qlist_size(passes) +
                    qdict_get_int(record, "passes-dropped"), ==,
                    cvg_passes(c));
}

QDict *cvg_assert_history(Cvg *c, const char *outcome)
{
    g_autoptr(QList) history = cvg_history(c->from);
    QDict *record = qobject_ref(cvg_last_record(history));

    g_assert_cmpstr(qdict_get_str(record, "outcome"), ==, outcome);
    g_assert_cmpstr(qdict_get_str(record, "direction"), ==, "outgoing");
    g_assert_cmpint(qdict_haskey(record, "error"), ==,
                    g_str_equal(outcome, "failed"));
    g_assert_cmpint(qdict_get_int(record, "start") / 1000, <=,
                    g_get_real_time() / G_USEC_PER_SEC);
    if (g_str_equal(outcome, "completed")) {
        g_assert_true(qdict_haskey(record, "downtime"));
    }
    if (cvg_passes(c)) {
        g_assert_true(qdict_haskey(record, "mode"));
        assert_passes(c, record);
    }
    return record;
}

void cvg_assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part)) {
        g_error("\"%s\" does not contain \"%s\"", text, part);
    }
}

char *cvg_error(QTestState *qts)
{
    g_autoptr(QDict) info = migrate_query(qts);

    g_assert_true(qdict_haskey(info, "error-desc"));
    return g_strdup(qdict_get_str(info, "error-desc"));
}
