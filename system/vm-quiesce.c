/*
 * Quiesced run state
 *
 * Binds the phase machine (vm-quiesce-core.c) to the run state, the main loop
 * and QMP.
 *
 * Theory of operation: vm-quiesce starts the phase machine and returns.  From
 * then on, the machine is stepped at the end of each main loop iteration, so
 * that completions are seen when they happen, without polling; block nodes
 * wake the main loop because @global_aio_wait says that somebody waits.  A
 * timer covers the deadline and what does not wake the main loop.
 *
 * Invariants, while vm_quiesce_active():
 * - no vCPU runs: vm_prepare_start() refuses;
 * - the run state changes by this file only: main_loop_should_exit() holds
 *   requests, the monitors refuse commands;
 * - RUN_STATE_QUIESCED is set if and only if the machine is in phase
 *   QUIESCED.
 *
 * All state is written by the main thread with the BQL held.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "migration/misc.h"
#include "migration/vm-quiesce.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-vm-quiesce.h"
#include "qapi/qapi-events-run-state.h"
#include "qapi/qapi-events-vm-quiesce.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qemu/uuid.h"
#include "system/block-backend.h"
#include "system/cpu-timers.h"
#include "system/cpus.h"
#include "system/replay.h"
#include "system/runstate.h"
#include "trace.h"
#include "vm-quiesce-core.h"

#define DEFAULT_DEADLINE_MS 10000
#define MAX_REASON_LEN 1024

/* How often to look at what does not wake the main loop when it ends */
#define POLL_INTERVAL_MS 20

static char *quiesce_token;
static char *quiesce_reason;

/* Read by any thread, see vm_quiesce_active() */
static bool quiesce_active;

/* The main loop is being watched */
static bool quiesce_watching;

/* The VM was live, and STOP is not sent yet */
static bool quiesce_owes_stop;
/* vm_state_notify() is not called yet */
static bool quiesce_owes_notify;
/* vm_state_notify() has failed: cannot be repeated before the VM runs again */
static bool quiesce_notify_failed;

static bool quiesce_needs_reset;

static void quiesce_step(void);

bool vm_quiesce_active(void)
{
    return qatomic_read(&quiesce_active);
}

bool vm_quiesce_needs_reset(void)
{
    return quiesce_needs_reset && runstate_check(RUN_STATE_PAUSED);
}

static void quiesce_vm_change_state(void *opaque, bool running, RunState state)
{
    if (running) {
        quiesce_needs_reset = false;
        quiesce_notify_failed = false;
    }
}

/*
 * vCPUs, and the devices that follow the run state
 *
 * This is vm_stop() in two halves: vCPUs are paused first, the devices are
 * told when block nodes are drained, because many of them drain when they are
 * told, and would wait for a stuck back end.  STOP is left to the end.
 */

static void vcpus_quiesce_stop(VMQuiesceParticipant *p)
{
    RunState state = runstate_get();

    if (!runstate_is_live(state)) {
        return;
    }
    quiesce_owes_stop = true;
    quiesce_owes_notify = true;
    vm_set_suspended(state == RUN_STATE_SUSPENDED);
    runstate_set(RUN_STATE_PAUSED);
    cpu_disable_ticks();
    if (state == RUN_STATE_RUNNING) {
        pause_all_vcpus();
    }
}

static VMQuiesceResult vcpus_quiesce_poll(VMQuiesceParticipant *p,
                                          VmQuiescePhase phase, Error **errp)
{
    if (phase == VM_QUIESCE_PHASE_STOP &&
        runstate_check(RUN_STATE_FINISH_MIGRATE)) {
        /* The migration that is being cancelled will come back from there */
        if (migration_is_running()) {
            error_setg(errp, "migration has not ended");
            return VM_QUIESCE_BUSY;
        }
        runstate_set(RUN_STATE_PAUSED);
    }

    if (phase == VM_QUIESCE_PHASE_FLUSH) {
        if (quiesce_owes_notify) {
            quiesce_owes_notify = false;
            quiesce_notify_failed = vm_state_notify(false, runstate_get());
        }
        if (quiesce_notify_failed) {
            error_setg(errp, "a device's back end did not stop cleanly");
            return VM_QUIESCE_ERROR;
        }
    }
    return VM_QUIESCE_DONE;
}

static VMQuiesceParticipant vcpus_participant = {
    .name = "vcpus",
    .order = VM_QUIESCE_ORDER_VCPUS,
    .stop = vcpus_quiesce_stop,
    .poll = vcpus_quiesce_poll,
};

