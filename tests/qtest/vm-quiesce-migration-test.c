/*
 * Test of the quiesced run state: a quiesced VM's state in a file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qdict.h"
#include "vm-quiesce-util.h"

#define MEMORY 0x200000

/* A VM with a disk, quiesced, with its state in @file */
typedef struct Saved {
    QTestState *qts;
    char *image;
    char *file;
    char *uri;
    char *token;
} Saved;

static QTestState *start(const char *image, const char *args)
{
    return qtest_initf("-machine pc -m 16 "
                       "-blockdev file,node-name=file,filename=%s "
                       "-blockdev qcow2,node-name=disk,file=file "
                       "-device virtio-blk-pci,id=dev,drive=disk %s",
                       image, args);
}

static void set_capability(QTestState *qts, const char *name)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate-set-capabilities',"
                             "  'arguments': { 'capabilities': [ {"
                             "    'capability': %s, 'state': true } ] } }",
                             name);
}

static void saved_make(Saved *s, const char *capability)
{
    s->image = vmq_make_image("qcow2", VMQ_IMAGE_SIZE);
    s->file = vmq_tmpfile("state");
    s->uri = g_strdup_printf("file:%s", s->file);
    s->qts = start(s->image, "");

    qtest_memwrite(s->qts, MEMORY, "last words", 10);
    g_free(qtest_hmp(s->qts, "qemu-io -d /machine/peripheral/dev/virtio-backend"
                     " \"write -q -P 7 0 64k\""));
    s->token = vmq_quiesce(s->qts);
    if (capability) {
        set_capability(s->qts, capability);
    }
    vmq_migrate(s->qts, s->uri);
    vmq_assert_status(s->qts, "quiesced");
    g_assert_true(vmq_can_write(s->image, "qcow2"));
}

static void saved_free(Saved *s)
{
    if (s->qts) {
        qtest_quit(s->qts);
    }
    unlink(s->image);
    unlink(s->file);
    g_free(s->image);
    g_free(s->file);
    g_free(s->uri);
    g_free(s->token);
}

/* Load the state; the process must not touch the disk, nor run */
static QTestState *load(Saved *s, const char *capability)
{
    QTestState *qts = start(s->image, "-incoming defer");
    char data[10];
    QDict *info;

    if (capability) {
        set_capability(qts, capability);
    }
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate-incoming',"
                             "  'arguments': { 'uri': %s } }", s->uri);
    info = vmq_wait(qts, "VM_QUIESCED", s->token);
    g_assert_cmpstr(qdict_get_str(info, "reason"), ==, "test");
    g_assert_cmpstr(qdict_get_str(info, "previous-status"), ==, "inmigrate");
    qobject_unref(info);
    vmq_assert_status(qts, "quiesced");
    g_assert_true(vmq_can_write(s->image, "qcow2"));
    qtest_memread(qts, MEMORY, data, sizeof(data));
    g_assert_cmpmem(data, sizeof(data), "last words", 10);
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'cont' }"),
                     "is not permitted until 'vm-unquiesce'");
    return qts;
}

static void test_restore(const void *opaque)
{
    const char *capability = opaque;
    g_autofree char *reply = NULL;
    QTestState *other, *qts;
    Saved s;

    saved_make(&s, capability);
    qts = load(&s, capability);

    /* One at a time may have the disk */
    vmq_assert_unquiesce_fails(qts, "not the token", "does not match");
    other = start(s.image, "-S");
    vmq_assert_unquiesce_fails(qts, s.token, "Node '");
    vmq_assert_status(qts, "quiesced");
    qtest_quit(other);

    vmq_unquiesce(qts, s.token);
    vmq_assert_status(qts, "paused");
    g_assert_false(vmq_can_write(s.image, "qcow2"));
    vmq_assert_unquiesce_fails(s.qts, s.token, "Node '");
    vmq_cont(qts);
    reply = qtest_hmp(qts, "qemu-io -d /machine/peripheral/dev/virtio-backend "
                      "\"read -q -P 7 0 64k\"");
    g_assert_cmpstr(reply, ==, "");

    /* As any VM */
    g_free(vmq_quiesce(qts));
    qtest_quit(qts);
    saved_free(&s);
}

/*
 * By -incoming on the command line, without -S: the event may be sent before
 * the monitor's client is ready for it, the state is there to be queried
 */
static void test_restore_autostart(void)
{
    g_autofree char *args = NULL;
    QTestState *qts;
    QDict *info;
    Saved s;

    saved_make(&s, NULL);
    qtest_quit(s.qts);
    s.qts = NULL;
    args = g_strdup_printf("-incoming %s", s.uri);
    qts = start(s.image, args);
    vmq_wait_status(qts, "quiesced");
    info = qtest_qmp_assert_success_ref(qts,
                                        "{ 'execute': 'query-vm-quiesce' }");
    g_assert_cmpstr(qdict_get_str(info, "token"), ==, s.token);
    qobject_unref(info);
    g_assert_true(vmq_can_write(s.image, "qcow2"));
    vmq_unquiesce(qts, s.token);
    vmq_assert_status(qts, "paused");
    qtest_quit(qts);
    saved_free(&s);
}

/* The need for a reset, and being quiesced, survive a second round */
static void test_restore_twice(void)
{
    QTestState *first, *second;
    Saved s;

    saved_make(&s, NULL);
    first = load(&s, NULL);
    vmq_migrate(first, s.uri);
    second = load(&s, NULL);
    qtest_quit(first);
    vmq_unquiesce(second, s.token);
    qtest_quit(second);
    saved_free(&s);
}

