/*
 * Quiesced run state: in a file
 *
 * The state of a quiesced VM can be written to a file, and is quiesced where
 * it is loaded, with the same token: it was given up, and perhaps started
 * elsewhere, so only who holds the token may make it run.
 *
 * The section is in a stream if and only if the run state in it is 'quiesced',
 * which a QEMU that does not know it refuses.
 *
 * All of it is for the main thread, or the migration thread with the BQL held.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/misc.h"
#include "migration/vm-quiesce.h"
#include "migration/vmstate.h"
#include "qapi/error.h"
#include "system/runstate.h"
#include "system/vm-quiesce.h"
#include "vm-quiesce-core.h"
#include "vm-quiesce-internal.h"

/* What is in the stream that is being written or read */
static VMQuiesceIdentity stream_id;
static bool stream_loaded;

static bool vmstate_quiesce_needed(void *opaque)
{
    return runstate_check(RUN_STATE_QUIESCED);
}

static int vmstate_quiesce_pre_save(void *opaque)
{
    stream_id = *vm_quiesce_identity();
    return 0;
}

static bool vmstate_quiesce_post_load(void *opaque, int version_id,
                                      Error **errp)
{
    QemuUUID uuid;

    /* Strings end in the buffer, whatever is in the stream */
    stream_id.token[sizeof(stream_id.token) - 1] = 0;
    stream_id.reason[sizeof(stream_id.reason) - 1] = 0;
    if (qemu_uuid_parse(stream_id.token, &uuid) < 0 || !*stream_id.reason) {
        error_setg(errp, "The token or the reason of a quiesced VM is invalid");
        return false;
    }
    stream_loaded = true;
    return true;
}

static const VMStateDescription vmstate_quiesce = {
    .name = "vm-quiesce",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = vmstate_quiesce_needed,
    .pre_save = vmstate_quiesce_pre_save,
    .post_load_errp = vmstate_quiesce_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_BUFFER_UNSAFE(token, VMQuiesceIdentity, 0, UUID_STR_LEN),
        VMSTATE_BUFFER_UNSAFE(reason, VMQuiesceIdentity, 0,
                              VM_QUIESCE_MAX_REASON_LEN + 1),
        VMSTATE_BOOL(needs_reset, VMQuiesceIdentity),
        VMSTATE_END_OF_LIST()
    },
};

void vm_quiesce_register_vmstate(void)
{
    vmstate_register(NULL, 0, &vmstate_quiesce, &stream_id);
}

bool vm_quiesce_loaded(Error **errp)
{
    if (!stream_loaded) {
        error_setg(errp, "The state of a quiesced VM lacks its token");
        return false;
    }
    if (!runstate_check(RUN_STATE_INMIGRATE) ||
        migration_incoming_postcopy_advised()) {
        error_setg(errp, "The state of a quiesced VM can only be loaded from "
                   "a file, by -incoming");
        return false;
    }
    return true;
}

void vm_quiesce_restore(void)
{
    if (stream_loaded) {
        stream_loaded = false;
        vm_quiesce.restored = true;
        vm_quiesce_start_as(&stream_id);
    }
}
