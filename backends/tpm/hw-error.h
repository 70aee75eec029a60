/*
 * Hardware errors: TPM emulators
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef BACKENDS_TPM_HW_ERROR_H
#define BACKENDS_TPM_HW_ERROR_H

#include "chardev/char-fe.h"
#include "io/channel.h"
#include "system/tpm_backend.h"

typedef struct TPMHwError TPMHwError;

/**
 * tpm_hw_error_watch: Report it when the emulator is lost, or hangs.
 * @tb: the back end
 * @ctrl: its control channel
 * @data: its data channel
 *
 * One is of no use without the other, and neither comes back: QEMU does not
 * set up an emulator anew that has been started again.
 *
 * Main thread, with the BQL held.  Returns: what tpm_hw_error_unwatch() takes.
 */
TPMHwError *tpm_hw_error_watch(TPMBackend *tb, CharFrontend *ctrl,
                               QIOChannel *data);

/**
 * tpm_hw_error_begin: A command is about to be handed to the emulator.
 *
 * One at a time, in any thread, without the BQL.
 */
void tpm_hw_error_begin(TPMHwError *h);

/** tpm_hw_error_end: The emulator has answered it, or is lost. */
void tpm_hw_error_end(TPMHwError *h);

/** tpm_hw_error_unwatch: Do that no more; @h may be NULL. */
void tpm_hw_error_unwatch(TPMHwError *h);

#endif
