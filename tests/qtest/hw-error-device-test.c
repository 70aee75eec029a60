/*
 * Test of hardware errors: emulated PCI Express devices
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/pci/pci.h"
#include "hw/pci/pci_regs.h"
#include "hw-error-util.h"
#include "qobject/qlist.h"
#include "qobject/qnum.h"
#include "vm-quiesce-util.h"

#define ECAM_BASE 0xb0000000u
#define ROOT_PORT_SLOT 5
#define AER 0x100

typedef struct AerCase {
    const char *name;
    /* Arguments of the command before and after the device */
    const char *flags, *error;
    const char *severity;
    /* Bits that get set, and the header that is logged */
    uint32_t uncorrectable, correctable, root_status;
    bool header;
} AerCase;

static const AerCase aer_cases[] = {
    { "correctable", "", "RCVR", "corrected", 0, PCI_ERR_COR_RCVR,
      PCI_ERR_ROOT_COR_RCV, false },
    { "nonfatal", "", "COMP_TIME 1 2 3 4", "recoverable",
      PCI_ERR_UNC_COMP_TIME, 0,
      PCI_ERR_ROOT_UNCOR_RCV | PCI_ERR_ROOT_NONFATAL_RCV, true },
    { "fatal", "", "DLP", "fatal", PCI_ERR_UNC_DLP, 0,
      PCI_ERR_ROOT_UNCOR_RCV | PCI_ERR_ROOT_FATAL_RCV |
      PCI_ERR_ROOT_FIRST_FATAL, false },
    { "advisory", "-a", "COMP_TIME 1 2 3 4", "corrected",
      PCI_ERR_UNC_COMP_TIME, PCI_ERR_COR_ADV_NFAT, PCI_ERR_ROOT_COR_RCV, true },
};

static uint64_t config_address(uint32_t offset)
{
    return ECAM_BASE + (PCI_DEVFN(ROOT_PORT_SLOT, 0) << 12) + offset;
}

static uint32_t config_read(QTestState *qts, uint32_t offset)
{
    return qtest_readl(qts, config_address(offset));
}

/* Where the root port has its PCI Express capability */
static uint8_t express_cap(QTestState *qts)
{
    uint8_t cap = config_read(qts, PCI_CAPABILITY_LIST) & 0xff;

    while ((config_read(qts, cap) & 0xff) != PCI_CAP_ID_EXP) {
        cap = config_read(qts, cap) >> 8 & 0xff;
        g_assert_cmpint(cap, !=, 0);
    }
    return cap;
}

/* As a guest does that wants to be told of errors */
static void aer_enable(QTestState *qts)
{
    uint8_t cap;

    /* The bridge's register for the memory-mapped configuration space */
    qtest_outl(qts, 0xcf8, 0x80000064);
    qtest_outl(qts, 0xcfc, 0);
    qtest_outl(qts, 0xcf8, 0x80000060);
    qtest_outl(qts, 0xcfc, ECAM_BASE | 1);
    g_assert_cmphex(config_read(qts, AER) & 0xffff, ==, PCI_EXT_CAP_ID_ERR);

    cap = express_cap(qts);
    qtest_writew(qts, config_address(cap + PCI_EXP_DEVCTL),
                 PCI_EXP_DEVCTL_CERE | PCI_EXP_DEVCTL_NFERE |
                 PCI_EXP_DEVCTL_FERE);
    qtest_writew(qts, config_address(PCI_BRIDGE_CONTROL),
                 PCI_BRIDGE_CTL_SERR);
    qtest_writel(qts, config_address(AER + PCI_ERR_COR_MASK), 0);
}

static void check_header(QDict *info)
{
    const QListEntry *e;
    int64_t word = 0;

    g_assert_true(qdict_haskey(info, "tlp-header"));
    QLIST_FOREACH_ENTRY(qdict_get_qlist(info, "tlp-header"), e) {
        g_assert_cmpint(qnum_get_int(qobject_to(QNum, qlist_entry_obj(e))), ==,
                        ++word);
    }
    g_assert_cmpint(word, ==, 4);
}

