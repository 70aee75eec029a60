/*
 * Hardware errors: what a description of an error says
 *
 * Pure: no globals of QEMU.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_ERROR_RECORD_H
#define HW_ERROR_RECORD_H

#include "qapi/qapi-types-hw-error.h"

/** hw_error_component: Name of what has failed, for rules; NULL if unknown. */
const char *hw_error_component(const HwErrorInfo *info);

/**
 * hw_error_detail: What else tells errors of a component apart, that are not
 * to be coalesced: the page, the errno, ...
 */
uint64_t hw_error_detail(const HwErrorInfo *info);

/** hw_error_count: How many errors @info stands for. */
uint64_t hw_error_count(const HwErrorInfo *info);

/**
 * hw_error_check: Whether a description from outside QEMU is right.
 *
 * Returns false, and sets @errp to say which member is not.
 */
bool hw_error_check(const HwErrorInfo *info, Error **errp);

/**
 * hw_error_check_name: Whether @value, of member @name, may be the name of
 * something: 1 to 255 bytes, no control characters.
 */
bool hw_error_check_name(const char *name, const char *value, Error **errp);

#endif
