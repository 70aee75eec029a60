/*
 * Quiesced run state: network back ends
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_VM_QUIESCE_H
#define NET_VM_QUIESCE_H

/**
 * net_quiesced: Whether packets must not be passed on now.
 *
 * Called from the main thread, with the BQL held.
 */
bool net_quiesced(void);

#endif
