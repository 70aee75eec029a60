/*
 * Hardware errors: vhost-user back ends
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw-error/backend.h"
#include "hw/virtio/hw-error.h"
#include "hw/virtio/vhost-user-quiesce.h"
#include "hw/virtio/virtio.h"

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
    qemu_chr_fe_set_handlers(chr, NULL, NULL, connection_event, NULL, chr,
                             NULL, false);
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

void vhost_user_hw_error_hung(struct vhost_dev *hdev)
{
    hw_error_backend_hung(HW_ERROR_BACKEND_TYPE_VHOST_USER,
                          OBJECT(hdev->vdev),
                          vhost_user_quiesce_connection(hdev));
}
