/*
 * Hardware errors: processes that a device depends on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "chardev/char-socket.h"
#include "hw-error/backend.h"
#include "hw-error/hw-error.h"
#include "hw/qdev-core.h"

/* Labels of the connections that are lost; protected by the BQL */
static GHashTable *lost;

static gboolean is_gone(void *label, void *value, void *opaque)
{
    return !qemu_chr_find(label);
}

/* Returns: false if that was known already */
static bool set_lost(const char *label)
{
    if (!lost) {
        lost = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    }
    /* Some were never back before they were removed */
    g_hash_table_foreach_remove(lost, is_gone, NULL);
    return g_hash_table_add(lost, g_strdup(label));
}

static bool reconnects(Chardev *chr)
{
    SocketChardev *s = (SocketChardev *)
        object_dynamic_cast(OBJECT(chr), TYPE_CHARDEV_SOCKET);

    return s && (s->is_listen || s->reconnect_time_ms);
}

/* A guest can do without a network for a while, but not without its disks */
static bool is_vital(Object *dev)
{
    return dev && object_dynamic_cast(dev, TYPE_DEVICE) &&
           test_bit(DEVICE_CATEGORY_STORAGE,
                    DEVICE_GET_CLASS(dev)->categories);
}

static HwErrorSeverity severity(HwErrorBackendState state, Object *dev,
                                bool returns)
{
    if (state == HW_ERROR_BACKEND_STATE_BACK) {
        return HW_ERROR_SEVERITY_CORRECTED;
    }
    return is_vital(dev) && !returns ? HW_ERROR_SEVERITY_FATAL
                                     : HW_ERROR_SEVERITY_RECOVERABLE;
}

static void report(HwErrorBackendType type, HwErrorBackendState state,
                   Object *dev, Chardev *chr, bool reusable)
{
    g_autofree char *path = dev ? object_get_canonical_path(dev) : NULL;
    HwErrorInfo e = {
        .source = HW_ERROR_SOURCE_BACKEND,
        .severity = severity(state, dev, reusable && reconnects(chr)),
        .u.backend.type = type,
        .u.backend.state = state,
        .u.backend.qom_path = path,
        .u.backend.chardev = chr->label,
    };

    hw_error_report(&e);
}

void hw_error_backend_lost(HwErrorBackendType type, Object *dev,
                           CharFrontend *fe, bool reusable)
{
    Chardev *chr = qemu_chr_fe_get_driver(fe);

    if (set_lost(chr->label)) {
        report(type, HW_ERROR_BACKEND_STATE_LOST, dev, chr, reusable);
    }
}

void hw_error_backend_hung(HwErrorBackendType type, Object *dev,
                           CharFrontend *fe)
{
    report(type, HW_ERROR_BACKEND_STATE_HUNG, dev, qemu_chr_fe_get_driver(fe),
           true);
}

void hw_error_backend_back(HwErrorBackendType type, Object *dev,
                           CharFrontend *fe)
{
    Chardev *chr = qemu_chr_fe_get_driver(fe);

    if (lost && g_hash_table_remove(lost, chr->label)) {
        report(type, HW_ERROR_BACKEND_STATE_BACK, dev, chr, true);
    }
}
