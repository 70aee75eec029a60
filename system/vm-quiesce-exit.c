/*
 * Quiesced run state: end of the process
 *
 * Closing an image flushes it and waits for its requests.  When the VM is
 * quiesced there is nothing left to flush; when it could not be quiesced
 * because a back end hangs, the process would outlive quit and SIGTERM.
 * Nothing was promised for requests that hang: the guest was not told that
 * they are done, and will never run here again.  So images are not closed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "chardev/char.h"
#include "migration/misc.h"
#include "monitor/monitor.h"
#include "net/net.h"
#include "qemu/audio.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "system/tpm.h"
#include "vm-quiesce-core.h"

/* How long to wait for what may still end by itself */
#define EXIT_GRACE_MS 1000

bool vm_quiesce_cleanup(void)
{
    int64_t end_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + EXIT_GRACE_MS;
    VmQuiesceParticipantList *l;

    /* Completions, and the phase machine's timer, wake the main loop */
    while (vm_quiesce_core_busy(&vm_quiesce) &&
           qemu_clock_get_ms(QEMU_CLOCK_REALTIME) < end_ms) {
        main_loop_wait(false);
    }

    if (vm_quiesce_core_busy(&vm_quiesce)) {
        g_autoptr(VmQuiesceParticipantList) open =
            vm_quiesce_core_query(&vm_quiesce, true);

        for (l = open; l; l = l->next) {
            error_report("not waiting for %s: %s", l->value->name,
                         l->value->error);
        }
    } else if (vm_quiesce.phase == VM_QUIESCE_PHASE_QUIESCED) {
        migration_shutdown();
        tpm_cleanup();
        net_cleanup();
        audio_cleanup();
    } else {
        return false;
    }

    /* Sends events, and removes sockets */
    monitor_cleanup();
    qemu_chr_cleanup();
    return true;
}
