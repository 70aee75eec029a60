"""
What a driver of a virtio device does, as scripts of the tiny guest: a frame or
a request, again and again, one at a time.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import struct

from .tiny import BUFFERS, COUNTERS, Script, TinyGuest

# the PCI slot of the device
SLOT = 4
# where its registers are
MEMORY = 0xfe000000
# how many requests have been answered, modulo 65536
ANSWERED = BUFFERS + 0x5000
# where the device finds what it is to do
DATA = BUFFERS + 0x3000

# the places where queues are notified, among its registers
_NOTIFY = 0x3000
_QUEUE, _AVAILABLE, _USED = BUFFERS, BUFFERS + 0x1000, BUFFERS + 0x2000
_NEXT, _DEVICE_WRITES = 1, 2

# a virtio-blk request: its header, a sector, and the status
_SECTOR, BLK_STATUS = DATA + 16, DATA + 16 + 512
PATTERN = 0x5a


def _again_and_again(vm: TinyGuest, queue: int,
                     *parts: tuple[int, int, int]) -> Script:
    """
    Start a device that knows version 1, and have it use a queue; each part of
    a request has an address, a length and flags.
    """
    for number, (address, length, flags) in enumerate(parts):
        vm.write(_QUEUE + 16 * number, struct.pack(
            '<QIHH', address, length, flags, number + 1))
    # not interrupts; the ring is full of the first descriptor already
    vm.write(_AVAILABLE, struct.pack('<H', 1))
    script = Script()
    script.pci(SLOT, 0x20, MEMORY).pci(SLOT, 0x24, 0)
    script.pci(SLOT, 4, 6, 'outw')
    # the common configuration: reset, and a driver that knows version 1
    for operation, offset, value in (
            ('store', 0x14, 0), ('store', 0x14, 3), ('store', 8, 1),
            ('store', 0xc, 1), ('store', 0x14, 0xb),
            ('store_word', 0x16, queue), ('store', 0x20, _QUEUE),
            ('store', 0x24, 0), ('store', 0x28, _AVAILABLE),
            ('store', 0x2c, 0), ('store', 0x30, _USED), ('store', 0x34, 0),
            ('store_word', 0x1c, 1), ('store', 0x14, 0xf)):
        script.add(operation, value=value, second=MEMORY + offset)
    again = script.end()
    script.add('increment', value=_AVAILABLE + 2)
    # Again and again: a vhost-user back end that is stopped before it has seen
    # a notification does not look at the queue when it is started.
    notify = script.end()
    script.add('store_word', value=queue, second=MEMORY + _NOTIFY + 4 * queue)
    # what the vCPU does not do by itself while it runs a script
    script.add('increment', value=COUNTERS)
    script.add('delay', value=2000)
    script.add('goto_unless_equal', notify, _AVAILABLE + 2, _USED + 2)
    script.add('increment', value=ANSWERED)
    return script.add('goto', value=again)


def send(vm: TinyGuest, frame: bytes) -> Script:
    """virtio-net."""
    data = bytes(12) + frame
    vm.write(DATA, data)
    return _again_and_again(vm, 1, (DATA, len(data), 0))


def access(vm: TinyGuest, write: bool) -> Script:
    """virtio-blk: write the first sector, or read it."""
    vm.write(DATA, struct.pack('<IIQ', write, 0, 0))
    vm.write(_SECTOR, bytes([PATTERN]) * 512)
    return _again_and_again(
        vm, 0, (DATA, 16, _NEXT),
        (_SECTOR, 512, _NEXT if write else _NEXT | _DEVICE_WRITES),
        (BLK_STATUS, 1, _DEVICE_WRITES))
