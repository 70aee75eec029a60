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
#include "qemu/timer.h"

/* What is known to be wrong with a connection */
typedef struct Trouble {
    bool lost;
    bool hung;
    /* When it has got on last, if it is known to hang; 0 if not known */
    int64_t since_ms;
    /* QOM path of the device that it hangs for, or NULL */
    char *qom_path;
} Trouble;

/* By the labels of the character devices; protected by the BQL */
static GHashTable *troubles;

static void free_trouble(void *opaque)
{
    Trouble *t = opaque;

    g_free(t->qom_path);
    g_free(t);
}

/* NULL if nothing is known to be wrong */
static Trouble *find_trouble(const char *chardev)
{
    return troubles && chardev ? g_hash_table_lookup(troubles, chardev) : NULL;
}

static Trouble *get_trouble(const char *chardev)
{
    /* What QEMU has made for itself has no name, and nothing is kept of it */
    static Trouble nameless;
    Trouble *t = chardev ? find_trouble(chardev) : &nameless;

    if (t == &nameless) {
        t->lost = t->hung = false;
    } else if (!t) {
        if (!troubles) {
            troubles = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                             free_trouble);
        }
        t = g_new0(Trouble, 1);
        g_hash_table_insert(troubles, g_strdup(chardev), t);
    }
    return t;
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

/* @path: of @dev, or of the device that is no longer there; or NULL */
static HwErrorAction report(HwErrorBackendType type, HwErrorBackendState state,
                            Object *dev, const char *path, Chardev *chr,
                            bool reusable, const HwErrorBackendWait *wait)
{
    HwErrorInfo e = {
        .source = HW_ERROR_SOURCE_BACKEND,
        .severity = severity(state, dev, reusable && reconnects(chr)),
        .u.backend.type = type,
        .u.backend.state = state,
        .u.backend.qom_path = (char *)path,
        .u.backend.chardev = chr->label,
        .u.backend.has_queue = wait->has_queue,
        .u.backend.queue = wait->queue,
        .u.backend.has_age_ms = wait->age_ms,
        .u.backend.age_ms = wait->age_ms,
    };

    return hw_error_report(&e);
}

void hw_error_backend_lost(HwErrorBackendType type, Object *dev,
                           CharFrontend *fe, bool reusable)
{
    Chardev *chr = qemu_chr_fe_get_driver(fe);
    Trouble *t = get_trouble(chr->label);
    g_autofree char *path = dev ? object_get_canonical_path(dev) : NULL;

    if (!t->lost) {
        t->lost = true;
        report(type, HW_ERROR_BACKEND_STATE_LOST, dev, path, chr, reusable,
               &(HwErrorBackendWait) { });
    }
}

bool hw_error_backend_is_lost(const char *chardev)
{
    Trouble *t = find_trouble(chardev);

    return t && t->lost;
}

HwErrorAction hw_error_backend_hung(HwErrorBackendType type, CharFrontend *fe,
                                    const HwErrorBackendWait *wait)
{
    Chardev *chr = qemu_chr_fe_get_driver(fe);
    Trouble *t = get_trouble(chr->label);

    if (t->hung) {
        return HW_ERROR_ACTION_REPORT;
    }
    t->hung = true;
    if (wait->age_ms) {
        t->since_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) - wait->age_ms;
    }
    g_free(t->qom_path);
    t->qom_path = wait->dev ? object_get_canonical_path(wait->dev) : NULL;
    return report(type, HW_ERROR_BACKEND_STATE_HUNG, wait->dev, t->qom_path,
                  chr, true, wait);
}

void hw_error_backend_back(HwErrorBackendType type, Object *dev,
                           CharFrontend *fe)
{
    Chardev *chr = qemu_chr_fe_get_driver(fe);
    Trouble *t = find_trouble(chr->label);
    g_autofree char *path = dev ? object_get_canonical_path(dev) : NULL;
    HwErrorBackendWait wait = { };

    if (!t) {
        return;
    }
    if (t->since_ms) {
        wait.age_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) - t->since_ms;
    }
    report(type, HW_ERROR_BACKEND_STATE_BACK, dev, path ?: t->qom_path, chr,
           true, &wait);
    g_hash_table_remove(troubles, chr->label);
}

void hw_error_backend_forget(const char *chardev)
{
    if (troubles) {
        g_hash_table_remove(troubles, chardev);
    }
}
