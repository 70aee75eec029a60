/*
 * Test of quiescing a VFIO device, with operations that are made up
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/vfio.h>
#include "hw/pci/pci_regs.h"
#include "hw/vfio/vm-quiesce-device.h"
#include "hw/vfio/vfio-migration-internal.h"
#include "qapi/error.h"
#include "qemu/bswap.h"

/* A device, and how it misbehaves */
typedef struct Fake {
    VFIODevice vbasedev;
    VFIOMigration migration;
    uint16_t command;
    unsigned writes;
    /* Result of the n-th access from now on, instead of success; 0: none */
    int read_error, write_error;
    unsigned good_reads;
    /* Bits of the command register that cannot be changed */
    uint16_t stuck;
} Fake;

static int fake_read(VFIODevice *vbasedev, uint8_t nr, off_t off,
                     uint32_t size, void *data)
{
    Fake *f = container_of(vbasedev, Fake, vbasedev);

    g_assert_cmpint(nr, ==, VFIO_PCI_CONFIG_REGION_INDEX);
    g_assert_cmpint(off, ==, PCI_COMMAND);
    g_assert_cmpint(size, ==, 2);
    if (f->read_error && !f->good_reads--) {
        return f->read_error;
    }
    stw_le_p(data, f->command);
    return size;
}

static int fake_write(VFIODevice *vbasedev, uint8_t nr, off_t off,
                      uint32_t size, void *data, bool post)
{
    Fake *f = container_of(vbasedev, Fake, vbasedev);

    g_assert_cmpint(nr, ==, VFIO_PCI_CONFIG_REGION_INDEX);
    g_assert_cmpint(off, ==, PCI_COMMAND);
    g_assert_cmpint(size, ==, 2);
    f->writes++;
    if (f->write_error) {
        return f->write_error;
    }
    f->command = (f->command & f->stuck) | (lduw_le_p(data) & ~f->stuck);
    return size;
}

static VFIODeviceIOOps fake_ops = {
    .region_read = fake_read,
    .region_write = fake_write,
};

#define COMMAND (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_SERR)

static Fake *fake_new(void)
{
    Fake *f = g_new0(Fake, 1);

    f->vbasedev.type = VFIO_DEVICE_TYPE_PCI;
    f->vbasedev.io_ops = &fake_ops;
    f->command = COMMAND;
    return f;
}

/* Frees @f */
static void assert_fails(Fake *f, const char *text)
{
    Error *err = NULL;
    bool bus_master;

    g_assert_false(vfio_quiesce_device(&f->vbasedev, &bus_master, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), text));
    error_free(err);
    g_free(f);
}

static void test_off_and_on(void)
{
    g_autofree Fake *f = fake_new();
    bool bus_master;

    g_assert_true(vfio_quiesce_device(&f->vbasedev, &bus_master,
                                      &error_abort));
    g_assert_true(bus_master);
    g_assert_cmphex(f->command, ==, COMMAND & ~PCI_COMMAND_MASTER);

    g_assert_true(vfio_unquiesce_device(&f->vbasedev, &error_abort));
    g_assert_cmphex(f->command, ==, COMMAND);
}

/* What the guest has not enabled is not enabled afterwards */
static void test_already_off(void)
{
    g_autofree Fake *f = fake_new();
    bool bus_master;

    f->command = PCI_COMMAND_MEMORY;
    g_assert_true(vfio_quiesce_device(&f->vbasedev, &bus_master,
                                      &error_abort));
    g_assert_false(bus_master);
    g_assert_cmpint(f->writes, ==, 0);
}

/* A device that can migrate, in each of its states */
static void test_migration_states(void)
{
    int state;

    for (state = VFIO_DEVICE_STATE_ERROR;
         state <= VFIO_DEVICE_STATE_PRE_COPY_P2P; state++) {
        g_autofree Fake *f = fake_new();
        bool stopped = state == VFIO_DEVICE_STATE_STOP ||
                       state == VFIO_DEVICE_STATE_STOP_COPY;
        bool bus_master;

        f->vbasedev.migration = &f->migration;
        f->migration.device_state = state;
        g_assert_true(vfio_quiesce_device(&f->vbasedev, &bus_master,
                                          &error_abort));
        /* One of the two is true: it cannot, or is kept from it */
        g_assert_cmpint(bus_master, ==, !stopped);
        g_assert_cmpint(!(f->command & PCI_COMMAND_MASTER), ==, !stopped);
    }
}

static void test_not_pci(void)
{
    Fake *f = fake_new();

    f->vbasedev.type = VFIO_DEVICE_TYPE_CCW;
    assert_fails(f, "not a PCI device");
}

static void test_read_fails(void)
{
    Fake *f = fake_new();

    f->read_error = -EIO;
    assert_fails(f, "cannot be read: Input/output error");
}

static void test_read_short(void)
{
    Fake *f = fake_new();

    f->read_error = 1;
    assert_fails(f, "cannot be read: no answer");
}

static void test_write_fails(void)
{
    Fake *f = fake_new();

    f->write_error = -EPERM;
    assert_fails(f, "cannot be written: Operation not permitted");
}

/* The write has succeeded, but nobody knows what it did */
static void test_read_back_fails(void)
{
    Fake *f = fake_new();

    f->read_error = -EIO;
    f->good_reads = 1;
    assert_fails(f, "cannot be read");
}

static void test_stuck(void)
{
    Fake *f = fake_new();

    f->stuck = PCI_COMMAND_MASTER;
    assert_fails(f, "cannot be switched off");
}

/* It was pulled out: reads return all ones */
static void test_gone(void)
{
    Fake *f = fake_new();

    f->command = UINT16_MAX;
    assert_fails(f, "cannot be read: no answer");
}

static void test_undo_fails(void)
{
    g_autofree Fake *f = fake_new();
    Error *err = NULL;

    f->command = PCI_COMMAND_MEMORY;
    f->stuck = PCI_COMMAND_MASTER;
    g_assert_false(vfio_unquiesce_device(&f->vbasedev, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "cannot be switched on"));
    error_free(err);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    g_test_add_func("/vfio-quiesce/off-and-on", test_off_and_on);
    g_test_add_func("/vfio-quiesce/already-off", test_already_off);
    g_test_add_func("/vfio-quiesce/migration-states", test_migration_states);
    g_test_add_func("/vfio-quiesce/not-pci", test_not_pci);
    g_test_add_func("/vfio-quiesce/read-fails", test_read_fails);
    g_test_add_func("/vfio-quiesce/read-short", test_read_short);
    g_test_add_func("/vfio-quiesce/write-fails", test_write_fails);
    g_test_add_func("/vfio-quiesce/read-back-fails", test_read_back_fails);
    g_test_add_func("/vfio-quiesce/stuck", test_stuck);
    g_test_add_func("/vfio-quiesce/gone", test_gone);
    g_test_add_func("/vfio-quiesce/undo-fails", test_undo_fails);

    return g_test_run();
}
