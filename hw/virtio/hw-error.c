/*
 * Hardware errors: vhost-user back ends
 *
 * One that hangs is found by looking at the rings that it shares with the
 * guest, because the connection belongs to whoever waits for an answer.  It
 * hangs if there is something in a ring that it has not used, and if it has
 * used nothing of that ring for longer than the limit.
 *
 * A packed ring does not tell that: of what the guest has made available there,
 * only the two who know the lengths of the descriptor chains can say whether
 * it was used.  So these are not watched.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw-error/backend.h"
#include "hw/virtio/hw-error.h"
#include "hw/virtio/vhost-user-quiesce.h"
#include "hw/virtio/virtio.h"
#include "migration/misc.h"
#include "standard-headers/linux/virtio_ids.h"
#include "standard-headers/linux/virtio_ring.h"
#include "system/memory.h"
#include "system/runstate.h"
#include "trace.h"

/*
 * The queues that are watched: a back end has to use whatever it finds there,
 * and without waiting for anything but its own storage or network.  These are
 * the first one, and every @step-th one after it.
 *
 * Not in this table: queues whose buffers wait for something to happen (events,
 * input, packets and sound that arrive), or for the guest itself (vsock); those
 * whose commands may take as long as they like (GPU, sound, the SCSI control
 * queue with its task management); and devices that nobody has looked at.
 */
static const struct {
    uint16_t device_id;
    uint16_t first;
    uint16_t step;
} watched_queues[] = {
    /* Requests */
    { VIRTIO_ID_BLOCK, 0, 1 },
    /* Requests, after the control and the event queue */
    { VIRTIO_ID_SCSI, 2, 1 },
    /* What the guest transmits: every other one, after what it receives */
    { VIRTIO_ID_NET, 1, 2 },
    /*
     * Requests; the first one is for what does not wait for the others.  That
     * the guest waits for a lock would need a queue that QEMU does not have.
     */
    { VIRTIO_ID_FS, 0, 1 },
    /* Requests; QEMU has the control queue */
    { VIRTIO_ID_CRYPTO, 0, 1 },
};

/* What vhost_user_hw_error_watch() makes for a connection */
typedef struct VhostUserWatch {
    HwErrorBackendWatch watch;
    /* One HwErrorBackendStep for each virtqueue */
    GArray *steps;
} VhostUserWatch;

static bool is_watched(VirtIODevice *vdev, unsigned n)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(watched_queues); i++) {
        if (watched_queues[i].device_id == vdev->device_id) {
            return n >= watched_queues[i].first &&
                   (n - watched_queues[i].first) % watched_queues[i].step == 0;
        }
    }
    return false;
}

static bool read_index(VirtIODevice *vdev, hwaddr addr, uint16_t *index)
{
    MemTxResult result;

    *index = virtio_is_big_endian(vdev)
        ? address_space_lduw_be(vdev->dma_as, addr, MEMTXATTRS_UNSPECIFIED,
                                &result)
        : address_space_lduw_le(vdev->dma_as, addr, MEMTXATTRS_UNSPECIFIED,
                                &result);
    return result == MEMTX_OK;
}

/* Works as well if there is a virtual IOMMU, where nothing is mapped */
static bool read_ring(VirtIODevice *vdev, unsigned n, uint16_t *avail,
                      uint16_t *used)
{
    /* As vhost_virtqueue_start(): it may not be ready */
    return virtio_queue_get_desc_addr(vdev, n) &&
           read_index(vdev, virtio_queue_get_avail_addr(vdev, n) +
                      offsetof(struct vring_avail, idx), avail) &&
           read_index(vdev, virtio_queue_get_used_addr(vdev, n) +
                      offsetof(struct vring_used, idx), used);
}

static void look_at_queue(VhostUserWatch *v, VirtIODevice *vdev, unsigned n,
                          HwErrorBackendWait *wait)
{
    uint16_t avail, used;
    int64_t age_ms;

    if (!is_watched(vdev, n) || !read_ring(vdev, n, &avail, &used) ||
        avail == used) {
        return;
    }
    if (n >= v->steps->len) {
        g_array_set_size(v->steps, n + 1);
    }
    age_ms = hw_error_backend_step_ms(
        &g_array_index(v->steps, HwErrorBackendStep, n), used);
    trace_vhost_user_hw_error_wait(vdev->name, n, avail, used, age_ms);
    if (age_ms > wait->age_ms) {
        *wait = (HwErrorBackendWait) {
            .dev = OBJECT(vdev),
            .age_ms = age_ms,
            .has_queue = true,
            .queue = n,
        };
    }
}

