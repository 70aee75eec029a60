/*
 * Hardware errors: what the files in hw-error/ share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_ERROR_INTERNAL_H
#define HW_ERROR_INTERNAL_H

#include "policy.h"

/**
 * hw_error_rule_add: Make a rule effective.
 *
 * As hw_error_policy_add(); called from the main thread with the BQL held.
 */
HwErrorPolicyRule *hw_error_rule_add(const char *id,
                                     const HwErrorRuleProperties *match,
                                     Error **errp);

/**
 * hw_error_rule_remove: Make a rule ineffective, and free it.
 *
 * Called from the main thread with the BQL held.
 */
void hw_error_rule_remove(HwErrorPolicyRule *rule);

#endif
