/*
 * Unit test for the quiesced run state's phase machine
 *
 * Participants are fakes that answer as a test case tells them, and log what
 * they are asked.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/util.h"
#include "../../system/vm-quiesce-core.h"

#define DEADLINE 100

typedef struct Fake {
    VMQuiesceParticipant p;
    /* What poll() answers in each phase */
    VMQuiesceResult result[VM_QUIESCE_PHASE__MAX];
    bool release_fails;
    bool undo_fails;
    bool released;
} Fake;

typedef struct Fixture {
    VMQuiesce q;
    Fake vcpus, net, block;
} Fixture;

static GString *calls;

static void fake_stop(VMQuiesceParticipant *p)
{
    g_string_append_printf(calls, "%s.stop ", p->name);
}

static VMQuiesceResult fake_poll(VMQuiesceParticipant *p, VmQuiescePhase phase,
                                 Error **errp)
{
    VMQuiesceResult result = container_of(p, Fake, p)->result[phase];

    g_string_append_printf(calls, "%s.%s ", p->name,
                           VmQuiescePhase_str(phase));
    if (result != VM_QUIESCE_DONE) {
        error_setg(errp, "%s in %s", p->name, VmQuiescePhase_str(phase));
    }
    return result;
}

static VmQuiesceRequestsList *fake_requests(VMQuiesceParticipant *p)
{
    VmQuiesceRequestsList *list = NULL;
    VmQuiesceRequests *r = g_new0(VmQuiesceRequests, 1);

    r->node_name = g_strdup(p->name);
    r->count = 3;
    QAPI_LIST_PREPEND(list, r);
    return list;
}

static bool fake_release(VMQuiesceParticipant *p, Error **errp)
{
    Fake *f = container_of(p, Fake, p);

    g_string_append_printf(calls, "%s.release ", p->name);
    if (f->release_fails) {
        f->released = false;
        error_setg(errp, "%s stays", p->name);
        return false;
    }
    f->released = true;
    return true;
}

static bool fake_undo(VMQuiesceParticipant *p, Error **errp)
{
    Fake *f = container_of(p, Fake, p);

    g_string_append_printf(calls, "%s.undo ", p->name);
    if (f->undo_fails) {
        error_setg(errp, "%s is locked", p->name);
        return false;
    }
    f->released = false;
    return true;
}

static void fake_init(Fake *f, const char *name, VMQuiesceOrder order)
{
    f->p = (VMQuiesceParticipant) {
        .name = name,
        .order = order,
        .stop = fake_stop,
        .poll = fake_poll,
        .release = fake_release,
        .undo = fake_undo,
    };
}

static void setup(Fixture *t, const void *opaque)
{
    QTAILQ_INIT(&t->q.participants);
    fake_init(&t->block, "block", VM_QUIESCE_ORDER_BLOCK);
    fake_init(&t->net, "net", VM_QUIESCE_ORDER_BACKENDS);
    fake_init(&t->vcpus, "vcpus", VM_QUIESCE_ORDER_VCPUS);
    vm_quiesce_core_add(&t->q, &t->block.p);
    vm_quiesce_core_add(&t->q, &t->net.p);
    vm_quiesce_core_add(&t->q, &t->vcpus.p);
    calls = g_string_new(NULL);
}

static void teardown(Fixture *t, const void *opaque)
{
    VMQuiesceParticipant *p;

    QTAILQ_FOREACH(p, &t->q.participants, next) {
        g_free(p->error);
    }
    g_string_free(calls, true);
}

static void assert_calls(const char *expected)
{
    g_assert_cmpstr(calls->str, ==, expected);
    g_string_truncate(calls, 0);
}

static void assert_error(Error **err, const char *expected)
{
    g_assert_nonnull(*err);
    g_assert_cmpstr(error_get_pretty(*err), ==, expected);
    error_free(*err);
    *err = NULL;
}

