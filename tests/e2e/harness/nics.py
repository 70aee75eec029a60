"""
Frames, and scripts of the tiny guest that send them without an end.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from .tiny import BUFFERS, Script, Tiny

SLOT = 4
_MEMORY = 0xfe000000
# where the queues of a virtio device are notified, in its memory
_NOTIFY = 0x3000
# a virtio queue of 256 entries; where its parts are is given
_QUEUE = BUFFERS
_AVAILABLE, _USED = _QUEUE + 0x1000, _QUEUE + 0x2000
_FRAME = _QUEUE + 0x3000
_RING = 16


def _checksum(header: bytes) -> int:
    total = sum(struct.unpack(f'>{len(header) // 2}H', header))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff


def frame(mark: bytes, port: int) -> bytes:
    """A UDP packet to the gateway of user-mode networking, with a mark."""
    payload = mark.ljust(64, b'.')
    udp = struct.pack('>HHHH', 4000, port, 8 + len(payload), 0) + payload
    ip = struct.pack('>BBHHHBBH4s4s', 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                     bytes((10, 0, 2, 15)), bytes((10, 0, 2, 2)))
    ip = ip[:10] + struct.pack('>H', _checksum(ip)) + ip[12:]
    return (bytes.fromhex('52550a000202 525400123456 0800') + ip + udp)


def _virtio(vm: Tiny, data: bytes) -> Script:
    data = bytes(12) + data
    vm.write(_FRAME, data)
    vm.write(_QUEUE, struct.pack('<QIHH', _FRAME, len(data), 0, 0))
    script = Script()
    script.pci(SLOT, 0x20, _MEMORY).pci(SLOT, 0x24, 0)
    script.pci(SLOT, 4, 6, 'outw')
    # the common configuration: reset, and a driver that knows version 1
    for operation, offset, value in (
            ('store', 0x14, 0), ('store', 0x14, 3), ('store', 8, 1),
            ('store', 0xc, 1), ('store', 0x14, 0xb),
            # the transmit queue
            ('store_word', 0x16, 1), ('store', 0x20, _QUEUE),
            ('store', 0x24, 0), ('store', 0x28, _AVAILABLE),
            ('store', 0x2c, 0), ('store', 0x30, _USED), ('store', 0x34, 0),
            ('store_word', 0x1c, 1), ('store', 0x14, 0xf)):
        script.add(operation, value=value, second=_MEMORY + offset)
    again = script.end()
    script.add('increment', value=_AVAILABLE + 2)
    # Again and again: a vhost-user back end that is stopped before it has seen
    # a notification does not look at the queue when it is started.
    notify = script.end()
    script.add('store_word', value=1, second=_MEMORY + _NOTIFY + 4)
    script.add('delay', value=2000)
    script.add('goto_unless_equal', notify, _AVAILABLE + 2, _USED + 2)
    return script.add('goto', value=again)


def _e1000(vm: Tiny, data: bytes) -> Script:
    def register(number: int, value: int) -> None:
        script.add('store', value=value, second=_MEMORY + number)

    vm.write(_FRAME, data)
    # end of packet, insert the frame check sequence, report status
    descriptor = struct.pack('<QHBBBBH', _FRAME, len(data), 0, 0xb, 0, 0, 0)
    vm.write(_QUEUE, descriptor * _RING)
    script = Script()
    script.pci(SLOT, 0x10, _MEMORY).pci(SLOT, 4, 6, 'outw')
    for number, value in ((0x3800, _QUEUE), (0x3804, 0),
                          (0x3808, _RING * len(descriptor)), (0x3810, 0),
                          (0x3818, 0), (0x400, 0xa)):
        register(number, value)
    again = script.end()
    for tail in range(_RING):
        register(0x3818, tail)
        script.add('delay', value=2000)
    return script.add('goto', value=again)


@dataclass(frozen=True)
class Nic:
    """A network card, and how to have it send a frame over and over."""
    device: str
    flood: Callable[[Tiny, bytes], Script]


NICS = {
    'virtio-net': Nic('virtio-net-pci,disable-legacy=on', _virtio),
    'e1000': Nic('e1000', _e1000),
}