static void __attribute__((__constructor__)) vm_quiesce_init(void)
{
    vm_quiesce_register(&vcpus_participant);
}

/* Main loop */

static void quiesce_main_loop_notify(Notifier *n, void *data)
{
    MainLoopPoll *poll = data;

    if (poll->state != MAIN_LOOP_POLL_FILL) {
        quiesce_step();
    }
}

static Notifier quiesce_main_loop_notifier = {
    .notify = quiesce_main_loop_notify,
};

static QEMUTimer *quiesce_timer;

static int64_t quiesce_now_ms(void)
{
    return qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
}

static void quiesce_timer_cb(void *opaque)
{
    quiesce_step();
}

static void quiesce_watch(bool watch)
{
    if (watch == quiesce_watching) {
        return;
    }
    quiesce_watching = watch;
    if (watch) {
        main_loop_poll_add_notifier(&quiesce_main_loop_notifier);
        qatomic_inc(&global_aio_wait.num_waiters);
        /* Paired with smp_mb in aio_wait_kick() */
        smp_mb__after_rmw();
    } else {
        main_loop_poll_remove_notifier(&quiesce_main_loop_notifier);
        qatomic_dec(&global_aio_wait.num_waiters);
        timer_del(quiesce_timer);
    }
}

static uint64_t quiesce_duration_ms(void)
{
    return (vm_quiesce.phase == VM_QUIESCE_PHASE_QUIESCED ? vm_quiesce.end_ms
                                                       : quiesce_now_ms())
           - vm_quiesce.start_ms;
}

static uint64_t quiesce_held_requests(void)
{
    uint64_t n = 0;
    BlockBackend *blk;

    for (blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        n += blk_held_requests(blk);
    }
    return n;
}

static void quiesce_send_stop(void)
{
    if (quiesce_owes_stop) {
        quiesce_owes_stop = false;
        qapi_event_send_stop();
    }
}

static void quiesce_send_failed(void)
{
    g_autoptr(VmQuiesceParticipantList) open =
        vm_quiesce_core_query(&vm_quiesce, true);
    g_autoptr(GString) summary =
        g_string_new(vm_quiesce.error ? "Cannot be contained:"
                                   : "Not contained by the deadline:");
    VmQuiesceParticipantList *l;

    for (l = open; l; l = l->next) {
        g_string_append_printf(summary, "%s %s", l == open ? "" : ",",
                               l->value->name);
    }
    trace_vm_quiesce_failed(quiesce_token, summary->str);
    qapi_event_send_vm_quiesce_failed(quiesce_token, quiesce_reason,
                                      summary->str, open);
}

static void quiesce_step(void)
{
    static bool stepping;

    /* Participants may run a nested event loop for a moment */
    if (stepping) {
        return;
    }
    stepping = true;

    switch (vm_quiesce_core_step(&vm_quiesce, quiesce_now_ms())) {
    case VM_QUIESCE_OUTCOME_QUIESCED:
        runstate_set(RUN_STATE_QUIESCED);
        trace_vm_quiesce_done(quiesce_token, quiesce_duration_ms());
        quiesce_send_stop();
        qapi_event_send_vm_quiesced(quiesce_token, quiesce_reason,
                                    quiesce_duration_ms(),
                                    quiesce_held_requests());
        break;
    case VM_QUIESCE_OUTCOME_FAILED:
        quiesce_send_failed();
        break;
    case VM_QUIESCE_OUTCOME_NONE:
        break;
    }

    quiesce_watch(vm_quiesce.phase != VM_QUIESCE_PHASE_QUIESCED &&
                  vm_quiesce.phase != VM_QUIESCE_PHASE_NONE &&
                  !vm_quiesce.error);
    /* Setting a timer wakes the main loop: not in each of its iterations */
    if (quiesce_watching && !timer_pending(quiesce_timer)) {
        int64_t deadline = vm_quiesce.start_ms + vm_quiesce.deadline_ms;
        int64_t next = quiesce_now_ms() + POLL_INTERVAL_MS;

        timer_mod(quiesce_timer,
                  vm_quiesce.failed ? next : MIN(next, deadline));
    }
    stepping = false;
}

/* QMP */

