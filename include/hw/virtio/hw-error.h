/*
 * Hardware errors: vhost-user back ends
 *
 * All of it is called with the BQL held.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_HW_ERROR_H
#define HW_VIRTIO_HW_ERROR_H

#include "chardev/char-fe.h"
#include "hw/qdev-core.h"
#include "hw/virtio/vhost.h"

/**
 * vhost_user_hw_error_watch: Report it when a back end is lost, or hangs.
 * @chr: the connection
 *
 * Until the device sets handlers of its own, if it does: then it has to call
 * vhost_user_hw_error_lost().  Those which do not use a back end for its first
 * connection only.
 */
void vhost_user_hw_error_watch(CharFrontend *chr);

/**
 * vhost_user_hw_error_unwatch: Do that no more.
 * @chr: the connection; it may be closed, and its chardev gone
 */
void vhost_user_hw_error_unwatch(CharFrontend *chr);

/**
 * vhost_user_hw_error_wait: Wait for a message, as vhost_user_quiesce_wait().
 * @hdev: any device on the connection
 * @chr: the connection
 *
 * Also not for ever if the back end is known to hang, and the VM is to be
 * stopped for that.  That nothing has come is reported.
 */
bool vhost_user_hw_error_wait(struct vhost_dev *hdev, CharFrontend *chr);

/** vhost_user_hw_error_lost: See hw_error_backend_lost(). */
void vhost_user_hw_error_lost(DeviceState *dev, CharFrontend *chr);

/** vhost_user_hw_error_back: See hw_error_backend_back(). */
void vhost_user_hw_error_back(DeviceState *dev, CharFrontend *chr);

#endif
