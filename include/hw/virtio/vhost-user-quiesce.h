/*
 * Quiesced run state: vhost-user back ends
 *
 * A back end is told to stop its rings long before vhost_dev_stop() asks it
 * to, and its answers are read when they come, so that nobody waits for them.
 *
 * All of it is for the main thread, with the BQL held.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_VHOST_USER_QUIESCE_H
#define HW_VIRTIO_VHOST_USER_QUIESCE_H

#include "chardev/char-fe.h"
#include "hw/virtio/vhost.h"

/** vhost_user_quiesce_connection: The connection that a device uses. */
CharFrontend *vhost_user_quiesce_connection(struct vhost_dev *dev);

/**
 * vhost_user_quiesce_ask: Ask a back end something harmless.
 *
 * Returns: false if the connection is down; else one answer will come, before
 * which the connection must not be used.
 */
bool vhost_user_quiesce_ask(struct vhost_dev *dev);

/**
 * vhost_user_quiesce_stop_rings: Tell a back end to stop the rings of a device.
 * @dev: a started device
 *
 * Returns: number of answers that will come, before which the connection must
 * not be used.
 */
unsigned vhost_user_quiesce_stop_rings(struct vhost_dev *dev);

/**
 * vhost_user_quiesce_answer: Read one answer, whichever it is.
 * @dev: any device on the connection
 *
 * Returns: false if there is none to read any more.
 */
bool vhost_user_quiesce_answer(struct vhost_dev *dev);

/** vhost_user_quiesce_end: Forget the answers that nobody has asked for. */
void vhost_user_quiesce_end(void);

/**
 * vhost_user_wait_limited: Wait for a message, but not for ever.
 * @chr: the connection; it is closed if nothing comes, because an answer that
 *       comes late would be taken for another one
 *
 * Returns: false if nothing has come.
 */
bool vhost_user_wait_limited(CharFrontend *chr);

/**
 * vhost_user_quiesce_wait: Do that if the VM is being quiesced or quiesced; it
 * is not necessary otherwise.
 */
bool vhost_user_quiesce_wait(CharFrontend *chr);

#endif
