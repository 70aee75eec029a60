/*
 * Quiesced run state: what the files in system/ share
 *
 * All of it is for the main thread, with the BQL held.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef VM_QUIESCE_INTERNAL_H
#define VM_QUIESCE_INTERNAL_H

#include "qemu/uuid.h"

#define VM_QUIESCE_MAX_REASON_LEN 1024

/**
 * VMQuiesceIdentity: What a quiesced VM is known by, wherever it is loaded.
 *
 * @token: identifies the attempt
 * @reason: given by who asked for it; 1 to VM_QUIESCE_MAX_REASON_LEN bytes
 * @needs_reset: it was in a state that only a reset can leave
 */
typedef struct VMQuiesceIdentity {
    char token[UUID_STR_LEN];
    char reason[VM_QUIESCE_MAX_REASON_LEN + 1];
    bool needs_reset;
} VMQuiesceIdentity;

/** vm_quiesce_identity: Of the last attempt; empty before the first one. */
const VMQuiesceIdentity *vm_quiesce_identity(void);

/**
 * vm_quiesce_start_as: Start to quiesce, as the attempt that @id names.
 * @id: copied
 */
void vm_quiesce_start_as(const VMQuiesceIdentity *id);

/**
 * iothreads_quiesce_answer: Whether every iothread handles its events.
 * @errp: names those that have not answered yet
 *
 * The first call asks, later ones look whether all have answered; when they
 * have, the next call asks anew.
 */
bool iothreads_quiesce_answer(Error **errp);

/** vcpus_quiesce_forget: The VM runs: forget how its devices have stopped. */
void vcpus_quiesce_forget(void);

/** vcpus_quiesce_send_stop: Send STOP, if the VM was live and it is owed. */
void vcpus_quiesce_send_stop(void);

#endif
