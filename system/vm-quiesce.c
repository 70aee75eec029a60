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
#include "block/vm-quiesce.h"
#include "migration/misc.h"
#include "migration/vm-quiesce.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-vm-quiesce.h"
#include "qapi/qapi-events-vm-quiesce.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "system/block-backend.h"
#include "system/replay.h"
#include "system/runstate.h"
#include "trace.h"
#include "vm-quiesce-core.h"
#include "vm-quiesce-internal.h"

#define DEFAULT_DEADLINE_MS 10000

/* How often to look at what does not wake the main loop when it ends */
#define POLL_INTERVAL_MS 20

/* Of the last attempt */
static VMQuiesceIdentity quiesce_id;

/* The run state when the VM was asked to quiesce */
static RunState quiesce_previous;

/* The main loop is being watched */
static bool quiesce_watching;

static NotifierList quiesce_notifiers =
    NOTIFIER_LIST_INITIALIZER(quiesce_notifiers);

static void quiesce_step(void);

bool vm_quiesce_needs_reset(void)
{
    return quiesce_id.needs_reset && runstate_check(RUN_STATE_PAUSED);
}

void vm_quiesce_add_transitions(bool valid[][RUN_STATE__MAX])
{
    static const RunState stopped[] = {
        RUN_STATE_DEBUG, RUN_STATE_GUEST_PANICKED, RUN_STATE_INTERNAL_ERROR,
        RUN_STATE_IO_ERROR, RUN_STATE_PAUSED, RUN_STATE_POSTMIGRATE,
        RUN_STATE_PRELAUNCH, RUN_STATE_RESTORE_VM, RUN_STATE_SHUTDOWN,
        RUN_STATE_WATCHDOG,
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(stopped); i++) {
        valid[stopped[i]][RUN_STATE_QUIESCED] = true;
    }
    valid[RUN_STATE_SAVE_VM][RUN_STATE_PAUSED] = true;
    valid[RUN_STATE_QUIESCED][RUN_STATE_PAUSED] = true;
}