static void start(Fixture *t, int64_t now)
{
    g_assert_true(vm_quiesce_core_start(&t->q, now, DEADLINE, &error_abort));
}

static void assert_step(Fixture *t, int64_t now, VMQuiesceOutcome outcome,
                        VmQuiescePhase phase)
{
    g_assert_cmpint(vm_quiesce_core_step(&t->q, now), ==, outcome);
    g_assert_cmpint(vm_quiesce_core_phase(&t->q), ==, phase);
}

static void test_success(Fixture *t, const void *opaque)
{
    assert_step(t, 0, VM_QUIESCE_OUTCOME_NONE, VM_QUIESCE_PHASE_NONE);
    assert_calls("");

    start(t, 1000);
    g_assert_cmpint(vm_quiesce_core_phase(&t->q), ==, VM_QUIESCE_PHASE_STOP);
    assert_calls("vcpus.stop net.stop block.stop ");

    assert_step(t, 1007, VM_QUIESCE_OUTCOME_QUIESCED,
                VM_QUIESCE_PHASE_QUIESCED);
    assert_calls("vcpus.stop net.stop block.stop "
                 "vcpus.drain net.drain block.drain "
                 "vcpus.flush net.flush block.flush "
                 "vcpus.release net.release block.release ");
    g_assert_cmpint(t->q.start_ms, ==, 1000);
    g_assert_cmpint(t->q.end_ms, ==, 1007);

    /* Told once, and the deadline is over */
    assert_step(t, 9999, VM_QUIESCE_OUTCOME_NONE, VM_QUIESCE_PHASE_QUIESCED);
    assert_calls("");

    g_assert_true(vm_quiesce_core_undo(&t->q, &error_abort));
    assert_calls("block.undo net.undo vcpus.undo ");
    g_assert_cmpint(vm_quiesce_core_phase(&t->q), ==, VM_QUIESCE_PHASE_NONE);

    start(t, 2000);
    assert_step(t, 2001, VM_QUIESCE_OUTCOME_QUIESCED,
                VM_QUIESCE_PHASE_QUIESCED);
}

static void test_optional_callbacks(Fixture *t, const void *opaque)
{
    VMQuiesceParticipant bare = { .name = "bare" };

    vm_quiesce_core_add(&t->q, &bare);
    start(t, 0);
    assert_step(t, 0, VM_QUIESCE_OUTCOME_QUIESCED, VM_QUIESCE_PHASE_QUIESCED);
    g_assert_cmpint(bare.state, ==, VM_QUIESCE_PARTICIPANT_STATE_CONTAINED);
    g_assert_true(vm_quiesce_core_undo(&t->q, &error_abort));
    g_assert_cmpint(bare.state, ==, VM_QUIESCE_PARTICIPANT_STATE_IDLE);
}

/* No phase begins before the one before it has ended for everyone */
static void test_busy(Fixture *t, const void *opaque)
{
    const VmQuiescePhase phases[] = {
        VM_QUIESCE_PHASE_STOP, VM_QUIESCE_PHASE_DRAIN, VM_QUIESCE_PHASE_FLUSH,
    };
    int i;

    start(t, 0);
    for (i = 0; i < ARRAY_SIZE(phases); i++) {
        g_autofree char *again = g_strdup_printf("net.%s ",
                                                 VmQuiescePhase_str(phases[i]));

        t->net.result[phases[i]] = VM_QUIESCE_BUSY;
        assert_step(t, 1, VM_QUIESCE_OUTCOME_NONE, phases[i]);
        g_string_truncate(calls, 0);
        assert_step(t, 2, VM_QUIESCE_OUTCOME_NONE, phases[i]);
        /* Those that are done are left alone */
        assert_calls(again);
        t->net.result[phases[i]] = VM_QUIESCE_DONE;
    }
    g_assert_false(t->vcpus.released || t->net.released || t->block.released);
    assert_step(t, 3, VM_QUIESCE_OUTCOME_QUIESCED, VM_QUIESCE_PHASE_QUIESCED);
}

