/*
 * Quiesced run state: network back ends
 *
 * From phase 'stop' on, no packet is taken from anybody for delivery, in
 * either direction: net_quiesced() is asked where packets enter and leave the
 * queues.  What waits in a queue is purged when the run state's handlers run,
 * as upstream does whenever the VM stops.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "net/vm-quiesce.h"
#include "system/vm-quiesce.h"

/* Main thread only, like all of net/ */
static bool quiesced;

bool net_quiesced(void)
{
    return quiesced;
}

static void net_quiesce_stop(VMQuiesceParticipant *p)
{
    quiesced = true;
}

static bool net_quiesce_undo(VMQuiesceParticipant *p, Error **errp)
{
    quiesced = false;
    return true;
}

static VMQuiesceParticipant net_participant = {
    .name = "network",
    .order = VM_QUIESCE_ORDER_BACKENDS,
    .stop = net_quiesce_stop,
    .undo = net_quiesce_undo,
};

static void __attribute__((__constructor__)) net_quiesce_init(void)
{
    vm_quiesce_register(&net_participant);
}
