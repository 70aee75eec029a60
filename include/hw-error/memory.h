/*
 * Hardware errors: memory that cannot be read
 *
 * Linux signals SIGBUS for it: BUS_MCEERR_AR when a thread has read bad memory
 * ("action required"), BUS_MCEERR_AO when bad memory was found before anything
 * has read it ("action optional"), and BUS_ADRERR when there is nothing to be
 * read, because the file behind a mapping was truncated, say.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_ERROR_MEMORY_H
#define HW_ERROR_MEMORY_H

#include "exec/hwaddr.h"
#include "hw-error/hw-error.h"

/**
 * struct HwErrorMemoryFound - bad memory, as it was found
 * @source: HW_ERROR_SOURCE_GUEST_MEMORY or HW_ERROR_SOURCE_QEMU_MEMORY
 * @host: its address in this process
 * @size: how much of it, in bytes, if it is more than a page; or 0
 * @action_required: whether something has read it, and cannot go on
 * @vcpu: index of the vCPU that has read it, or -1
 * @description: further text, or NULL
 */
typedef struct HwErrorMemoryFound {
    HwErrorSource source;
    void *host;
    uint64_t size;
    bool action_required;
    int vcpu;
    const char *description;
} HwErrorMemoryFound;

/**
 * hw_error_memory_report: Report bad memory; see hw_error_report().
 *
 * Any thread that RCU knows, with or without the BQL.  The NUMA node is known
 * with the BQL only.
 */
HwErrorAction hw_error_memory_report(const HwErrorMemoryFound *found);

/**
 * hw_error_memory_report_exit: Report bad memory after which QEMU ends; see
 * hw_error_report_exit().
 *
 * Any thread that RCU knows, with or without the BQL.
 */
void hw_error_memory_report_exit(const HwErrorMemoryFound *found);

/**
 * hw_error_memory_guest_address: Where the guest has the memory at @host.
 *
 * Any thread that RCU knows.  Returns false if it is no RAM of the guest, or
 * not mapped now.
 */
bool hw_error_memory_guest_address(void *host, hwaddr *addr);

/**
 * hw_error_memory_unreadable: QEMU has met memory of the guest that it could
 * not read, and goes on without it.  It is reported, as one error, unless all
 * of it is known.
 * @host: start of the first page, in this process
 * @size: up to where, in bytes
 * @machine_check: whether the hardware has said so
 *
 * Any thread that RCU knows, with or without the BQL.
 */
void hw_error_memory_unreadable(void *host, size_t size, bool machine_check);

/**
 * hw_error_memory_remember: A page of the guest's RAM is known to be bad now.
 *
 * Any thread.  Returns whether it was not before.  All are forgotten when the
 * machine is reset, because QEMU gives it other memory then.
 */
bool hw_error_memory_remember(void *host);

/* Reading what may be bad, system/hw-error-sigbus.c */

/**
 * struct HwErrorFault - why something could not be read
 * @host: address in this process
 * @machine_check: whether the hardware has said so
 */
typedef struct HwErrorFault {
    void *host;
    bool machine_check;
} HwErrorFault;

/**
 * hw_error_try: Call a function that may meet bad RAM of the guest.
 * @fn: what to call
 * @opaque: its argument
 * @start: where it may meet some; NULL for all of the guest's RAM
 * @size: up to where, in bytes from @start
 * @fault: set to what it has met
 *
 * It is left in the middle when it does.  So it must not be within anything
 * that has to be ended when it reads RAM of the guest, but RCU critical
 * sections: no lock, no memory that it would free later.  Where @start is
 * NULL, RCU must know the thread.  Does not nest.
 *
 * The kernel must not be made to read instead (by process_vm_readv(), or by
 * writing from such memory to a file): it may not survive it.
 *
 * Returns false if it was left.
 */
bool hw_error_try(void (*fn)(void *opaque), void *opaque,
                  const void *start, size_t size, HwErrorFault *fault);

/**
 * hw_error_try_copy: Copy RAM of the guest that may be bad.
 *
 * Any thread.  Returns false, and sets @fault, if it cannot be read; what is
 * at @to is undefined then.
 */
bool hw_error_try_copy(void *to, const void *from, size_t size,
                       HwErrorFault *fault);

/**
 * hw_error_try_scan: Find what is bad in RAM of the guest.
 * @from: start
 * @size: how much, in bytes
 * @fault: set to what was found
 *
 * Every cache line is read: of a page that nobody has read yet, one line may
 * be bad and the others be fine.  Only when the kernel knows of it, it has
 * taken the whole page away.
 *
 * Any thread.  Returns the offset of the first page that cannot be read, or
 * @size if there is none.
 */
size_t hw_error_try_scan(const void *from, size_t size, HwErrorFault *fault);

/**
 * hw_error_sigbus_die: End as by a SIGBUS for which there is no handler.
 *
 * Any thread; also for signal handlers.
 */
G_NORETURN void hw_error_sigbus_die(void);

#endif
