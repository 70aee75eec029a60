/*
 * Hardware errors: which rule is for an error
 *
 * The rules are kept in the order in which they are tried, which depends on
 * what they are for only: the order in which they were made never matters.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "policy.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-hw-error-common.h"
#include "qemu/timer.h"
#include "record.h"

#define MAX_THRESHOLD 10000
#define MAX_WINDOW_S (365 * 24 * 60 * 60)
#define MIN_STALL_LIMIT_MS 10
#define MAX_STALL_LIMIT_MS (24 * 60 * 60 * 1000)

/* Leaky buckets */

static uint32_t bucket_index(const HwErrorBucket *b, uint32_t n)
{
    return (b->first + n) % b->size;
}

static uint32_t bucket_leaked(const HwErrorBucket *b, int64_t now_ns)
{
    uint32_t n = 0;

    while (n < b->level &&
           now_ns - b->times[bucket_index(b, n)] > b->window_ns) {
        n++;
    }
    return n;
}

bool hw_error_bucket_add(HwErrorBucket *b, uint64_t n, int64_t now_ns)
{
    uint32_t leaked = bucket_leaked(b, now_ns);

    b->first = bucket_index(b, leaked);
    b->level -= leaked;
    if (n >= b->size - b->level) {
        b->level = 0;
        return true;
    }
    while (n--) {
        b->times[bucket_index(b, b->level++)] = now_ns;
    }
    return false;
}

/* Rules */

/* One with a component before all without, and so on */
static int rule_rank(const HwErrorRuleProperties *m)
{
    return (m->component ? 4 : 0) | (m->has_source ? 2 : 0) |
           (m->has_severity ? 1 : 0);
}

/* Negative if @a is tried before @b, 0 if they are for the same errors */
static int rule_compare(const HwErrorRuleProperties *a,
                        const HwErrorRuleProperties *b)
{
    int ret = rule_rank(b) - rule_rank(a);

    if (!ret) {
        ret = g_strcmp0(a->component, b->component);
    }
    if (!ret && a->has_source) {
        ret = (int)a->source - (int)b->source;
    }
    if (!ret && a->has_severity) {
        ret = (int)a->severity - (int)b->severity;
    }
    return ret;
}

static bool rule_matches(const HwErrorRuleProperties *m, HwErrorSource source,
                         HwErrorSeverity severity, const char *component)
{
    return (!m->has_source || m->source == source) &&
           (!m->has_severity || m->severity == severity) &&
           (!m->component || !g_strcmp0(m->component, component));
}

bool hw_error_can_inject(HwErrorSource source)
{
    return source == HW_ERROR_SOURCE_GUEST_MEMORY ||
           source == HW_ERROR_SOURCE_PCIE_AER ||
           source == HW_ERROR_SOURCE_BLOCK_IO;
}

static bool rule_check(const HwErrorRuleProperties *m, Error **errp)
{
    if (m->component &&
        !hw_error_check_name("component", m->component, errp)) {
        return false;
    }
    if (m->has_threshold && (!m->threshold || m->threshold > MAX_THRESHOLD)) {
        error_setg(errp, "Property 'threshold' must be between 1 and %d",
                   MAX_THRESHOLD);
        return false;
    }
    if (m->has_window && (!m->window || m->window > MAX_WINDOW_S)) {
        error_setg(errp, "Property 'window' must be between 1 and %d",
                   MAX_WINDOW_S);
        return false;
    }
    if (m->has_window != (m->has_threshold && m->threshold > 1)) {
        error_setg(errp, m->has_window
                   ? "Property 'window' requires a 'threshold' of at least 2"
                   : "A 'threshold' of more than 1 requires property 'window'");
        return false;
    }
    if (m->has_stall_limit &&
        !(m->has_source && (m->source == HW_ERROR_SOURCE_BLOCK_STALL ||
                            m->source == HW_ERROR_SOURCE_BACKEND))) {
        error_setg(errp, "Property 'stall-limit' requires source 'block-stall' "
                   "or 'backend'");
        return false;
    }
    if (m->has_stall_limit && (m->stall_limit < MIN_STALL_LIMIT_MS ||
                               m->stall_limit > MAX_STALL_LIMIT_MS)) {
        error_setg(errp, "Property 'stall-limit' must be between %d and %d",
                   MIN_STALL_LIMIT_MS, MAX_STALL_LIMIT_MS);
        return false;
    }
    if (m->action == HW_ERROR_ACTION_INJECT && m->has_source &&
        !hw_error_can_inject(m->source)) {
        error_setg(errp, "Errors of source '%s' cannot be injected",
                   HwErrorSource_str(m->source));
        return false;
    }
    return true;
}

