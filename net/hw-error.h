/*
 * Hardware errors: back ends of networks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_HW_ERROR_H
#define NET_HW_ERROR_H

#include "chardev/char-fe.h"
#include "net/net.h"

/**
 * net_hw_error_lost: A back end is lost: see hw_error_backend_lost().
 * @nc: the network client
 * @chr: the connection
 *
 * Called with the BQL held.
 */
void net_hw_error_lost(NetClientState *nc, CharFrontend *chr);

/** net_hw_error_back: It is back: see hw_error_backend_back(). */
void net_hw_error_back(NetClientState *nc, CharFrontend *chr);

#endif
