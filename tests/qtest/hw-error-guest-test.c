/*
 * Test of hardware errors: guests that have crashed, and watchdogs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/misc/pvpanic.h"
#include "hw/pci/pci.h"
#include "hw-error-util.h"
#include "libqos/pci-pc.h"
#include "qemu/timer.h"
#include "vm-quiesce-util.h"

/* Guest panic */

#define PVPANIC_PORT 0x505

static void check_guest_info(QDict *info, bool kdump, const char *action)
{
    g_assert_cmpstr(qdict_get_try_str(info, "source"), ==, "guest-panic");
    g_assert_cmpstr(qdict_get_try_str(info, "severity"), ==, "fatal");
    g_assert_cmpint(qdict_get_bool(info, "kdump"), ==, kdump);
    g_assert_cmpstr(qdict_get_try_str(info, "action"), ==, action);
}

static void wait_guest_event(QTestState *qts, const char *name,
                             const char *action)
{
    g_autoptr(QDict) data = hwe_event(qts, name);

    g_assert_cmpstr(qdict_get_try_str(data, "action"), ==, action);
}

static void test_panic(const void *opaque)
{
    const HweCase *test = opaque;
    g_autoptr(QDict) info = NULL;
    QTestState *qts = hwe_init("-device pvpanic -action panic=none",
                               "guest-panic", test->action);

    qtest_outb(qts, PVPANIC_PORT, PVPANIC_PANICKED);
    info = hwe_expect(qts, test->action, false, "guest-panicked");
    if (info) {
        check_guest_info(info, false, "run");
    }
    wait_guest_event(qts, "GUEST_PANICKED",
                     hwe_contains(test->action) ? "pause" : "run");
    if (!hwe_contains(test->action)) {
        vmq_assert_status(qts, "running");
    }
    qtest_quit(qts);
}

/* As firmware: says that it has crashed, and goes on */
static const uint8_t panic_code[] = {
    0xba, 0x05, 0x05,       /* mov $0x505,%dx */
    0xb0, 0x01,             /* mov $1,%al */
    0xee,                   /* out %al,%dx */
    0xeb, 0x00,             /* jmp +0 */
    0xfe, 0x06, 0x00, 0x05, /* incb 0x500 */
    0xeb, 0xfe,             /* jmp . */
};

/* A vCPU that says so does not run on when the VM is stopped or quiesced */
static void test_panic_vcpu(const void *opaque)
{
    const HweCase *test = opaque;
    g_autofree uint8_t *firmware = g_malloc0(64 * 1024);
    g_autofree char *path = vmq_tmpfile("firmware");
    g_autofree char *args = NULL;
    g_autoptr(QDict) info = NULL;
    QTestState *qts;

    if (!qtest_has_accel("tcg")) {
        g_test_skip("TCG is not built in: no vCPU that could crash");
        return;
    }
    /* The CPU starts 16 bytes below its end */
    memcpy(firmware + 64 * 1024 - 16, panic_code, sizeof(panic_code));
    g_assert_true(g_file_set_contents(path, (char *)firmware, 64 * 1024,
                                      NULL));
    args = g_strdup_printf("-machine pc -accel tcg -S -device pvpanic "
                           "-action panic=none -bios %s", path);
    qts = hwe_init(args, "guest-panic", test->action);
    qtest_qmp_assert_success(qts, "{ 'execute': 'cont' }");
    wait_guest_event(qts, "GUEST_PANICKED",
                     hwe_contains(test->action) ? "pause" : "run");
    info = hwe_expect(qts, test->action, false, "guest-panicked");
    if (hwe_contains(test->action)) {
        g_assert_cmpint(qtest_readb(qts, 0x500), ==, 0);
    } else {
        while (!qtest_readb(qts, 0x500)) {
            g_usleep(1000);
        }
        vmq_assert_status(qts, "running");
    }
    qtest_quit(qts);
    unlink(path);
}

