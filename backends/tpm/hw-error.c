/*
 * Hardware errors: TPM emulators
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/aio.h"
#include "hw-error.h"
#include "hw-error/backend.h"
#include "qemu/atomic.h"
#include "qemu/main-loop.h"

struct TPMHwError {
    TPMBackend *tb;
    CharFrontend *ctrl;
    /* Source that waits for the end of the data channel, or 0 */
    guint data_watch;
    QEMUBH *lost_bh;
    HwErrorBackendWatch watch;
    HwErrorBackendStep step;
    /* Odd while a command is with the emulator; another one for each of them */
    uint32_t seq;
};

static void emulator_lost(void *opaque)
{
    TPMHwError *h = opaque;

    hw_error_backend_lost(HW_ERROR_BACKEND_TYPE_TPM, OBJECT(h->tb->tpmif),
                          h->ctrl, false);
}

/* Also in the thread that handles a request, without the BQL */
static void ctrl_event(void *opaque, QEMUChrEvent event)
{
    TPMHwError *h = opaque;

    if (event == CHR_EVENT_CLOSED) {
        qemu_bh_schedule(h->lost_bh);
    }
}

static gboolean data_closed(QIOChannel *data, GIOCondition condition,
                            void *opaque)
{
    TPMHwError *h = opaque;

    h->data_watch = 0;
    emulator_lost(h);
    return G_SOURCE_REMOVE;
}

void tpm_hw_error_begin(TPMHwError *h)
{
    qatomic_inc(&h->seq);
}

void tpm_hw_error_end(TPMHwError *h)
{
    qatomic_inc(&h->seq);
}

static bool look(HwErrorBackendWatch *w, HwErrorBackendWait *wait)
{
    TPMHwError *h = container_of(w, TPMHwError, watch);
    uint32_t seq = qatomic_read(&h->seq);

    wait->dev = OBJECT(h->tb->tpmif);
    if (seq & 1) {
        wait->age_ms = hw_error_backend_step_ms(&h->step, seq);
    }
    return true;
}

TPMHwError *tpm_hw_error_watch(TPMBackend *tb, CharFrontend *ctrl,
                               QIOChannel *data)
{
    TPMHwError *h = g_new0(TPMHwError, 1);

    h->tb = tb;
    h->ctrl = ctrl;
    h->lost_bh = qemu_bh_new(emulator_lost, h);
    h->data_watch = qio_channel_add_watch(data, G_IO_HUP, data_closed, h, NULL);
    qemu_chr_fe_set_handlers(ctrl, NULL, NULL, ctrl_event, NULL, h, NULL,
                             false);
    h->watch.type = HW_ERROR_BACKEND_TYPE_TPM;
    h->watch.fe = ctrl;
    h->watch.look = look;
    hw_error_backend_watch(&h->watch);
    return h;
}

void tpm_hw_error_unwatch(TPMHwError *h)
{
    if (!h) {
        return;
    }
    hw_error_backend_unwatch(&h->watch);
    qemu_chr_fe_set_handlers(h->ctrl, NULL, NULL, NULL, NULL, NULL, NULL,
                             false);
    if (h->data_watch) {
        g_source_remove(h->data_watch);
    }
    qemu_bh_delete(h->lost_bh);
    g_free(h);
}
