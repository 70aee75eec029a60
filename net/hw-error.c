/*
 * Hardware errors: back ends of networks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw-error.h"
#include "hw-error/backend.h"
#include "qom/object.h"

/* The guest's network device; vhost-user has no other than virtio-net */
static Object *device(NetClientState *nc)
{
    if (!nc->peer || nc->peer->info->type != NET_CLIENT_DRIVER_NIC) {
        return NULL;
    }
    return OBJECT(qemu_get_nic_opaque(nc->peer));
}

void net_hw_error_lost(NetClientState *nc, CharFrontend *chr)
{
    hw_error_backend_lost(HW_ERROR_BACKEND_TYPE_VHOST_USER, device(nc), chr,
                          true);
}

void net_hw_error_back(NetClientState *nc, CharFrontend *chr)
{
    hw_error_backend_back(HW_ERROR_BACKEND_TYPE_VHOST_USER, device(nc), chr);
}
