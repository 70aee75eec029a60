/*
 * Test of hardware errors: machine checks that the monitor injects
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw-error-util.h"
#include "vm-quiesce-util.h"

#define MCE_ADDRESS 0x123000

typedef struct MceCase {
    const char *name;
    uint64_t status;
    const char *severity;
    bool action_required;
} MceCase;

/* With a valid address, and its least significant bit */
static const MceCase mce_cases[] = {
    { "corrected", 0x8c00000000000136, "corrected", false },
    { "ucna", 0xbc00000000000136, "recoverable", false },
    { "srao", 0xbd000000000000c0, "recoverable", false },
    { "srar", 0xbd80000000000134, "recoverable", true },
    { "fatal", 0xbe00000000000134, "fatal", false },
};

static void check_mce_info(QDict *info, const MceCase *c)
{
    g_assert_cmpstr(qdict_get_try_str(info, "source"), ==, "guest-memory");
    g_assert_cmpstr(qdict_get_try_str(info, "severity"), ==, c->severity);
    g_assert_cmpstr(qdict_get_try_str(info, "ram-block"), ==, "pc.ram");
    g_assert_cmpstr(qdict_get_try_str(info, "component"), ==, "pc.ram");
    g_assert_cmphex(qdict_get_try_int(info, "ram-offset", -1), ==, MCE_ADDRESS);
    g_assert_cmphex(qdict_get_try_int(info, "guest-address", -1), ==,
                    MCE_ADDRESS);
    g_assert_cmpint(qdict_get_try_int(info, "page-size", -1), ==, 4096);
    g_assert_cmpint(qdict_get_try_int(info, "vcpu", -1), ==, 1);
    g_assert_cmpint(qdict_get_bool(info, "action-required"), ==,
                    c->action_required);
}

static void test_mce(const void *opaque)
{
    const HweCase *test = opaque;
    const MceCase *c = test->data;
    g_autoptr(QDict) info = NULL;
    g_autofree char *answer = NULL;
    QTestState *qts;

    if (!qtest_has_accel("tcg")) {
        g_test_skip("TCG is not built in: no vCPU to inject into");
        return;
    }
    qts = hwe_init("-machine pc -accel tcg -smp 2 -nodefaults", "guest-memory",
                   test->action);
    answer = qtest_hmp(qts, "mce 1 2 %" PRIu64 " 5 %d %d", c->status,
                       MCE_ADDRESS, 2 << 6 | 12);
    info = hwe_expect(qts, test->action, true, "paused");
    if (info) {
        check_mce_info(info, c);
    }
    if (hwe_contains(test->action)) {
        g_assert_cmpstr(answer, ==, "");
        g_assert_cmpint(hwe_count("MEMORY_FAILURE"), ==, 0);
        g_assert_cmpint(hwe_count("RESET"), ==, 0);
    } else {
        qobject_unref(hwe_event(qts, "MEMORY_FAILURE"));
        vmq_assert_status(qts, "running");
    }
    qtest_quit(qts);
}

/* Without an address, nothing is said of where it is */
static void test_mce_no_address(void)
{
    g_autoptr(QDict) info = NULL;
    QTestState *qts;

    if (!qtest_has_accel("tcg")) {
        g_test_skip("TCG is not built in: no vCPU to inject into");
        return;
    }
    qts = hwe_init("-machine pc -accel tcg -nodefaults", "guest-memory",
                   HWE_NONE);
    g_free(qtest_hmp(qts, "mce 0 2 %" PRIu64 " 0 0 0", 0x8000000000000136));
    info = hwe_expect(qts, HWE_NONE, true, NULL);
    g_assert_false(qdict_haskey(info, "guest-address"));
    g_assert_false(qdict_haskey(info, "ram-block"));
    g_assert_false(qdict_haskey(info, "page-size"));
    qtest_quit(qts);
}

/* What is refused is no error */
static void test_mce_invalid(void)
{
    g_autofree char *answer = NULL;
    QTestState *qts = hwe_init("-machine pc -nodefaults", "guest-memory",
                               HWE_QUIESCE);

    answer = qtest_hmp(qts, "mce 0 99 %" PRIu64 " 0 0 0", 0x8000000000000136);
    g_assert_nonnull(strstr(answer, "Invalid MCE bank number"));
    hwe_expect_none(qts);
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    int i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(mce_cases); i++) {
        hwe_add_cases(test_mce, &mce_cases[i], "mce/%s", mce_cases[i].name);
    }
    qtest_add_func("hw-error/mce/no-address", test_mce_no_address);
    qtest_add_func("hw-error/mce/invalid", test_mce_invalid);
    return g_test_run();
}
