/*
 * Quiesced run state: end of the process
 *
 * Closing an image waits for its requests.  When the VM could not be quiesced
 * because a back end hangs, that would be for ever, and the process would
 * outlive quit and SIGTERM.  Nothing was promised for such requests: the guest
 * was not told that they are done, and will never run here again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "chardev/char.h"
#include "monitor/monitor.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "vm-quiesce-core.h"

/* How long to wait for what may still end by itself */
#define EXIT_GRACE_MS 1000

bool vm_quiesce_abandon(void)
{
    int64_t end_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + EXIT_GRACE_MS;
    VmQuiesceParticipantList *l;

    /* Completions, and the phase machine's timer, wake the main loop */
    while (vm_quiesce_core_busy(&vm_quiesce) &&
           qemu_clock_get_ms(QEMU_CLOCK_REALTIME) < end_ms) {
        main_loop_wait(false);
    }
    if (!vm_quiesce_core_busy(&vm_quiesce)) {
        return false;
    }

    g_autoptr(VmQuiesceParticipantList) open =
        vm_quiesce_core_query(&vm_quiesce, true);

    for (l = open; l; l = l->next) {
        error_report("not waiting for %s: %s", l->value->name,
                     l->value->error);
    }
    /* What is left to do is to send events, and to remove sockets */
    monitor_cleanup();
    qemu_chr_cleanup();
    return true;
}
