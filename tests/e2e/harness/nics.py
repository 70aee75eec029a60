"""
Frames, and scripts of the tiny guest that send them without an end.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from . import virtio
from .tiny import BUFFERS, Script, Tiny
from .virtio import MEMORY, SLOT

_QUEUE = BUFFERS
_FRAME = _QUEUE + 0x1000
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


def _e1000(vm: Tiny, data: bytes) -> Script:
    def register(number: int, value: int) -> None:
        script.add('store', value=value, second=MEMORY + number)

    vm.write(_FRAME, data)
    # end of packet, insert the frame check sequence, report status
    descriptor = struct.pack('<QHBBBBH', _FRAME, len(data), 0, 0xb, 0, 0, 0)
    vm.write(_QUEUE, descriptor * _RING)
    script = Script()
    script.pci(SLOT, 0x10, MEMORY).pci(SLOT, 4, 6, 'outw')
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
    'virtio-net': Nic('virtio-net-pci,disable-legacy=on', virtio.send),
    'e1000': Nic('e1000', _e1000),
}