/* Whether the VM is in a state from which it can be quiesced. */
static bool quiesce_possible(Error **errp)
{
    if (replay_mode != REPLAY_MODE_NONE) {
        error_setg(errp, "A VM cannot be quiesced in record/replay mode");
        return false;
    }

    if (!migration_quiesce_possible(errp)) {
        return false;
    }

    switch (runstate_get()) {
    case RUN_STATE_INMIGRATE:
    case RUN_STATE_COLO:
    case RUN_STATE_SAVE_VM:
    case RUN_STATE_RESTORE_VM:
        error_setg(errp, "The VM cannot be quiesced in run state '%s'",
                   RunState_str(runstate_get()));
        return false;
    default:
        return true;
    }
}

static void quiesce_begin_bh(void *opaque)
{
    quiesce_watch(true);
}

VmQuiesceToken *qmp_vm_quiesce(const char *reason, bool has_deadline_ms,
                               uint32_t deadline_ms, Error **errp)
{
    VmQuiesceToken *ret;
    QemuUUID uuid;

    if (!*reason || strlen(reason) > MAX_REASON_LEN) {
        error_setg(errp, "Parameter 'reason' must have 1 to %d bytes",
                   MAX_REASON_LEN);
        return NULL;
    }
    if (!has_deadline_ms) {
        deadline_ms = DEFAULT_DEADLINE_MS;
    }
    if (!deadline_ms) {
        error_setg(errp, "Parameter 'deadline-ms' must be positive");
        return NULL;
    }
    if (!vm_quiesce_active() && !quiesce_possible(errp)) {
        return NULL;
    }

    if (!quiesce_timer) {
        quiesce_timer = timer_new_ms(QEMU_CLOCK_REALTIME, quiesce_timer_cb,
                                     NULL);
        qemu_add_vm_change_state_handler(quiesce_vm_change_state, NULL);
    }
    if (!vm_quiesce_active()) {
        quiesce_needs_reset = runstate_needs_reset();
    }
    /* vCPU threads may ask for things while they are being stopped */
    qatomic_set(&quiesce_active, true);
    if (!vm_quiesce_core_start(&vm_quiesce, quiesce_now_ms(), deadline_ms,
                               errp)) {
        return NULL;
    }

    qemu_uuid_generate(&uuid);
    g_free(quiesce_token);
    quiesce_token = qemu_uuid_unparse_strdup(&uuid);
    g_free(quiesce_reason);
    quiesce_reason = g_strdup(reason);
    trace_vm_quiesce_start(quiesce_token, reason, deadline_ms);

    /*
     * The monitor replies from the same AioContext: when the main loop takes
     * the first step, at the end of that iteration, the reply is out.
     */
    aio_bh_schedule_oneshot(iohandler_get_aio_context(), quiesce_begin_bh,
                            NULL);

    ret = g_new0(VmQuiesceToken, 1);
    ret->token = g_strdup(quiesce_token);
    return ret;
}

void qmp_vm_unquiesce(const char *token, Error **errp)
{
    if (vm_quiesce_active() && strcmp(token, quiesce_token)) {
        error_setg(errp, "Parameter 'token' does not match the last attempt");
        return;
    }
    if (!vm_quiesce_core_undo(&vm_quiesce, errp)) {
        if (runstate_check(RUN_STATE_QUIESCED) && vm_quiesce.failed) {
            runstate_set(RUN_STATE_PAUSED);
            quiesce_send_failed();
        }
        return;
    }

    quiesce_watch(false);
    if (runstate_check(RUN_STATE_QUIESCED)) {
        runstate_set(RUN_STATE_PAUSED);
    }
    qatomic_set(&quiesce_active, false);
    trace_vm_quiesce_undone(token);
    quiesce_send_stop();
    qapi_event_send_vm_unquiesced(token);
    /* The main loop may have held requests */
    qemu_notify_event();
}

VmQuiesceInfo *qmp_query_vm_quiesce(Error **errp)
{
    VmQuiesceInfo *info = g_new0(VmQuiesceInfo, 1);

    info->phase = vm_quiesce_core_phase(&vm_quiesce);
    if (info->phase != VM_QUIESCE_PHASE_NONE) {
        info->token = g_strdup(quiesce_token);
        info->reason = g_strdup(quiesce_reason);
        info->has_deadline_ms = true;
        info->deadline_ms = vm_quiesce.deadline_ms;
        info->has_duration_ms = true;
        info->duration_ms = quiesce_duration_ms();
    }
    info->held_requests = quiesce_held_requests();
    info->participants = vm_quiesce_core_query(&vm_quiesce, false);
    return info;
}