/* Only to a file, and only in the plain way */
static void test_refused(void)
{
    static const char *const uris[] = {
        "tcp:127.0.0.1:1", "unix:/nonexistent", "exec:cat", "fd:none",
    };
    g_autofree char *token = NULL, *before = NULL, *after = NULL;
    g_autofree char *image = vmq_make_image("qcow2", VMQ_IMAGE_SIZE);
    QTestState *qts = start(image, "");
    int i;

    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'migrate', 'arguments': {"
                               "  'uri': 'file:/nonexistent/file' } }"),
                     "No such file");
    token = vmq_quiesce(qts);
    before = vmq_checksum(image);
    for (i = 0; i < ARRAY_SIZE(uris); i++) {
        vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'migrate',"
                                   "  'arguments': { 'uri': %s } }", uris[i]),
                         "can only be migrated to a file");
    }
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'migrate', 'arguments': {"
                               "  'uri': 'file:/nonexistent/file' } }"),
                     "No such file");
    vmq_assert_status(qts, "quiesced");
    set_capability(qts, "postcopy-ram");
    vmq_assert_error(qtest_qmp(qts, "{ 'execute': 'migrate',"
                               "  'arguments': { 'uri': 'file:/dev/null' } }"),
                     "without postcopy");
    after = vmq_checksum(image);
    g_assert_cmpstr(before, ==, after);
    vmq_unquiesce(qts, token);
    vmq_cont(qts);
    qtest_quit(qts);
    unlink(image);
}

/* While it is being written, the VM must not change */
static void test_unquiesce_refused(void)
{
    g_autofree char *image = vmq_make_image("qcow2", VMQ_IMAGE_SIZE);
    g_autofree char *file = vmq_tmpfile("state");
    g_autofree char *uri = g_strdup_printf("file:%s", file);
    QTestState *qts = start(image, "");
    g_autofree char *token = NULL;

    qtest_memset(qts, 0x100000, 0xa5, 8 << 20);
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate-set-parameters',"
                             "  'arguments': { 'max-bandwidth': 4096 } }");
    token = vmq_quiesce(qts);
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate',"
                             "  'arguments': { 'uri': %s } }", uri);
    vmq_wait_migration(qts, "active");
    vmq_assert_unquiesce_fails(qts, token, "is being written to a file");
    vmq_assert_status(qts, "quiesced");
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate_cancel' }");
    vmq_wait_migration(qts, "cancelled");
    vmq_assert_status(qts, "quiesced");
    g_assert_true(vmq_can_write(image, "qcow2"));
    vmq_unquiesce(qts, token);
    vmq_assert_status(qts, "paused");
    qtest_quit(qts);
    unlink(image);
    unlink(file);
}

typedef struct StreamCase {
    const char *name;
    /* What is in the stream, and what it is exchanged for */
    const char *old, *new;
} StreamCase;

static const StreamCase stream_cases[] = {
    /* The token is the only UUID in the stream, this is its 15th byte */
    { "token", NULL, "x" },
    { "reason", "test", "\0\0\0\0" },
    { "section", "vm-quiesce", "no-quiesce" },
    { "run-state", "quiesced", "quiesceX" },
};

/* A stream that is not right is refused, with one error, by a live process */
static void test_stream(const void *opaque)
{
    const StreamCase *c = opaque;
    g_autofree char *data = NULL;
    const char *old;
    QTestState *qts;
    char *at;
    gsize len;
    Saved s;

    saved_make(&s, NULL);
    g_assert_true(g_file_get_contents(s.file, &data, &len, NULL));
    old = c->old ?: s.token + 14;
    /* After the section's name, its content */
    at = memmem(data, len, "vm-quiesce", 10);
    g_assert_nonnull(at);
    at = memmem(at, len - (at - data), old, strlen(old));
    g_assert_nonnull(at);
    memcpy(at, c->new, c->old ? strlen(old) : 1);
    g_assert_true(g_file_set_contents(s.file, data, len, NULL));

    qts = start(s.image, "-incoming defer");
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate-incoming',"
                             "  'arguments': { 'uri': %s,"
                             "    'exit-on-error': false } }", s.uri);
    vmq_wait_migration(qts, "failed");
    vmq_assert_status(qts, "inmigrate");
    g_assert_true(vmq_can_write(s.image, "qcow2"));
    qtest_quit(qts);
    saved_free(&s);
}

int main(int argc, char **argv)
{
    int i;

    g_test_init(&argc, &argv, NULL);
    vmq_tmpdir_make();

    qtest_add_data_func("vm-quiesce/migration/restore", NULL, test_restore);
    qtest_add_data_func("vm-quiesce/migration/restore-mapped-ram",
                        "mapped-ram", test_restore);
    qtest_add_func("vm-quiesce/migration/restore-autostart",
                   test_restore_autostart);
    qtest_add_func("vm-quiesce/migration/restore-twice", test_restore_twice);
    qtest_add_func("vm-quiesce/migration/refused", test_refused);
    qtest_add_func("vm-quiesce/migration/unquiesce-refused",
                   test_unquiesce_refused);
    for (i = 0; i < ARRAY_SIZE(stream_cases); i++) {
        g_autofree char *path = g_strdup_printf(
            "vm-quiesce/migration/stream/%s", stream_cases[i].name);

        qtest_add_data_func(path, &stream_cases[i], test_stream);
    }

    i = g_test_run();
    vmq_tmpdir_remove();
    return i;
}
