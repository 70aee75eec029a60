/*
 * Quiesced run state: vhost, vhost-user and vDPA devices
 *
 * These stop, and give their rings back, when the run state's handlers run;
 * here it is checked that all of them did.  A vhost-user back end would be
 * waited for there: perhaps it hangs, or finishes requests first that hang.
 * So it is told before, in phase 'drain', without waiting.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "chardev/char-socket.h"
#include "hw/virtio/vhost.h"
#include "hw/virtio/vhost-user-quiesce.h"
#include "hw/virtio/virtio.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "system/vm-quiesce.h"

/* QOM path, to be freed */
static char *device_name(struct vhost_dev *hdev)
{
    return hdev->vdev ? object_get_canonical_path(OBJECT(hdev->vdev))
                      : g_strdup("vhost");
}

#ifdef CONFIG_VHOST_USER

/*
 * How long vhost_user_wait_limited() waits for what a healthy back end answers
 * at once.  To give up means that the host must be fenced, so this is rather
 * too long than too short.
 */
#define ANSWER_WAIT_MS 1000

/* A connection to a vhost-user back end; main thread only */
typedef struct Connection {
    CharFrontend *chr;
    /* One of its devices; used only while it is in the list of devices */
    struct vhost_dev *hdev;
    /* Rings have been told to stop */
    bool told;
    /* Answers that have not come; 0 when the connection is lost, too */
    unsigned awaited;
    /* Source that waits for them, or 0 */
    guint watch;
} Connection;

static GArray *connections;

static bool is_listed(struct vhost_dev *wanted)
{
    struct vhost_dev *hdev = NULL;

    while ((hdev = vhost_dev_next(hdev))) {
        if (hdev == wanted) {
            return true;
        }
    }
    return false;
}

bool vhost_user_wait_limited(CharFrontend *chr)
{
    Object *chardev = OBJECT(qemu_chr_fe_get_driver(chr));
    GPollFD pfd = { .events = G_IO_IN };

    if (!object_dynamic_cast(chardev, TYPE_CHARDEV_SOCKET) ||
        !SOCKET_CHARDEV(chardev)->sioc) {
        return true;
    }
    pfd.fd = SOCKET_CHARDEV(chardev)->sioc->fd;
    if (RETRY_ON_EINTR(g_poll(&pfd, 1, ANSWER_WAIT_MS)) > 0) {
        return true;
    }
    error_report("vhost-user back end at '%s' does not answer",
                 CHARDEV(chardev)->label);
    qemu_chr_fe_disconnect(chr);
    return false;
}

bool vhost_user_quiesce_wait(CharFrontend *chr)
{
    return !vm_quiesce_active() || vhost_user_wait_limited(chr);
}

static bool is_vhost_user(struct vhost_dev *hdev)
{
    return hdev->started &&
           hdev->vhost_ops->backend_type == VHOST_BACKEND_TYPE_USER;
}

/* Devices with several queue pairs share a connection */
static unsigned stop_rings(CharFrontend *chr)
{
    struct vhost_dev *hdev = NULL;
    unsigned n = 0;

    while ((hdev = vhost_dev_next(hdev))) {
        if (is_vhost_user(hdev) && vhost_user_quiesce_connection(hdev) == chr) {
            n += vhost_user_quiesce_stop_rings(hdev);
        }
    }
    return n;
}

static gboolean connection_ready(void *do_not_use, GIOCondition cond,
                                 void *data)
{
    Connection *c = &g_array_index(connections, Connection,
                                   GPOINTER_TO_UINT(data));

    /* If the connection is lost, there will be nobody to wait for */
    if (!is_listed(c->hdev) || !vhost_user_quiesce_answer(c->hdev)) {
        c->awaited = 0;
        c->told = true;
    } else {
        c->awaited--;
    }
    if (!c->told) {
        c->told = true;
        c->awaited = stop_rings(c->chr);
    }
    if (c->awaited) {
        return G_SOURCE_CONTINUE;
    }
    c->watch = 0;
    return G_SOURCE_REMOVE;
}

static bool is_connected(CharFrontend *chr)
{
    guint i;

    for (i = 0; i < connections->len; i++) {
        if (g_array_index(connections, Connection, i).chr == chr) {
            return true;
        }
    }
    return false;
}

/*
 * A ring is told to stop when the back end has answered something else, as in
 * vhost_dev_stop(): it has seen kicks from before then.  Back ends are known
 * that crash if they see one together with the order to stop.
 */
static void ask_back_ends(void)
{
    struct vhost_dev *hdev = NULL;

    connections = g_array_new(false, false, sizeof(Connection));
    while ((hdev = vhost_dev_next(hdev))) {
        Connection c = { .hdev = hdev, .awaited = 1 };

        if (!is_vhost_user(hdev)) {
            continue;
        }
        c.chr = vhost_user_quiesce_connection(hdev);
        if (is_connected(c.chr) || !vhost_user_quiesce_ask(hdev)) {
            continue;
        }
        c.watch = qemu_chr_fe_add_watch(c.chr, G_IO_IN | G_IO_HUP,
                                        connection_ready,
                                        GUINT_TO_POINTER(connections->len));
        g_array_append_val(connections, c);
    }
}

static VMQuiesceResult vhost_quiesce_drain(Error **errp)
{
    guint i;

    if (!connections) {
        ask_back_ends();
    }

    for (i = 0; i < connections->len; i++) {
        Connection *c = &g_array_index(connections, Connection, i);

        if (c->awaited && is_listed(c->hdev)) {
            g_autofree char *name = device_name(c->hdev);

            error_setg(errp, "device '%s': its back end does not answer",
                       name);
            return VM_QUIESCE_BUSY;
        }
    }

    for (i = 0; i < connections->len; i++) {
        Connection *c = &g_array_index(connections, Connection, i);

        if (c->watch) {
            g_source_remove(c->watch);
        }
    }
    g_clear_pointer(&connections, g_array_unref);
    return VM_QUIESCE_DONE;
}

#else

static VMQuiesceResult vhost_quiesce_drain(Error **errp)
{
    return VM_QUIESCE_DONE;
}

void vhost_user_quiesce_end(void)
{
}

#endif

static VMQuiesceResult vhost_quiesce_flush(Error **errp)
{
    struct vhost_dev *hdev = NULL;

    vhost_user_quiesce_end();
    while ((hdev = vhost_dev_next(hdev))) {
        if (hdev->started) {
            g_autofree char *name = device_name(hdev);

            error_setg(errp, "device '%s' has not got its rings back", name);
            return VM_QUIESCE_ERROR;
        }
    }
    return VM_QUIESCE_DONE;
}

static VMQuiesceResult vhost_quiesce_poll(VMQuiesceParticipant *p,
                                          VmQuiescePhase phase, Error **errp)
{
    switch (phase) {
    case VM_QUIESCE_PHASE_DRAIN:
        return vhost_quiesce_drain(errp);
    case VM_QUIESCE_PHASE_FLUSH:
        return vhost_quiesce_flush(errp);
    default:
        return VM_QUIESCE_DONE;
    }
}

static VMQuiesceParticipant vhost_participant = {
    .name = "vhost",
    .order = VM_QUIESCE_ORDER_BACKENDS,
    .poll = vhost_quiesce_poll,
};

static void __attribute__((__constructor__)) vhost_quiesce_init(void)
{
    vm_quiesce_register(&vhost_participant);
}
