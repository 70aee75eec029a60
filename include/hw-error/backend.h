/*
 * Hardware errors: processes that a device depends on
 *
 * All of it is called with the BQL held.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_ERROR_BACKEND_H
#define HW_ERROR_BACKEND_H

#include "chardev/char-fe.h"
#include "qapi/qapi-types-hw-error.h"

/**
 * hw_error_backend_lost: The connection to a back end is closed.
 * @type: its kind
 * @dev: the device that depends on it, or NULL if there is none yet
 * @fe: the connection
 * @reusable: whether the device uses it again if it is connected again
 *
 * Reported once, until it is back.  The device does what it does without a
 * policy: requests that are in flight stay so until the back end is back.
 */
void hw_error_backend_lost(HwErrorBackendType type, Object *dev,
                           CharFrontend *fe, bool reusable);

/**
 * hw_error_backend_hung: A back end has not answered in time.
 *
 * As hw_error_backend_lost(), but reported each time.
 */
void hw_error_backend_hung(HwErrorBackendType type, Object *dev,
                           CharFrontend *fe);

/**
 * hw_error_backend_back: A back end is connected, and can be used.
 *
 * Reported only if it was lost.
 */
void hw_error_backend_back(HwErrorBackendType type, Object *dev,
                           CharFrontend *fe);

#endif
