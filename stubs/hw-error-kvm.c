/* SPDX-License-Identifier: GPL-2.0-or-later */

#include "qemu/osdep.h"
#include "system/kvm.h"

void kvm_hw_error_remember(void *host)
{
    g_assert_not_reached();
}
