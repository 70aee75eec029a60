/*
 * Quiesced run state: VFIO devices
 *
 * A device that can migrate is put into a stopped state, in which it does no
 * DMA, when the run state's handlers run.  Bus mastering of any other is
 * switched off then.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "system/vm-quiesce.h"
#include "vm-quiesce-device.h"

/*
 * Devices whose bus mastering undo() has to switch on.  None can be unplugged
 * before.
 */
static GPtrArray *switched_off;

static VMQuiesceResult vfio_quiesce_poll(VMQuiesceParticipant *p,
                                         VmQuiescePhase phase, Error **errp)
{
    g_autoptr(GString) text = g_string_new(NULL);
    VFIODevice *vbasedev;

    if (phase != VM_QUIESCE_PHASE_FLUSH) {
        return VM_QUIESCE_DONE;
    }

    if (!switched_off) {
        switched_off = g_ptr_array_new();
    }
    QLIST_FOREACH(vbasedev, &vfio_device_list, global_next) {
        Error *err = NULL;
        bool bus_master;

        if (!vfio_quiesce_device(vbasedev, &bus_master, &err)) {
            g_string_append_printf(text, "%sdevice '%s' may still do DMA: %s",
                                   text->len ? "; " : "", vbasedev->name,
                                   error_get_pretty(err));
            error_free(err);
        }
        /* Also if it could not be read back */
        if (bus_master) {
            g_ptr_array_add(switched_off, vbasedev);
        }
    }
    if (text->len) {
        error_setg(errp, "%s", text->str);
        return VM_QUIESCE_ERROR;
    }
    return VM_QUIESCE_DONE;
}

static bool vfio_quiesce_undo(VMQuiesceParticipant *p, Error **errp)
{
    guint i;

    for (i = 0; switched_off && i < switched_off->len; i++) {
        VFIODevice *vbasedev = g_ptr_array_index(switched_off, i);
        Error *err = NULL;

        if (!vfio_unquiesce_device(vbasedev, &err)) {
            error_reportf_err(err, "vfio %s: ", vbasedev->name);
        }
    }
    g_clear_pointer(&switched_off, g_ptr_array_unref);
    return true;
}

static VMQuiesceParticipant vfio_participant = {
    .name = "vfio",
    .order = VM_QUIESCE_ORDER_BACKENDS,
    .poll = vfio_quiesce_poll,
    .undo = vfio_quiesce_undo,
};

static void __attribute__((__constructor__)) vfio_quiesce_init(void)
{
    vm_quiesce_register(&vfio_participant);
}
