/*
 * Hardware errors: x86 machine checks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef I386_HW_ERROR_H
#define I386_HW_ERROR_H

#include "cpu.h"

/**
 * x86_hw_error_mce: Somebody wants to inject a machine check.
 * @cpu: the vCPU
 * @status: content of the bank's MCi_STATUS
 * @addr: of MCi_ADDR
 * @misc: of MCi_MISC
 *
 * Main thread, with the BQL held.  Returns: true if the VM is stopped or
 * quiesced instead.
 */
bool x86_hw_error_mce(X86CPU *cpu, uint64_t status, uint64_t addr,
                      uint64_t misc);

#endif