static void test_deadline(Fixture *t, const void *opaque)
{
    VmQuiescePhase phase = GPOINTER_TO_INT(opaque);
    VmQuiesceParticipantList *open;

    t->net.result[phase] = VM_QUIESCE_BUSY;
    start(t, 1000);
    assert_step(t, 1000 + DEADLINE - 1, VM_QUIESCE_OUTCOME_NONE, phase);
    assert_step(t, 1000 + DEADLINE, VM_QUIESCE_OUTCOME_FAILED,
                VM_QUIESCE_PHASE_FAILED);

    open = vm_quiesce_core_query(&t->q, true);
    g_assert_nonnull(open);
    g_assert_cmpstr(open->value->name, ==, "net");
    g_assert_cmpint(open->value->state, ==,
                    VM_QUIESCE_PARTICIPANT_STATE_STOPPING);
    g_assert_nonnull(open->value->error);
    g_assert_null(open->next);
    qapi_free_VmQuiesceParticipantList(open);

    /* Told once; still waiting */
    assert_step(t, 2000, VM_QUIESCE_OUTCOME_NONE, VM_QUIESCE_PHASE_FAILED);

    /* What ends late leads to the state all the same */
    t->net.result[phase] = VM_QUIESCE_DONE;
    assert_step(t, 5000, VM_QUIESCE_OUTCOME_QUIESCED,
                VM_QUIESCE_PHASE_QUIESCED);
    g_assert_cmpint(t->q.end_ms, ==, 5000);
}

/* Requests are described while they are waited for, and only then */
static void test_requests(Fixture *t, const void *opaque)
{
    VmQuiesceParticipantList *list, *l;

    t->net.p.requests = fake_requests;
    t->block.p.requests = fake_requests;
    t->block.result[VM_QUIESCE_PHASE_DRAIN] = VM_QUIESCE_BUSY;
    start(t, 0);
    assert_step(t, 0, VM_QUIESCE_OUTCOME_NONE, VM_QUIESCE_PHASE_DRAIN);

    list = vm_quiesce_core_query(&t->q, false);
    for (l = list; l; l = l->next) {
        bool busy = g_str_equal(l->value->name, "block");

        g_assert_cmpint(l->value->has_requests, ==, busy);
        if (busy) {
            g_assert_cmpint(l->value->requests->value->count, ==, 3);
        }
    }
    qapi_free_VmQuiesceParticipantList(list);

    t->block.result[VM_QUIESCE_PHASE_DRAIN] = VM_QUIESCE_ERROR;
    assert_step(t, 1, VM_QUIESCE_OUTCOME_FAILED, VM_QUIESCE_PHASE_FAILED);
    list = vm_quiesce_core_query(&t->q, true);
    g_assert_false(list->value->has_requests);
    qapi_free_VmQuiesceParticipantList(list);
}

/* Whoever ends the process must know what it would wait for */
static void test_core_busy(Fixture *t, const void *opaque)
{
    VmQuiescePhase phase = GPOINTER_TO_INT(opaque);

    g_assert_false(vm_quiesce_core_busy(&t->q));

    t->net.result[phase] = VM_QUIESCE_BUSY;
    start(t, 0);
    assert_step(t, 0, VM_QUIESCE_OUTCOME_NONE, phase);
    g_assert_true(vm_quiesce_core_busy(&t->q));

    /* Also if there was an error besides */
    t->vcpus.result[phase] = VM_QUIESCE_ERROR;
    t->vcpus.p.done = false;
    assert_step(t, 1, VM_QUIESCE_OUTCOME_FAILED, VM_QUIESCE_PHASE_FAILED);
    g_assert_true(vm_quiesce_core_busy(&t->q));

    t->net.result[phase] = VM_QUIESCE_ERROR;
    start(t, 2);
    assert_step(t, 2, VM_QUIESCE_OUTCOME_FAILED, VM_QUIESCE_PHASE_FAILED);
    g_assert_false(vm_quiesce_core_busy(&t->q));

    t->net.result[phase] = VM_QUIESCE_DONE;
    t->vcpus.result[phase] = VM_QUIESCE_DONE;
    start(t, 3);
    assert_step(t, 3, VM_QUIESCE_OUTCOME_QUIESCED, VM_QUIESCE_PHASE_QUIESCED);
    g_assert_false(vm_quiesce_core_busy(&t->q));
}