HwErrorPolicyRule *hw_error_policy_add(HwErrorRules *rules, const char *id,
                                       const HwErrorRuleProperties *match,
                                       Error **errp)
{
    HwErrorPolicyRule *rule, *other;
    int cmp = -1;

    if (!rule_check(match, errp)) {
        return NULL;
    }
    QTAILQ_FOREACH(other, rules, next) {
        cmp = rule_compare(match, other->match);
        if (cmp <= 0) {
            break;
        }
    }
    if (other && !cmp) {
        error_setg(errp, "Rule '%s' is for the same errors", other->id);
        return NULL;
    }

    rule = g_new0(HwErrorPolicyRule, 1);
    rule->id = g_strdup(id);
    rule->match = QAPI_CLONE(HwErrorRuleProperties, match);
    rule->bucket.size = match->has_threshold ? match->threshold : 1;
    rule->bucket.times = g_new(int64_t, rule->bucket.size);
    rule->bucket.window_ns = match->window * NANOSECONDS_PER_SECOND;
    if (other) {
        QTAILQ_INSERT_BEFORE(other, rule, next);
    } else {
        QTAILQ_INSERT_TAIL(rules, rule, next);
    }
    return rule;
}

void hw_error_policy_remove(HwErrorRules *rules, HwErrorPolicyRule *rule)
{
    QTAILQ_REMOVE(rules, rule, next);
    qapi_free_HwErrorRuleProperties(rule->match);
    g_free(rule->bucket.times);
    g_free(rule->id);
    g_free(rule);
}

HwErrorPolicyRule *hw_error_policy_choose(HwErrorRules *rules,
                                          HwErrorSource source,
                                          HwErrorSeverity severity,
                                          const char *component,
                                          uint64_t count, int64_t now_ns)
{
    HwErrorPolicyRule *rule;

    QTAILQ_FOREACH(rule, rules, next) {
        if (rule_matches(rule->match, source, severity, component) &&
            hw_error_bucket_add(&rule->bucket, count, now_ns)) {
            rule->hits++;
            return rule;
        }
    }
    return NULL;
}

static uint32_t bucket_level(const HwErrorBucket *b, int64_t now_ns)
{
    return b->level - bucket_leaked(b, now_ns);
}

const HwErrorPolicyRule *hw_error_policy_peek(HwErrorRules *rules,
                                              HwErrorSource source,
                                              HwErrorSeverity severity,
                                              const char *component,
                                              uint64_t count, int64_t now_ns)
{
    HwErrorPolicyRule *rule;

    QTAILQ_FOREACH(rule, rules, next) {
        const HwErrorBucket *b = &rule->bucket;

        if (rule_matches(rule->match, source, severity, component) &&
            count >= b->size - bucket_level(b, now_ns)) {
            return rule;
        }
    }
    return NULL;
}

uint32_t hw_error_policy_stall_limit(HwErrorRules *rules,
                                     HwErrorSource source,
                                     const char *component)
{
    HwErrorPolicyRule *rule;
    uint32_t limit = 0;

    QTAILQ_FOREACH(rule, rules, next) {
        const HwErrorRuleProperties *m = rule->match;

        if (!m->has_stall_limit || m->source != source) {
            continue;
        }
        if (!component) {
            limit = limit ? MIN(limit, m->stall_limit) : m->stall_limit;
        } else if (!m->component || !strcmp(m->component, component)) {
            return m->stall_limit;
        }
    }
    return limit;
}

void hw_error_policy_reset(HwErrorRules *rules)
{
    HwErrorPolicyRule *rule;

    QTAILQ_FOREACH(rule, rules, next) {
        rule->bucket.level = 0;
    }
}

HwErrorRuleList *hw_error_policy_query(HwErrorRules *rules, int64_t now_ns)
{
    HwErrorRuleList *list = NULL, **tail = &list;
    HwErrorPolicyRule *rule;

    QTAILQ_FOREACH(rule, rules, next) {
        const HwErrorRuleProperties *m = rule->match;
        HwErrorRule *info = g_new0(HwErrorRule, 1);

        info->id = g_strdup(rule->id);
        info->action = m->action;
        info->has_source = m->has_source;
        info->source = m->source;
        info->has_severity = m->has_severity;
        info->severity = m->severity;
        info->component = g_strdup(m->component);
        info->threshold = rule->bucket.size;
        info->has_window = m->has_window;
        info->window = m->window;
        info->level = bucket_level(&rule->bucket, now_ns);
        info->has_stall_limit = m->has_stall_limit;
        info->stall_limit = m->stall_limit;
        info->hits = rule->hits;
        QAPI_LIST_APPEND(tail, info);
    }
    return list;
}