/* Without a rule, as upstream; with one, the VM can be used afterwards */
static void test_panic_shutdown(const void *opaque)
{
    const HweCase *test = opaque;
    g_autoptr(QDict) record = NULL;
    QTestState *qts = hwe_init("-device pvpanic -action panic=shutdown",
                               "guest-panic", test->action);

    qtest_outb(qts, PVPANIC_PORT, PVPANIC_PANICKED);
    record = hwe_event(qts, "HARDWARE_ERROR");
    check_guest_info(qdict_get_qdict(record, "info"), false, "poweroff");
    if (test->action == HWE_NONE) {
        wait_guest_event(qts, "GUEST_PANICKED", "poweroff");
        qobject_unref(hwe_event(qts, "SHUTDOWN"));
        qtest_wait_qemu(qts);
        qtest_quit(qts);
        return;
    }
    wait_guest_event(qts, "GUEST_PANICKED", "pause");
    hwe_unquiesce(qts, record);
    vmq_cont(qts);
    g_assert_cmpint(hwe_count("SHUTDOWN"), ==, 0);
    qtest_quit(qts);
}

/* A guest that is writing its own dump is left alone */
static void test_crashloaded(const void *opaque)
{
    const HweCase *test = opaque;
    g_autoptr(QDict) info = NULL;
    QTestState *qts = hwe_init("-device pvpanic", "guest-panic", test->action);

    qtest_outb(qts, PVPANIC_PORT, PVPANIC_CRASH_LOADED);
    info = hwe_expect(qts, test->action == HWE_IGNORE ? HWE_IGNORE
                                                      : HWE_REPORT,
                      false, NULL);
    if (info) {
        check_guest_info(info, true, "run");
    }
    wait_guest_event(qts, "GUEST_CRASHLOADED", "run");
    vmq_assert_status(qts, "running");
    g_assert_cmpint(hwe_count("STOP"), ==, 0);
    g_assert_cmpint(hwe_count("VM_QUIESCED"), ==, 0);
    qtest_quit(qts);
}

/* Watchdogs */

#define TCO_PM_BASE 0x600
#define TCO_RCBA 0xfed1c000u

static void ib700_expire(QTestState *qts)
{
    /* Limit of 0 seconds */
    qtest_outb(qts, 0x443, 15);
}

static void i6300esb_expire(QTestState *qts)
{
    QPCIBus *bus = qpci_new_pc(qts, NULL);
    QPCIDevice *dev = qpci_device_find(bus, QPCI_DEVFN(6, 0));

    /* No interrupt after the first stage */
    qpci_config_writew(dev, 0x60, 3);
    /* Enable it; each of its two stages takes about 1031 seconds */
    qpci_config_writeb(dev, 0x68, 2);
    qtest_clock_step(qts, 1100 * NANOSECONDS_PER_SECOND);
    qtest_clock_step(qts, 1100 * NANOSECONDS_PER_SECOND);
    g_free(dev);
    qpci_free_pc(bus);
}

static void tco_expire(QTestState *qts)
{
    QPCIBus *bus = qpci_new_pc(qts, NULL);
    QPCIDevice *dev = qpci_device_find(bus, QPCI_DEVFN(0x1f, 0));

    /* The chip's registers: power management, then "no reboot" off */
    qpci_config_writel(dev, 0x40, TCO_PM_BASE | 1);
    qpci_config_writeb(dev, 0x44, 0x80);
    qpci_config_writel(dev, 0xf0, TCO_RCBA | 1);
    qtest_writel(qts, TCO_RCBA + 0x3410,
                 qtest_readl(qts, TCO_RCBA + 0x3410) & ~0x20u);
    /* TCO_TMR, TCO_RLD, TCO1_CNT: 4 ticks, twice */
    qtest_outw(qts, TCO_PM_BASE + 0x60 + 0x12, 4);
    qtest_outw(qts, TCO_PM_BASE + 0x60, 4);
    qtest_outw(qts, TCO_PM_BASE + 0x60 + 0x08, 0);
    qtest_clock_step(qts, 60 * NANOSECONDS_PER_SECOND);
    qtest_clock_step(qts, 60 * NANOSECONDS_PER_SECOND);
    g_free(dev);
    qpci_free_pc(bus);
}

typedef struct WatchdogCase {
    const char *name;
    const char *args;
    const char *path;
    void (*expire)(QTestState *qts);
} WatchdogCase;

