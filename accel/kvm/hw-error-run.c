/*
 * Hardware errors: a vCPU that KVM cannot run
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "hw-error/hw-error.h"
#include "hw/core/cpu.h"
#include "qapi/util.h"
#include "system/kvm.h"
#include "system/kvm_int.h"

static void add_data(HwErrorKvm *k, const uint64_t *data, size_t count)
{
    uint64List **tail = &k->data;
    size_t i;

    k->has_data = true;
    for (i = 0; i < count; i++) {
        QAPI_LIST_APPEND(tail, data[i]);
    }
}

static void describe_exit(HwErrorKvm *k, const struct kvm_run *run)
{
    uint64_t exit[2] = { run->exit_reason };

    switch (run->exit_reason) {
    case KVM_EXIT_INTERNAL_ERROR:
        k->reason = run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION ?
                    HW_ERROR_KVM_REASON_EMULATION_FAILURE :
                    HW_ERROR_KVM_REASON_INTERNAL_ERROR;
        k->code = run->internal.suberror;
        add_data(k, (const uint64_t *)run->internal.data,
                 MIN(run->internal.ndata, ARRAY_SIZE(run->internal.data)));
        break;
    case KVM_EXIT_FAIL_ENTRY:
        k->reason = HW_ERROR_KVM_REASON_FAIL_ENTRY;
        k->code = run->fail_entry.hardware_entry_failure_reason;
        exit[0] = run->fail_entry.cpu;
        add_data(k, exit, 1);
        break;
    case KVM_EXIT_MEMORY_FAULT:
        k->reason = HW_ERROR_KVM_REASON_MEMORY_FAULT;
        k->code = EFAULT;
        k->has_guest_address = true;
        k->guest_address = run->memory_fault.gpa;
        exit[0] = run->memory_fault.flags;
        exit[1] = run->memory_fault.size;
        add_data(k, exit, 2);
        break;
    case KVM_EXIT_UNKNOWN:
        k->reason = HW_ERROR_KVM_REASON_INTERNAL_ERROR;
        k->code = run->hw.hardware_exit_reason;
        add_data(k, exit, 1);
        break;
    default:
        /* One that this architecture does not know, or cannot deal with */
        k->reason = HW_ERROR_KVM_REASON_RUN_FAILED;
        add_data(k, exit, 1);
        break;
    }
}

/*
 * @cpu cannot run: KVM_RUN has returned @run_ret, and perhaps an exit that is
 * an error; or the state could not be set before.  Called from the vCPU's
 * thread with the BQL held.
 *
 * Returns whether the VM is being stopped or quiesced by a rule.
 */
bool kvm_hw_error_run(CPUState *cpu, int run_ret)
{
    g_autofree char *path = object_get_canonical_path(OBJECT(cpu));
    HwErrorInfo info = {
        .source = HW_ERROR_SOURCE_KVM,
        .severity = HW_ERROR_SEVERITY_FATAL,
    };
    HwErrorKvm *k = &info.u.kvm;
    HwErrorAction action;

    k->has_vcpu = true;
    k->vcpu = cpu->cpu_index;
    k->qom_path = path;
    k->has_code = true;
    if (run_ret < 0 && !(run_ret == -EFAULT && cpu->kvm_run->exit_reason ==
                         KVM_EXIT_MEMORY_FAULT)) {
        k->reason = HW_ERROR_KVM_REASON_RUN_FAILED;
        k->code = -run_ret;
    } else {
        describe_exit(k, cpu->kvm_run);
    }

    action = hw_error_report(&info);
    qapi_free_uint64List(k->data);
    return hw_error_contains(action);
}
