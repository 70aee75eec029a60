/*
 * Hardware errors: rules as QOM objects
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "internal.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-hw-error-common.h"
#include "qapi/visitor.h"
#include "qemu/module.h"
#include "qom/object.h"
#include "qom/object_interfaces.h"

#define TYPE_HW_ERROR_RULE "hw-error-rule"
OBJECT_DECLARE_SIMPLE_TYPE(HwErrorRuleObject, HW_ERROR_RULE)

/**
 * HwErrorRuleObject: For the main thread, with the BQL held.
 *
 * @props: the properties
 * @has_action: whether @props has its action
 * @rule: the rule that is effective; NULL until the object is complete
 */
struct HwErrorRuleObject {
    Object parent_obj;
    HwErrorRuleProperties props;
    bool has_action;
    HwErrorPolicyRule *rule;
};

/* Set once @rule is there would be a lie */
static bool hw_error_rule_may_set(HwErrorRuleObject *r, Error **errp)
{
    if (r->rule) {
        error_setg(errp, "A rule cannot be changed: make a new one");
        return false;
    }
    return true;
}

static void hw_error_rule_set_action(Object *obj, int value, Error **errp)
{
    HwErrorRuleObject *r = HW_ERROR_RULE(obj);

    if (hw_error_rule_may_set(r, errp)) {
        r->props.action = value;
        r->has_action = true;
    }
}

static void hw_error_rule_set_source(Object *obj, int value, Error **errp)
{
    HwErrorRuleObject *r = HW_ERROR_RULE(obj);

    if (hw_error_rule_may_set(r, errp)) {
        r->props.source = value;
        r->props.has_source = true;
    }
}

static void hw_error_rule_set_severity(Object *obj, int value, Error **errp)
{
    HwErrorRuleObject *r = HW_ERROR_RULE(obj);

    if (hw_error_rule_may_set(r, errp)) {
        r->props.severity = value;
        r->props.has_severity = true;
    }
}

static void hw_error_rule_set_component(Object *obj, const char *value,
                                        Error **errp)
{
    HwErrorRuleObject *r = HW_ERROR_RULE(obj);

    if (hw_error_rule_may_set(r, errp)) {
        g_free(r->props.component);
        r->props.component = g_strdup(value);
    }
}

static void hw_error_rule_set_number(Object *obj, Visitor *v, const char *name,
                                     Error **errp, bool *has, uint32_t *number)
{
    HwErrorRuleObject *r = HW_ERROR_RULE(obj);
    uint32_t value;

    if (hw_error_rule_may_set(r, errp) &&
        visit_type_uint32(v, name, &value, errp)) {
        *number = value;
        *has = true;
    }
}

static void hw_error_rule_set_threshold(Object *obj, Visitor *v,
                                        const char *name, void *opaque,
                                        Error **errp)
{
    HwErrorRuleProperties *props = &HW_ERROR_RULE(obj)->props;

    hw_error_rule_set_number(obj, v, name, errp, &props->has_threshold,
                             &props->threshold);
}

static void hw_error_rule_set_window(Object *obj, Visitor *v,
                                     const char *name, void *opaque,
                                     Error **errp)
{
    HwErrorRuleProperties *props = &HW_ERROR_RULE(obj)->props;

    hw_error_rule_set_number(obj, v, name, errp, &props->has_window,
                             &props->window);
}

static void hw_error_rule_set_stall_limit(Object *obj, Visitor *v,
                                          const char *name, void *opaque,
                                          Error **errp)
{
    HwErrorRuleProperties *props = &HW_ERROR_RULE(obj)->props;

    hw_error_rule_set_number(obj, v, name, errp, &props->has_stall_limit,
                             &props->stall_limit);
}

static void hw_error_rule_complete(UserCreatable *uc, Error **errp)
{
    HwErrorRuleObject *r = HW_ERROR_RULE(uc);

    if (!r->has_action) {
        error_setg(errp, "Parameter 'action' is missing");
        return;
    }
    r->rule = hw_error_rule_add(object_get_canonical_path_component(OBJECT(r)),
                                &r->props, errp);
}

static void hw_error_rule_finalize(Object *obj)
{
    HwErrorRuleObject *r = HW_ERROR_RULE(obj);

    if (r->rule) {
        hw_error_rule_remove(r->rule);
    }
    g_free(r->props.component);
}

static void hw_error_rule_class_init(ObjectClass *oc, const void *data)
{
    UserCreatableClass *ucc = USER_CREATABLE_CLASS(oc);

    ucc->complete = hw_error_rule_complete;

    object_class_property_add_enum(oc, "action", "HwErrorAction",
                                   &HwErrorAction_lookup, NULL,
                                   hw_error_rule_set_action);
    object_class_property_add_enum(oc, "source", "HwErrorSource",
                                   &HwErrorSource_lookup, NULL,
                                   hw_error_rule_set_source);
    object_class_property_add_enum(oc, "severity", "HwErrorSeverity",
                                   &HwErrorSeverity_lookup, NULL,
                                   hw_error_rule_set_severity);
    object_class_property_add_str(oc, "component", NULL,
                                  hw_error_rule_set_component);
    object_class_property_add(oc, "threshold", "uint32", NULL,
                              hw_error_rule_set_threshold, NULL, NULL);
    object_class_property_add(oc, "window", "uint32", NULL,
                              hw_error_rule_set_window, NULL, NULL);
    object_class_property_add(oc, "stall-limit", "uint32", NULL,
                              hw_error_rule_set_stall_limit, NULL, NULL);
}

static const TypeInfo hw_error_rule_info = {
    .name = TYPE_HW_ERROR_RULE,
    .parent = TYPE_OBJECT,
    .instance_size = sizeof(HwErrorRuleObject),
    .instance_finalize = hw_error_rule_finalize,
    .class_init = hw_error_rule_class_init,
    .interfaces = (const InterfaceInfo[]) {
        { TYPE_USER_CREATABLE },
        { }
    }
};

static void hw_error_rule_register_types(void)
{
    type_register_static(&hw_error_rule_info);
}

type_init(hw_error_rule_register_types)