static void check_aer_info(QDict *info, const AerCase *c)
{
    g_assert_cmpstr(qdict_get_try_str(info, "source"), ==, "pcie-aer");
    g_assert_cmpstr(qdict_get_try_str(info, "severity"), ==, c->severity);
    g_assert_cmpstr(qdict_get_try_str(info, "qom-path"), ==,
                    "/machine/peripheral/rp");
    g_assert_cmpstr(qdict_get_try_str(info, "guest-address"), ==,
                    "0000:00:05.0");
    g_assert_false(qdict_haskey(info, "host-address"));
    g_assert_cmphex(qdict_get_try_int(info, "uncorrectable-status", 0), ==,
                    c->uncorrectable);
    g_assert_cmpint(qdict_haskey(info, "uncorrectable-status"), ==,
                    c->uncorrectable != 0);
    g_assert_cmphex(qdict_get_try_int(info, "correctable-status", 0), ==,
                    c->correctable);
    g_assert_cmpint(qdict_haskey(info, "correctable-status"), ==,
                    c->correctable != 0);
    if (c->header) {
        check_header(info);
    } else {
        g_assert_false(qdict_haskey(info, "tlp-header"));
    }
}

/* Everything that an error might change */
static void read_config(QTestState *qts, uint32_t *config)
{
    uint32_t i;

    for (i = 0; i < 0x1000 / 4; i++) {
        config[i] = config_read(qts, i * 4);
    }
}

static void test_aer(const void *opaque)
{
    const HweCase *test = opaque;
    const AerCase *c = test->data;
    g_autofree uint32_t *before = g_new(uint32_t, 0x1000 / 4);
    g_autofree uint32_t *after = g_new(uint32_t, 0x1000 / 4);
    g_autofree char *answer = NULL;
    g_autoptr(QDict) info = NULL;
    QTestState *qts = hwe_init("-machine q35 -device pcie-root-port,id=rp,"
                               "chassis=1,addr=5", "pcie-aer", test->action);
    bool told = !hwe_contains(test->action);

    aer_enable(qts);
    read_config(qts, before);
    g_assert_cmphex(before[(AER + PCI_ERR_ROOT_STATUS) / 4], ==, 0);

    answer = qtest_hmp(qts, "pcie_aer_inject_error %s rp %s", c->flags,
                       c->error);
    g_assert_true(g_str_has_prefix(answer, "OK "));

    info = hwe_expect(qts, test->action, true, "paused");
    if (info) {
        check_aer_info(info, c);
    }
    read_config(qts, after);
    if (!told) {
        g_assert_cmpmem(before, 0x1000, after, 0x1000);
    } else {
        g_assert_cmphex(after[(AER + PCI_ERR_UNCOR_STATUS) / 4], ==,
                        c->uncorrectable);
        g_assert_cmphex(after[(AER + PCI_ERR_COR_STATUS) / 4], ==,
                        c->correctable);
        g_assert_cmphex(after[(AER + PCI_ERR_ROOT_STATUS) / 4], ==,
                        c->root_status);
        vmq_assert_status(qts, "running");
    }
    qtest_quit(qts);
}

/* What is refused is no error */
static void test_aer_invalid(void)
{
    QTestState *qts = hwe_init("-machine q35 -device pcie-root-port,id=rp,"
                               "chassis=1,addr=5", "pcie-aer", HWE_QUIESCE);
    g_autofree char *answer = qtest_hmp(qts, "pcie_aer_inject_error rp 3");

    g_assert_nonnull(strstr(answer, "failed to inject error"));
    hwe_expect_none(qts);
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    int i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(aer_cases); i++) {
        hwe_add_cases(test_aer, &aer_cases[i], "aer/%s", aer_cases[i].name);
    }
    qtest_add_func("hw-error/aer/invalid", test_aer_invalid);
    return g_test_run();
}