static void test_deadline_again(Fixture *t, const void *opaque)
{
    t->net.result[VM_QUIESCE_PHASE_DRAIN] = VM_QUIESCE_BUSY;
    start(t, 0);
    assert_step(t, DEADLINE, VM_QUIESCE_OUTCOME_FAILED,
                VM_QUIESCE_PHASE_FAILED);
    g_string_truncate(calls, 0);

    start(t, 500);
    /* Nobody is stopped twice */
    assert_calls("");
    assert_step(t, 500 + DEADLINE - 1, VM_QUIESCE_OUTCOME_NONE,
                VM_QUIESCE_PHASE_DRAIN);
    assert_step(t, 500 + DEADLINE, VM_QUIESCE_OUTCOME_FAILED,
                VM_QUIESCE_PHASE_FAILED);
}

static void test_error(Fixture *t, const void *opaque)
{
    VmQuiescePhase phase = GPOINTER_TO_INT(opaque);

    t->net.result[phase] = VM_QUIESCE_ERROR;
    start(t, 0);
    /* Not before the deadline, but at once */
    assert_step(t, 1, VM_QUIESCE_OUTCOME_FAILED, VM_QUIESCE_PHASE_FAILED);
    g_assert_cmpint(t->net.p.state, ==, VM_QUIESCE_PARTICIPANT_STATE_FAILED);
    g_string_truncate(calls, 0);

    /* It rests until the next attempt, even if the cause has gone */
    t->net.result[phase] = VM_QUIESCE_DONE;
    assert_step(t, 2 * DEADLINE, VM_QUIESCE_OUTCOME_NONE,
                VM_QUIESCE_PHASE_FAILED);
    assert_calls("");

    start(t, 500);
    assert_step(t, 501, VM_QUIESCE_OUTCOME_QUIESCED,
                VM_QUIESCE_PHASE_QUIESCED);
}

static void test_release_error(Fixture *t, const void *opaque)
{
    t->net.release_fails = true;
    start(t, 0);
    assert_step(t, 1, VM_QUIESCE_OUTCOME_FAILED, VM_QUIESCE_PHASE_FAILED);
    g_assert_cmpstr(t->net.p.error, ==, "net stays");
    g_string_truncate(calls, 0);

    t->net.release_fails = false;
    start(t, 2);
    assert_step(t, 3, VM_QUIESCE_OUTCOME_QUIESCED, VM_QUIESCE_PHASE_QUIESCED);
    assert_calls("net.release ");
}

static void test_start_refused(Fixture *t, const void *opaque)
{
    Error *err = NULL;

    t->net.result[VM_QUIESCE_PHASE_DRAIN] = VM_QUIESCE_BUSY;
    start(t, 0);
    assert_step(t, 1, VM_QUIESCE_OUTCOME_NONE, VM_QUIESCE_PHASE_DRAIN);
    g_assert_false(vm_quiesce_core_start(&t->q, 50, 7, &err));
    assert_error(&err, "The VM is being quiesced already");
    g_assert_cmpint(t->q.start_ms, ==, 0);
    g_assert_cmpint(t->q.deadline_ms, ==, DEADLINE);

    t->net.result[VM_QUIESCE_PHASE_DRAIN] = VM_QUIESCE_DONE;
    assert_step(t, 2, VM_QUIESCE_OUTCOME_QUIESCED, VM_QUIESCE_PHASE_QUIESCED);
    g_assert_false(vm_quiesce_core_start(&t->q, 50, 7, &err));
    assert_error(&err, "The VM is quiesced already");
    g_assert_cmpint(vm_quiesce_core_phase(&t->q), ==,
                    VM_QUIESCE_PHASE_QUIESCED);
}

