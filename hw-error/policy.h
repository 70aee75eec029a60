/*
 * Hardware errors: which rule is for an error
 *
 * Pure: no globals of QEMU, times are given.  The caller sees to locking.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_ERROR_POLICY_H
#define HW_ERROR_POLICY_H

#include "qapi/qapi-types-hw-error.h"
#include "qemu/queue.h"

/**
 * HwErrorBucket: The errors that count towards a threshold.  Each leaks out
 * when it is older than the window.
 *
 * @times: when they were found, a ring of @size
 * @size: the threshold
 * @first: index of the oldest
 * @level: how many there are
 * @window_ns: how long they count
 */
typedef struct HwErrorBucket {
    int64_t *times;
    uint32_t size;
    uint32_t first;
    uint32_t level;
    int64_t window_ns;
} HwErrorBucket;

/**
 * hw_error_bucket_add: Count errors.
 * @n: how many
 * @now_ns: when; never less than before
 *
 * Returns whether the threshold is reached; then the bucket is empty again.
 */
bool hw_error_bucket_add(HwErrorBucket *b, uint64_t n, int64_t now_ns);

/** HwErrorPolicyRule: A rule.  Private, but for what is const. */
typedef struct HwErrorPolicyRule {
    char *id;
    HwErrorRuleProperties *match;
    HwErrorBucket bucket;
    uint64_t hits;
    QTAILQ_ENTRY(HwErrorPolicyRule) next;
} HwErrorPolicyRule;

/** HwErrorRules: The rules, the most specific ones first. */
typedef QTAILQ_HEAD(HwErrorRules, HwErrorPolicyRule) HwErrorRules;

/**
 * hw_error_policy_add: Add a rule.
 * @id: its name; copied
 * @match: what it is for, and what it does; copied
 *
 * Returns NULL, with @errp set and nothing changed, if a property is out of
 * range, or there is a rule for the same errors.
 */
HwErrorPolicyRule *hw_error_policy_add(HwErrorRules *rules, const char *id,
                                       const HwErrorRuleProperties *match,
                                       Error **errp);

/** hw_error_policy_remove: Remove a rule, and free it. */
void hw_error_policy_remove(HwErrorRules *rules, HwErrorPolicyRule *rule);

/**
 * hw_error_policy_choose: Find the rule for an error, and count the error.
 * @component: name of the component; may be NULL
 * @count: how many errors
 * @now_ns: when; never less than before
 *
 * Returns NULL if there is none.
 */
HwErrorPolicyRule *hw_error_policy_choose(HwErrorRules *rules,
                                          HwErrorSource source,
                                          HwErrorSeverity severity,
                                          const char *component,
                                          uint64_t count, int64_t now_ns);

/** hw_error_policy_peek: As hw_error_policy_choose(), without counting. */
const HwErrorPolicyRule *hw_error_policy_peek(HwErrorRules *rules,
                                              HwErrorSource source,
                                              HwErrorSeverity severity,
                                              const char *component,
                                              uint64_t count, int64_t now_ns);

/**
 * hw_error_policy_stall_limit: When a request in flight counts as stalled, or
 * a back end as hung.
 * @source: 'block-stall' or 'backend'
 * @component: name of the component; NULL if any could be meant: then the
 *     lowest limit that there is
 *
 * In milliseconds; 0 if never.
 */
uint32_t hw_error_policy_stall_limit(HwErrorRules *rules,
                                     HwErrorSource source,
                                     const char *component);

/** hw_error_policy_reset: Count anew. */
void hw_error_policy_reset(HwErrorRules *rules);

/** hw_error_policy_query: Describe the rules, the most specific ones first. */
HwErrorRuleList *hw_error_policy_query(HwErrorRules *rules, int64_t now_ns);

/**
 * hw_error_can_inject: Whether there is a way to tell the guest of errors of
 * @source.
 */
bool hw_error_can_inject(HwErrorSource source);

#endif
