/*
 * Quiesced run state: vCPUs, and the devices that follow the run state
 *
 * This is vm_stop() in pieces: vCPUs are paused first, the devices are told
 * when block nodes are drained, because many of them drain when they are told,
 * and would wait for a stuck back end.  STOP is left to the end.  None of it
 * waits for long: not for vCPUs, nor for iothreads.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/core/cpu.h"
#include "qapi/error.h"
#include "qapi/qapi-events-run-state.h"
#include "system/cpu-timers.h"
#include "system/cpus.h"
#include "system/runstate.h"
#include "system/vm-quiesce.h"
#include "vm-quiesce-internal.h"

/*
 * How long the main loop may wait for vCPUs: long enough for healthy ones, and
 * not noticed by a monitor's client
 */
#define VCPUS_WAIT_MS 50

/* vCPUs were asked to pause, and not all of them have */
static bool owes_pause;
/* The VM was live, and STOP is not sent yet */
static bool owes_stop;
/* vm_state_notify() is not called yet */
static bool owes_notify;
/*
 * The result of vm_state_notify() for an attempt that has failed.  It cannot
 * be repeated: devices that have stopped are not asked again.
 */
static bool notify_failed;

static void vcpus_quiesce_stop(VMQuiesceParticipant *p)
{
    RunState state = runstate_get();

    if (!runstate_is_live(state)) {
        return;
    }
    owes_stop = true;
    owes_notify = true;
    vm_set_suspended(state == RUN_STATE_SUSPENDED);
    runstate_set(RUN_STATE_PAUSED);
    cpu_disable_ticks();
    owes_pause = state == RUN_STATE_RUNNING &&
                 !pause_all_vcpus_timeout(VCPUS_WAIT_MS);
}

/* What keeps the run state from being a stopped one */
static VMQuiesceResult vcpus_quiesce_poll_stop(Error **errp)
{
    if (owes_pause) {
        CPUState *cpu;

        owes_pause = !pause_all_vcpus_timeout(0);
        CPU_FOREACH(cpu) {
            if (owes_pause && !cpu->stopped) {
                error_setg(errp, "vCPU %d has not stopped", cpu->cpu_index);
                return VM_QUIESCE_BUSY;
            }
        }
    }

    if (runstate_check(RUN_STATE_SAVE_VM)) {
        /* It would start the VM again when it ends */
        if (qemu_system_dump_in_progress()) {
            error_setg(errp, "a memory dump has not ended");
            return VM_QUIESCE_BUSY;
        }
        runstate_set(RUN_STATE_PAUSED);
    }
    return VM_QUIESCE_DONE;
}

static VMQuiesceResult vcpus_quiesce_poll_devices(Error **errp)
{
    if (owes_notify) {
        /* Devices with an iothread wait for it */
        if (!iothreads_quiesce_answer(errp)) {
            return VM_QUIESCE_BUSY;
        }
        owes_notify = false;
        notify_failed = vm_state_notify(false, runstate_get());
    }
    if (notify_failed) {
        error_setg(errp, "a device's back end did not stop cleanly");
        return VM_QUIESCE_ERROR;
    }
    return VM_QUIESCE_DONE;
}

static VMQuiesceResult vcpus_quiesce_poll(VMQuiesceParticipant *p,
                                          VmQuiescePhase phase, Error **errp)
{
    switch (phase) {
    case VM_QUIESCE_PHASE_STOP:
        return vcpus_quiesce_poll_stop(errp);
    case VM_QUIESCE_PHASE_DEVICES:
        return vcpus_quiesce_poll_devices(errp);
    default:
        return VM_QUIESCE_DONE;
    }
}

static VMQuiesceParticipant vcpus_participant = {
    .name = "vcpus",
    .order = VM_QUIESCE_ORDER_VCPUS,
    .stop = vcpus_quiesce_stop,
    .poll = vcpus_quiesce_poll,
};

void vcpus_quiesce_forget(void)
{
    notify_failed = false;
}

void vcpus_quiesce_send_stop(void)
{
    if (owes_stop) {
        owes_stop = false;
        qapi_event_send_stop();
    }
}

static void __attribute__((__constructor__)) vcpus_quiesce_init(void)
{
    vm_quiesce_register(&vcpus_participant);
}