/* Devices with several queue pairs share a connection */
static bool look(HwErrorBackendWatch *w, HwErrorBackendWait *wait)
{
    VhostUserWatch *v = container_of(w, VhostUserWatch, watch);
    struct vhost_dev *hdev = NULL;
    unsigned i;

    while ((hdev = vhost_dev_next(hdev))) {
        if (!hdev->started ||
            hdev->vhost_ops->backend_type != VHOST_BACKEND_TYPE_USER ||
            vhost_user_quiesce_connection(hdev) != w->fe) {
            continue;
        }
        /*
         * While the VM is being quiesced, a back end gives back rings that are
         * not empty.  Memory that is still at the source would be waited for.
         */
        if (!runstate_is_live(runstate_get()) ||
            migration_in_incoming_postcopy()) {
            return false;
        }
        if (virtio_vdev_has_feature(hdev->vdev, VIRTIO_F_RING_PACKED)) {
            continue;
        }
        for (i = 0; i < hdev->nvqs; i++) {
            look_at_queue(v, hdev->vdev, hdev->vq_index + i, wait);
        }
    }
    return true;
}

static void connection_event(void *opaque, QEMUChrEvent event)
{
    CharFrontend *chr = opaque;
    struct vhost_dev *hdev = NULL;

    if (event != CHR_EVENT_CLOSED) {
        return;
    }
    while ((hdev = vhost_dev_next(hdev))) {
        if (hdev->vhost_ops->backend_type == VHOST_BACKEND_TYPE_USER &&
            vhost_user_quiesce_connection(hdev) == chr) {
            /* The device is known if the guest has started it */
            hw_error_backend_lost(HW_ERROR_BACKEND_TYPE_VHOST_USER,
                                  OBJECT(hdev->vdev), chr, false);
            return;
        }
    }
}

void vhost_user_hw_error_watch(CharFrontend *chr)
{
    VhostUserWatch *v;

    qemu_chr_fe_set_handlers(chr, NULL, NULL, connection_event, NULL, chr,
                             NULL, false);
    if (!qemu_chr_fe_get_driver(chr)->label) {
        /* QEMU itself has started what is there, and starts it again */
        return;
    }
    v = g_new0(VhostUserWatch, 1);
    v->watch.type = HW_ERROR_BACKEND_TYPE_VHOST_USER;
    v->watch.fe = chr;
    v->watch.look = look;
    v->steps = g_array_new(false, true, sizeof(HwErrorBackendStep));
    hw_error_backend_watch(&v->watch);
}

void vhost_user_hw_error_unwatch(CharFrontend *chr)
{
    HwErrorBackendWatch *w = hw_error_backend_find_watch(chr);

    if (w) {
        VhostUserWatch *v = container_of(w, VhostUserWatch, watch);

        hw_error_backend_unwatch(w);
        g_array_unref(v->steps);
        g_free(v);
    }
}

bool vhost_user_hw_error_wait(struct vhost_dev *hdev, CharFrontend *chr)
{
    HwErrorBackendWatch *w = hw_error_backend_find_watch(chr);
    bool gave_up = w && w->limit_ms && w->contained;

    if (gave_up ? vhost_user_wait_limited(chr) : vhost_user_quiesce_wait(chr)) {
        return true;
    }
    hw_error_backend_hung(HW_ERROR_BACKEND_TYPE_VHOST_USER, chr,
                          &(HwErrorBackendWait) { .dev = OBJECT(hdev->vdev) });
    return false;
}

void vhost_user_hw_error_lost(DeviceState *dev, CharFrontend *chr)
{
    hw_error_backend_lost(HW_ERROR_BACKEND_TYPE_VHOST_USER, OBJECT(dev), chr,
                          true);
}

void vhost_user_hw_error_back(DeviceState *dev, CharFrontend *chr)
{
    hw_error_backend_back(HW_ERROR_BACKEND_TYPE_VHOST_USER, OBJECT(dev), chr);
}
