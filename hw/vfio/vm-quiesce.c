/*
 * Quiesced run state: VFIO devices
 *
 * A device that can migrate is put into a stopped state, in which it does no
 * DMA, when the run state's handlers run.  Any other device may go on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/vfio.h>
#include "hw/vfio/vfio-device.h"
#include "qapi/error.h"
#include "system/vm-quiesce.h"
#include "vfio-migration-internal.h"

static bool vfio_is_stopped(VFIODevice *vbasedev)
{
    return vbasedev->migration &&
           (vbasedev->migration->device_state == VFIO_DEVICE_STATE_STOP ||
            vbasedev->migration->device_state == VFIO_DEVICE_STATE_STOP_COPY);
}

static VMQuiesceResult vfio_quiesce_poll(VMQuiesceParticipant *p,
                                         VmQuiescePhase phase, Error **errp)
{
    VFIODevice *vbasedev;

    if (phase != VM_QUIESCE_PHASE_FLUSH) {
        return VM_QUIESCE_DONE;
    }

    QLIST_FOREACH(vbasedev, &vfio_device_list, global_next) {
        if (!vfio_is_stopped(vbasedev)) {
            error_setg(errp, "device '%s' may still do DMA: %s",
                       vbasedev->name,
                       vbasedev->migration ? "it did not stop"
                                           : "it cannot be stopped");
            return VM_QUIESCE_ERROR;
        }
    }
    return VM_QUIESCE_DONE;
}

static VMQuiesceParticipant vfio_participant = {
    .name = "vfio",
    .order = VM_QUIESCE_ORDER_BACKENDS,
    .poll = vfio_quiesce_poll,
};

static void __attribute__((__constructor__)) vfio_quiesce_init(void)
{
    vm_quiesce_register(&vfio_participant);
}