static void test_undo_refused(Fixture *t, const void *opaque)
{
    Error *err = NULL;

    g_assert_false(vm_quiesce_core_undo(&t->q, &err));
    assert_error(&err, "The VM is not quiesced");

    t->net.result[VM_QUIESCE_PHASE_DRAIN] = VM_QUIESCE_BUSY;
    start(t, 0);
    assert_step(t, 1, VM_QUIESCE_OUTCOME_NONE, VM_QUIESCE_PHASE_DRAIN);
    g_assert_false(vm_quiesce_core_undo(&t->q, &err));
    assert_error(&err, "The VM is still being quiesced");

    /* Devices were not told that the VM has stopped, and cannot be yet */
    assert_step(t, DEADLINE, VM_QUIESCE_OUTCOME_FAILED,
                VM_QUIESCE_PHASE_FAILED);
    g_assert_false(vm_quiesce_core_undo(&t->q, &err));
    assert_error(&err, "Quiescing cannot be undone yet: net: net in drain");
    g_assert_cmpint(vm_quiesce_core_phase(&t->q), ==, VM_QUIESCE_PHASE_FAILED);
}

static void test_undo_failed(Fixture *t, const void *opaque)
{
    VmQuiescePhase phase = GPOINTER_TO_INT(opaque);

    if (phase == VM_QUIESCE_PHASE_RELEASE) {
        t->net.release_fails = true;
    } else {
        t->net.result[phase] = VM_QUIESCE_ERROR;
    }
    start(t, 0);
    assert_step(t, 1, VM_QUIESCE_OUTCOME_FAILED, VM_QUIESCE_PHASE_FAILED);
    g_assert_true(vm_quiesce_core_undo(&t->q, &error_abort));
    g_assert_cmpint(vm_quiesce_core_phase(&t->q), ==, VM_QUIESCE_PHASE_NONE);
    assert_step(t, 2 * DEADLINE, VM_QUIESCE_OUTCOME_NONE,
                VM_QUIESCE_PHASE_NONE);
}

static void test_undo_error(Fixture *t, const void *opaque)
{
    Error *err = NULL;

    start(t, 0);
    assert_step(t, 1, VM_QUIESCE_OUTCOME_QUIESCED, VM_QUIESCE_PHASE_QUIESCED);
    g_string_truncate(calls, 0);

    t->block.undo_fails = true;
    g_assert_false(vm_quiesce_core_undo(&t->q, &err));
    assert_error(&err, "block is locked");
    /* What it has undone is contained again */
    assert_calls("block.undo block.release ");
    g_assert_cmpint(vm_quiesce_core_phase(&t->q), ==,
                    VM_QUIESCE_PHASE_QUIESCED);
    g_assert_true(t->vcpus.released && t->net.released && t->block.released);

    t->block.undo_fails = false;
    g_assert_true(vm_quiesce_core_undo(&t->q, &error_abort));
}

/* An undo that fails, and cannot be taken back, is a failure */
static void test_undo_lost(Fixture *t, const void *opaque)
{
    Error *err = NULL;

    start(t, 0);
    assert_step(t, 1, VM_QUIESCE_OUTCOME_QUIESCED, VM_QUIESCE_PHASE_QUIESCED);

    t->block.undo_fails = true;
    t->block.release_fails = true;
    g_assert_false(vm_quiesce_core_undo(&t->q, &err));
    assert_error(&err, "block is locked");
    assert_step(t, 2, VM_QUIESCE_OUTCOME_NONE, VM_QUIESCE_PHASE_FAILED);
    g_assert_cmpstr(t->block.p.error, ==, "block stays");

    t->block.release_fails = false;
    start(t, 3);
    assert_step(t, 4, VM_QUIESCE_OUTCOME_QUIESCED, VM_QUIESCE_PHASE_QUIESCED);
}

