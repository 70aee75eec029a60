/*
 * Quiesced run state: the phase machine of this VM, and its participants
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "vm-quiesce-core.h"

VMQuiesce vm_quiesce = {
    .participants = QTAILQ_HEAD_INITIALIZER(vm_quiesce.participants),
};

bool vm_quiesce_active(void)
{
    return qatomic_read(&vm_quiesce.active);
}

bool vm_quiesce_restored(void)
{
    return vm_quiesce.restored;
}

void vm_quiesce_register(VMQuiesceParticipant *p)
{
    vm_quiesce_core_add(&vm_quiesce, p);
}
