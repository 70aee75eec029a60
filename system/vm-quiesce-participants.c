/*
 * Quiesced run state: the participants of this VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vm-quiesce-core.h"

VMQuiesce vm_quiesce = {
    .participants = QTAILQ_HEAD_INITIALIZER(vm_quiesce.participants),
};

void vm_quiesce_register(VMQuiesceParticipant *p)
{
    vm_quiesce_core_add(&vm_quiesce, p);
}