/*
 * Whatever participants answer and whenever: the state is reached only when
 * all have released, it is told once an attempt, and so is a failure.
 */
static void test_random(Fixture *t, const void *opaque)
{
    Fake *fakes[] = { &t->vcpus, &t->net, &t->block };
    int64_t now = 0;
    bool told = false, failed = false;
    int i, j, quiesced = 0;

    for (i = 0; i < 20000; i++) {
        for (j = 0; j < ARRAY_SIZE(fakes); j++) {
            VmQuiescePhase phase;

            for (phase = 0; phase < VM_QUIESCE_PHASE__MAX; phase++) {
                int r = g_test_rand_int_range(0, 20);

                fakes[j]->result[phase] = r == 0 ? VM_QUIESCE_ERROR
                                        : r < 5 ? VM_QUIESCE_BUSY
                                        : VM_QUIESCE_DONE;
            }
            fakes[j]->release_fails = g_test_rand_int_range(0, 10) == 0;
        }
        t->block.undo_fails = g_test_rand_bit();
        now += g_test_rand_int_range(0, DEADLINE / 4);

        switch (g_test_rand_int_range(0, 10)) {
        case 0:
            if (vm_quiesce_core_start(&t->q, now, DEADLINE, NULL)) {
                told = failed = false;
            }
            break;
        case 1:
            vm_quiesce_core_undo(&t->q, NULL);
            break;
        default:
            switch (vm_quiesce_core_step(&t->q, now)) {
            case VM_QUIESCE_OUTCOME_QUIESCED:
                g_assert_false(told);
                told = true;
                quiesced++;
                break;
            case VM_QUIESCE_OUTCOME_FAILED:
                g_assert_false(told || failed);
                failed = true;
                break;
            case VM_QUIESCE_OUTCOME_NONE:
                break;
            }
        }
        if (vm_quiesce_core_phase(&t->q) == VM_QUIESCE_PHASE_QUIESCED) {
            g_assert_true(told);
            g_assert_true(t->vcpus.released && t->net.released &&
                          t->block.released);
        }
        g_string_truncate(calls, 0);
    }
    g_assert_cmpint(quiesced, >, 100);
}

static void add(const char *name, int phase,
                void (*fn)(Fixture *, const void *))
{
    g_autofree char *path = g_strdup_printf("/vm-quiesce/%s", name);

    g_test_add(path, Fixture, GINT_TO_POINTER(phase), setup, fn, teardown);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    add("success", 0, test_success);
    add("optional-callbacks", 0, test_optional_callbacks);
    add("busy", 0, test_busy);
    add("deadline/stop", VM_QUIESCE_PHASE_STOP, test_deadline);
    add("deadline/drain", VM_QUIESCE_PHASE_DRAIN, test_deadline);
    add("deadline/flush", VM_QUIESCE_PHASE_FLUSH, test_deadline);
    add("deadline/again", 0, test_deadline_again);
    add("error/stop", VM_QUIESCE_PHASE_STOP, test_error);
    add("error/drain", VM_QUIESCE_PHASE_DRAIN, test_error);
    add("error/flush", VM_QUIESCE_PHASE_FLUSH, test_error);
    add("error/release", 0, test_release_error);
    add("start/refused", 0, test_start_refused);
    add("undo/refused", 0, test_undo_refused);
    add("undo/failed-flush", VM_QUIESCE_PHASE_FLUSH, test_undo_failed);
    add("undo/failed-release", VM_QUIESCE_PHASE_RELEASE, test_undo_failed);
    add("undo/error", 0, test_undo_error);
    add("undo/lost", 0, test_undo_lost);
    add("requests", 0, test_requests);
    add("core-busy/drain", VM_QUIESCE_PHASE_DRAIN, test_core_busy);
    add("core-busy/flush", VM_QUIESCE_PHASE_FLUSH, test_core_busy);
    add("random", 0, test_random);

    return g_test_run();
}
