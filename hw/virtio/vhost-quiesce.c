/*
 * Quiesced run state: vhost, vhost-user and vDPA devices
 *
 * These stop, and give their rings back, when the run state's handlers run;
 * here it is checked that all of them did.  A vhost-user back end is waited
 * for when it is stopped, so it is first asked for something harmless, without
 * waiting, to see that it answers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "chardev/char-fe.h"
#include "hw/virtio/vhost.h"
#include "hw/virtio/vhost-user.h"
#include "hw/virtio/virtio.h"
#include "qapi/error.h"
#include "system/vm-quiesce.h"

/* A question to a vhost-user back end; main thread only */
typedef struct Probe {
    /* Compared, but used only while it is in the list of vhost devices */
    struct vhost_dev *hdev;
    /* Its answer, or the end of the connection, has come */
    bool ready;
    /* Source that waits for it, or 0 */
    guint watch;
} Probe;

static GArray *probes;

static const char *device_name(struct vhost_dev *hdev)
{
    return hdev->vdev ? hdev->vdev->name : "vhost";
}

static gboolean probe_ready(void *do_not_use, GIOCondition cond, void *data)
{
    Probe *probe = &g_array_index(probes, Probe, GPOINTER_TO_UINT(data));

    probe->ready = true;
    probe->watch = 0;
    return G_SOURCE_REMOVE;
}

static void probes_begin(void)
{
    struct vhost_dev *hdev = NULL;

    probes = g_array_new(false, true, sizeof(Probe));
    while ((hdev = vhost_dev_next(hdev))) {
        Probe probe = { .hdev = hdev };
        CharFrontend *chr;

        /* Devices with several queue pairs share a connection */
        if (!hdev->started || hdev->vq_index ||
            hdev->vhost_ops->backend_type != VHOST_BACKEND_TYPE_USER) {
            continue;
        }
        /* If the connection is down, nobody will be waited for */
        chr = vhost_user_probe_begin(hdev);
        if (!chr) {
            continue;
        }
        probe.watch = qemu_chr_fe_add_watch(chr, G_IO_IN | G_IO_HUP,
                                            probe_ready,
                                            GUINT_TO_POINTER(probes->len));
        g_array_append_val(probes, probe);
    }
}

static VMQuiesceResult vhost_quiesce_drain(Error **errp)
{
    struct vhost_dev *hdev = NULL;
    guint i;

    if (!probes) {
        probes_begin();
    }

    while ((hdev = vhost_dev_next(hdev))) {
        for (i = 0; i < probes->len; i++) {
            Probe *probe = &g_array_index(probes, Probe, i);

            if (probe->hdev != hdev) {
                continue;
            }
            if (!probe->ready) {
                error_setg(errp, "device '%s': its back end does not answer",
                           device_name(hdev));
                return VM_QUIESCE_BUSY;
            }
            vhost_user_probe_end(hdev);
            probe->hdev = NULL;
        }
    }

    for (i = 0; i < probes->len; i++) {
        Probe *probe = &g_array_index(probes, Probe, i);

        if (probe->watch) {
            g_source_remove(probe->watch);
        }
    }
    g_array_unref(probes);
    probes = NULL;
    return VM_QUIESCE_DONE;
}

static VMQuiesceResult vhost_quiesce_flush(Error **errp)
{
    struct vhost_dev *hdev = NULL;

    while ((hdev = vhost_dev_next(hdev))) {
        if (hdev->started) {
            error_setg(errp, "device '%s' has not got its rings back",
                       device_name(hdev));
            return VM_QUIESCE_ERROR;
        }
    }
    return VM_QUIESCE_DONE;
}

static VMQuiesceResult vhost_quiesce_poll(VMQuiesceParticipant *p,
                                          VmQuiescePhase phase, Error **errp)
{
    switch (phase) {
    case VM_QUIESCE_PHASE_DRAIN:
        return vhost_quiesce_drain(errp);
    case VM_QUIESCE_PHASE_FLUSH:
        return vhost_quiesce_flush(errp);
    default:
        return VM_QUIESCE_DONE;
    }
}

static VMQuiesceParticipant vhost_participant = {
    .name = "vhost",
    .order = VM_QUIESCE_ORDER_BACKENDS,
    .poll = vhost_quiesce_poll,
};

static void __attribute__((__constructor__)) vhost_quiesce_init(void)
{
    vm_quiesce_register(&vhost_participant);
}
