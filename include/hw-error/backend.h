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
#include "qemu/queue.h"

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

/** hw_error_backend_is_lost: Whether that was so, and it is not back. */
bool hw_error_backend_is_lost(const char *chardev);

/**
 * HwErrorBackendWait: What a back end that hangs does not get on with.
 *
 * @dev: the device that depends on it, or NULL if there is none yet
 * @age_ms: for how long, in milliseconds; 0 if that is not known
 * @has_queue: whether @queue is known
 * @queue: index of the virtqueue that has waited longest
 */
typedef struct HwErrorBackendWait {
    Object *dev;
    int64_t age_ms;
    bool has_queue;
    uint16_t queue;
} HwErrorBackendWait;

/**
 * hw_error_backend_hung: A back end has not answered in time, or has not got
 * on with what the guest wants.
 *
 * Reported once, until it is back.  Returns the action that was chosen then.
 */
HwErrorAction hw_error_backend_hung(HwErrorBackendType type, CharFrontend *fe,
                                    const HwErrorBackendWait *wait);

/**
 * hw_error_backend_back: A back end is connected, and can be used; or it gets
 * on again.
 * @dev: as above; if it is NULL, the one that was reported to hang is meant
 *
 * Reported only if it was lost or hung.
 */
void hw_error_backend_back(HwErrorBackendType type, Object *dev,
                           CharFrontend *fe);

/** hw_error_backend_forget: A device will not use the chardev any more. */
void hw_error_backend_forget(const char *chardev);

/* Back ends that may hang (backends/hw-error-watch.c); main thread only */

/**
 * HwErrorBackendWatch: A back end that is looked at from time to time, while
 * a rule has a limit for one, or it is known to hang.
 *
 * @type: its kind
 * @fe: the connection
 * @look: set @wait to what it does not get on with; leave it as it is, all
 *     zeroes, if there is nothing.  Must not wait.  Returns false if that
 *     cannot be told now; nothing is reported then.
 *
 * The rest is private:
 * @chardev: name of the character device
 * @limit_ms: if it is known to hang, the limit that it has exceeded, or else 0
 * @contained: whether the VM was stopped, or quiesced, for that
 */
typedef struct HwErrorBackendWatch HwErrorBackendWatch;
struct HwErrorBackendWatch {
    HwErrorBackendType type;
    CharFrontend *fe;
    bool (*look)(HwErrorBackendWatch *w, HwErrorBackendWait *wait);

    char *chardev;
    uint32_t limit_ms;
    bool contained;
    QLIST_ENTRY(HwErrorBackendWatch) next;
};

/** hw_error_backend_watch: Watch a back end; the caller has set it up. */
void hw_error_backend_watch(HwErrorBackendWatch *w);

/**
 * hw_error_backend_unwatch: Do that no more, and forget what was wrong with
 * it.  Its connection may be gone already.
 */
void hw_error_backend_unwatch(HwErrorBackendWatch *w);

/** hw_error_backend_find_watch: Who watches a connection; NULL if nobody. */
HwErrorBackendWatch *hw_error_backend_find_watch(CharFrontend *fe);

/**
 * HwErrorBackendStep: One of the things that a back end has to get on with:
 * all zeroes at first; private.
 */
typedef struct HwErrorBackendStep {
    uint32_t position;
    unsigned scan;
    int64_t age_ms;
} HwErrorBackendStep;

/**
 * hw_error_backend_step_ms: For how many milliseconds a back end has had
 * something to do, and has not got on with it.
 * @s: what it has to do something for
 * @position: another number whenever it gets on
 *
 * For @look only, which calls it whenever there is something to do, and then
 * only.  Time in which nobody could look is not counted: perhaps the back end
 * was not able to run then, either.
 */
int64_t hw_error_backend_step_ms(HwErrorBackendStep *s, uint32_t position);

#endif
