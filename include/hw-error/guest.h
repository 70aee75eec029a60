/*
 * Hardware errors: what a guest says of itself, or no longer says
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_ERROR_GUEST_H
#define HW_ERROR_GUEST_H

#include "qapi/qapi-types-run-state.h"
#include "qom/object.h"

/**
 * hw_error_guest_panicked: The guest's operating system says that it has
 * crashed.
 * @info: what it says, or NULL
 *
 * Called with the BQL held, from the vCPU that says so, if it is one.
 * Returns: true if the VM is stopped or quiesced, so that -action panic= must
 * not be done.
 */
bool hw_error_guest_panicked(const GuestPanicInformation *info);

/**
 * hw_error_guest_crashloaded: It does, but it has loaded a crash kernel, and
 * is left alone to write its own memory dump.
 *
 * Called as hw_error_guest_panicked().
 */
void hw_error_guest_crashloaded(const GuestPanicInformation *info);

/**
 * watchdog_perform_action_for: As watchdog_perform_action(), and the record of
 * the error names the watchdog that has expired.
 *
 * Called with the BQL held.
 */
void watchdog_perform_action_for(Object *watchdog);

/**
 * hw_error_watchdog: A watchdog has expired.
 * @action: what -action watchdog= says
 *
 * Called with the BQL held.  Returns: true if the VM is stopped or quiesced, so
 * that @action must not be done.
 */
bool hw_error_watchdog(WatchdogAction action);

#endif
