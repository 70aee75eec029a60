/*
 * Quiesced run state: programs without a VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "system/vm-quiesce.h"

bool vm_quiesce_allows_gdb(const char *packet)
{
    return true;
}

bool vm_quiesce_allows_qom_set(const char *property, Error **errp)
{
    return true;
}
