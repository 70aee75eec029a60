/*
 * Test of the errors of VFIO devices, with a policy that is made up
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw-error/hw-error.h"
#include "hw-error/severity.h"
#include "hw/vfio/hw-error.h"
#include "qapi/clone-visitor.h"
#include "qapi/qapi-visit-hw-error.h"

#define QOM_PATH "/machine/peripheral/nic"
#define GUEST_ADDRESS "0000:01:00.0"

/* What the policy answers, and what it was asked: one report, to be freed */
static HwErrorAction action;
static HwErrorInfo *report;

HwErrorAction hw_error_report(const HwErrorInfo *info)
{
    g_assert_null(report);
    report = QAPI_CLONE(HwErrorInfo, info);
    return action;
}

HwErrorSeverity hw_error_severity(HwErrorScheme scheme, const char *word)
{
    g_assert_cmpint(scheme, ==, HW_ERROR_SCHEME_AER);
    if (g_str_equal(word, "correctable")) {
        return HW_ERROR_SEVERITY_CORRECTED;
    }
    g_assert_cmpstr(word, ==, "fatal");
    return HW_ERROR_SEVERITY_FATAL;
}

static bool happen(const char *name, bool unplug_requested)
{
    g_autofree char *copy = g_strdup(name);
    VFIODevice vbasedev = { .name = copy };

    g_clear_pointer(&report, qapi_free_HwErrorInfo);
    return vfio_hw_error(&vbasedev, QOM_PATH, GUEST_ADDRESS,
                         unplug_requested);
}

static void test_record(void)
{
    const HwErrorPci *pci;

    happen("0000:5e:00.1", false);
    pci = &report->u.vfio;
    g_assert_cmpint(report->source, ==, HW_ERROR_SOURCE_VFIO);
    g_assert_cmpint(report->severity, ==, HW_ERROR_SEVERITY_FATAL);
    g_assert_cmpstr(pci->qom_path, ==, QOM_PATH);
    g_assert_cmpstr(pci->guest_address, ==, GUEST_ADDRESS);
    g_assert_cmpstr(pci->host_address, ==, "0000:5e:00.1");
    g_assert_true(pci->has_unplug_requested);
    g_assert_false(pci->unplug_requested);
    /* Nobody has read them */
    g_assert_false(pci->has_uncorrectable_status);
    g_assert_false(pci->has_correctable_status);
    g_assert_false(pci->has_tlp_header);
}

static void test_unplug_requested(void)
{
    happen("0000:5e:00.1", true);
    g_assert_cmpint(report->source, ==, HW_ERROR_SOURCE_VFIO);
    g_assert_cmpint(report->severity, ==, HW_ERROR_SEVERITY_CORRECTED);
    g_assert_true(report->u.vfio.has_unplug_requested);
    g_assert_true(report->u.vfio.unplug_requested);
}

/* Only what is an address on the host is called one */
static void test_names(void)
{
    static const struct {
        const char *name;
        bool is_address;
    } names[] = {
        { "0000:00:1f.7", true },
        { "10000:e1:00.0", true },
        { "ABCD:ef:00.0", true },
        { NULL, false },
        { "", false },
        { "VFIO_FD12", false },
        { "my-nic", false },
        { "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001", false },
        { "0000:5e:00.8", false },
        { "0000:5e:20.0", false },
        { "5e:00.1", false },
        { "0000:5e:00.1 ", false },
        { "x0000:5e:00.1", false },
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(names); i++) {
        happen(names[i].name, false);
        g_assert_cmpstr(report->u.vfio.host_address, ==,
                        names[i].is_address ? names[i].name : NULL);
    }
}

/* For what is upstream's reaction the caller's, and for what is it not */
static void test_actions(void)
{
    for (action = 0; action < HW_ERROR_ACTION__MAX; action++) {
        bool contained = action == HW_ERROR_ACTION_STOP ||
                         action == HW_ERROR_ACTION_QUIESCE;

        g_assert_cmpint(happen("0000:5e:00.1", false), ==, contained);
        g_assert_cmpint(happen("0000:5e:00.1", true), ==, contained);
    }
    action = HW_ERROR_ACTION_IGNORE;
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vfio-hw-error/record", test_record);
    g_test_add_func("/vfio-hw-error/unplug-requested", test_unplug_requested);
    g_test_add_func("/vfio-hw-error/names", test_names);
    g_test_add_func("/vfio-hw-error/actions", test_actions);
    ret = g_test_run();
    qapi_free_HwErrorInfo(report);
    return ret;
}