static void quiesce_vm_change_state(void *opaque, bool running, RunState state)
{
    if (running) {
        quiesce_id.needs_reset = false;
        vcpus_quiesce_forget();
    }
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

static void quiesce_send_quiesced(void)
{
    g_autoptr(JobInfoList) jobs = jobs_quiesce_cancelled();
    g_autoptr(BlockExportInfoList) exports = exports_quiesce_closed();

    qapi_event_send_vm_quiesced(quiesce_id.token, quiesce_id.reason,
                                quiesce_previous, quiesce_duration_ms(),
                                quiesce_held_requests(), jobs, exports);
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
    trace_vm_quiesce_failed(quiesce_id.token, summary->str);
    qapi_event_send_vm_quiesce_failed(quiesce_id.token, quiesce_id.reason,
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
        if (runstate_check(RUN_STATE_POSTMIGRATE)) {
            quiesce_previous = RUN_STATE_POSTMIGRATE;
        }
        runstate_set(RUN_STATE_QUIESCED);
        trace_vm_quiesce_done(quiesce_id.token, quiesce_duration_ms());
        vcpus_quiesce_send_stop();
        quiesce_send_quiesced();
        notifier_list_notify(&quiesce_notifiers, NULL);
        break;
    case VM_QUIESCE_OUTCOME_FAILED:
        quiesce_send_failed();
        notifier_list_notify(&quiesce_notifiers, NULL);
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
        error_setg(errp, "The VM cannot be quiesced: it waits for an incoming "
                   "migration, and owns nothing yet");
        return false;
    case RUN_STATE_COLO:
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

/* Start an attempt; @errp is set, and nothing changed, if there is one */
static bool quiesce_start(const VMQuiesceIdentity *id, uint32_t deadline_ms,
                          Error **errp)
{
    bool was_active = vm_quiesce_active();

    if (!was_active) {
        quiesce_previous = runstate_get();
    }
    if (!quiesce_timer) {
        quiesce_timer = timer_new_ms(QEMU_CLOCK_REALTIME, quiesce_timer_cb,
                                     NULL);
        qemu_add_vm_change_state_handler(quiesce_vm_change_state, NULL);
    }
    /* vCPU threads may ask for things while they are being stopped */
    qatomic_set(&vm_quiesce.active, true);
    if (!vm_quiesce_core_start(&vm_quiesce, quiesce_now_ms(), deadline_ms,
                               errp)) {
        qatomic_set(&vm_quiesce.active, was_active);
        return false;
    }
    quiesce_id = *id;
    trace_vm_quiesce_start(id->token, id->reason, deadline_ms);

    /*
     * The monitor replies from the same AioContext: when the main loop takes
     * the first step, at the end of that iteration, the reply is out.
     */
    aio_bh_schedule_oneshot(iohandler_get_aio_context(), quiesce_begin_bh,
                            NULL);
    return true;
}

const VMQuiesceIdentity *vm_quiesce_identity(void)
{
    return &quiesce_id;
}

void vm_quiesce_start_as(const VMQuiesceIdentity *id)
{
    quiesce_start(id, DEFAULT_DEADLINE_MS, &error_abort);
}

void vm_quiesce_add_notifier(Notifier *n)
{
    notifier_list_add(&quiesce_notifiers, n);
}

bool vm_quiesce_begin(const char *reason, uint32_t deadline_ms, Error **errp)
{
    VMQuiesceIdentity id;
    QemuUUID uuid;

    if (!vm_quiesce_active() && !quiesce_possible(errp)) {
        return false;
    }

    qemu_uuid_generate(&uuid);
    qemu_uuid_unparse(&uuid, id.token);
    pstrcpy(id.reason, sizeof(id.reason), reason);
    id.needs_reset = vm_quiesce_active() ? quiesce_id.needs_reset
                                         : runstate_needs_reset();
    return quiesce_start(&id, deadline_ms ?: DEFAULT_DEADLINE_MS, errp);
}

VmQuiesceToken *qmp_vm_quiesce(const char *reason, bool has_deadline_ms,
                               uint32_t deadline_ms, Error **errp)
{
    VmQuiesceToken *ret;

    if (!*reason || strlen(reason) > VM_QUIESCE_MAX_REASON_LEN) {
        error_setg(errp, "Parameter 'reason' must have 1 to %d bytes",
                   VM_QUIESCE_MAX_REASON_LEN);
        return NULL;
    }
    if (has_deadline_ms && !deadline_ms) {
        error_setg(errp, "Parameter 'deadline-ms' must be positive");
        return NULL;
    }
    if (!vm_quiesce_begin(reason, has_deadline_ms ? deadline_ms : 0, errp)) {
        return NULL;
    }

    ret = g_new0(VmQuiesceToken, 1);
    ret->token = g_strdup(quiesce_id.token);
    return ret;
}

void qmp_vm_unquiesce(const char *token, Error **errp)
{
    if (vm_quiesce_active() && strcmp(token, quiesce_id.token)) {
        error_setg(errp, "Parameter 'token' does not match the last attempt");
        return;
    }
    if (runstate_check(RUN_STATE_QUIESCED) && migration_is_running()) {
        error_setg(errp, "The VM's state is being written to a file");
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
    /* A paused VM does not get into run state 'shutdown' any more */
    quiesce_id.needs_reset |=
        shutdown_caused_by_guest(qemu_shutdown_requested_get());
    vm_quiesce.restored = false;
    qatomic_set(&vm_quiesce.active, false);
    trace_vm_quiesce_undone(token);
    vcpus_quiesce_send_stop();
    qapi_event_send_vm_unquiesced(token);
    /* The main loop may have held requests */
    qemu_notify_event();
}

VmQuiesceInfo *qmp_query_vm_quiesce(Error **errp)
{
    VmQuiesceInfo *info = g_new0(VmQuiesceInfo, 1);

    info->phase = vm_quiesce_core_phase(&vm_quiesce);
    if (info->phase != VM_QUIESCE_PHASE_NONE) {
        info->token = g_strdup(quiesce_id.token);
        info->reason = g_strdup(quiesce_id.reason);
        info->has_previous_status = true;
        info->previous_status = quiesce_previous;
        info->has_deadline_ms = true;
        info->deadline_ms = vm_quiesce.deadline_ms;
        info->has_duration_ms = true;
        info->duration_ms = quiesce_duration_ms();
    }
    info->held_requests = quiesce_held_requests();
    info->participants = vm_quiesce_core_query(&vm_quiesce, false);
    info->cancelled_jobs = jobs_quiesce_cancelled();
    info->closed_exports = exports_quiesce_closed();
    return info;
}