static const WatchdogCase watchdog_cases[] = {
    { "ib700", "-machine pc -device ib700,id=wdt", "/machine/peripheral/wdt",
      ib700_expire },
    { "i6300esb", "-machine pc -device i6300esb,id=wdt,addr=6",
      "/machine/peripheral/wdt", i6300esb_expire },
    { "tco", "-machine q35 -global ICH9-LPC.noreboot=false", NULL,
      tco_expire },
};

static void test_watchdog(const void *opaque)
{
    const HweCase *test = opaque;
    const WatchdogCase *c = test->data;
    g_autoptr(QDict) info = NULL, again = NULL;
    g_autofree char *args = g_strdup_printf("%s -action watchdog=reset",
                                            c->args);
    QTestState *qts = hwe_init(args, "watchdog", test->action);

    c->expire(qts);
    info = hwe_expect(qts, test->action, false, "watchdog");
    if (info) {
        const char *path = qdict_get_try_str(info, "qom-path");

        g_assert_cmpstr(qdict_get_try_str(info, "source"), ==, "watchdog");
        g_assert_cmpstr(qdict_get_try_str(info, "severity"), ==, "recoverable");
        g_assert_cmpstr(qdict_get_try_str(info, "action"), ==, "reset");
        g_assert_false(qdict_haskey(info, "kdump"));
        if (c->path) {
            g_assert_cmpstr(path, ==, c->path);
        } else {
            g_assert_nonnull(path);
            g_assert_true(g_str_has_prefix(path, "/machine/unattached/"));
        }
    }
    if (hwe_contains(test->action)) {
        wait_guest_event(qts, "WATCHDOG", "pause");
        g_assert_cmpint(hwe_count("RESET"), ==, 0);
    } else {
        wait_guest_event(qts, "WATCHDOG", "reset");
        qobject_unref(hwe_event(qts, "RESET"));
        vmq_assert_status(qts, "running");
    }
    qtest_quit(qts);
}

/* The record is out before QEMU has ended */
static void test_watchdog_poweroff(void)
{
    g_autoptr(QDict) record = NULL;
    QTestState *qts = hwe_init("-machine pc -device ib700 "
                               "-action watchdog=poweroff", "watchdog",
                               HWE_NONE);

    ib700_expire(qts);
    record = hwe_event(qts, "HARDWARE_ERROR");
    g_assert_cmpstr(qdict_get_str(qdict_get_qdict(record, "info"), "action"),
                    ==, "poweroff");
    wait_guest_event(qts, "WATCHDOG", "poweroff");
    qtest_wait_qemu(qts);
    qtest_quit(qts);
}

/* With a rule, QEMU does not end */
static void test_watchdog_poweroff_quiesce(void)
{
    QTestState *qts = hwe_init("-machine pc -device ib700 "
                               "-action watchdog=poweroff", "watchdog",
                               HWE_QUIESCE);
    g_autoptr(QDict) info = NULL;

    ib700_expire(qts);
    info = hwe_expect(qts, HWE_QUIESCE, false, NULL);
    wait_guest_event(qts, "WATCHDOG", "pause");
    vmq_assert_status(qts, "quiesced");
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    static const HweCase none = { HWE_NONE }, quiesce = { HWE_QUIESCE };
    int i, ret;

    g_test_init(&argc, &argv, NULL);
    vmq_tmpdir_make();
    hwe_add_cases(test_panic, NULL, "panic");
    hwe_add_cases(test_panic_vcpu, NULL, "panic-vcpu");
    hwe_add_cases(test_crashloaded, NULL, "crashloaded");
    qtest_add_data_func("hw-error/panic-shutdown/none", &none,
                        test_panic_shutdown);
    qtest_add_data_func("hw-error/panic-shutdown/quiesce", &quiesce,
                        test_panic_shutdown);

    for (i = 0; i < ARRAY_SIZE(watchdog_cases); i++) {
        hwe_add_cases(test_watchdog, &watchdog_cases[i], "watchdog/%s",
                      watchdog_cases[i].name);
    }
    qtest_add_func("hw-error/watchdog-poweroff/none", test_watchdog_poweroff);
    qtest_add_func("hw-error/watchdog-poweroff/quiesce",
                   test_watchdog_poweroff_quiesce);
    ret = g_test_run();
    vmq_tmpdir_remove();
    return ret;
}
