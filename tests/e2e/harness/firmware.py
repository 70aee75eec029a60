"""
Guests of a few bytes, in the place of the firmware: they prove whether a vCPU
runs, and need no time to boot.

Both run in real mode, on a pc machine, from the reset vector on, and count in
the double word at COUNTER for ever.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import struct
from pathlib import Path

COUNTER = 0x500
# how many requests the driver has seen answered, and the last status byte
ANSWERED = 0x504
STATUS = 0x6800

# where the driver expects its device, and how many entries its queue has
DRIVEN_SLOT = 4
QUEUE_SIZE = 128
# what it writes
PATTERN = 0x5a

_SIZE = 65536
_DESC, _AVAIL, _USED = 0x4000, 0x4800, 0x5000
_HEADER, _DATA = 0x6000, 0x7000

# QEMU puts the capability VIRTIO_PCI_CAP_PCI_CFG there: a window to the
# device's registers in PCI configuration space
_WINDOW = 0x84
_BAR, _OFFSET, _LENGTH, _WINDOW_DATA = (_WINDOW + i for i in (4, 8, 12, 16))
_NOTIFY = 0x3000


def _image(path: Path, code: bytes) -> Path:
    rom = bytearray(_SIZE)
    rom[:len(code)] = code
    # jmp to the start, from the reset vector
    rom[0xfff0:0xfff3] = b'\xe9' + struct.pack('<h', 0x10000 - 0xfff3)
    path.write_bytes(rom)
    return path


def _count(address: int) -> bytes:
    """inc dword [address]"""
    return b'\x66\xff\x06' + struct.pack('<H', address)


def _store(address: int, value: int) -> bytes:
    """mov dword [address], value"""
    return b'\x66\xc7\x06' + struct.pack('<HI', address, value)


def _out32(port: int, value: int) -> bytes:
    """mov dx, port; mov eax, value; out dx, eax"""
    return (b'\xba' + struct.pack('<H', port)
            + b'\x66\xb8' + struct.pack('<I', value) + b'\x66\xef')


def _address(register: int) -> bytes:
    """Choose a register in the configuration of the device in the slot"""
    return _out32(0xcf8, 0x80000000 | DRIVEN_SLOT << 11 | register)


def _pci(register: int, value: int) -> bytes:
    return _address(register) + _out32(0xcfc, value)


def _window(offset: int, length: int) -> bytes:
    return _pci(_OFFSET, offset) + _pci(_LENGTH, length)


def _set(offset: int, length: int, value: int) -> bytes:
    """Write to the device's common configuration"""
    return _window(offset, length) + _pci(_WINDOW_DATA, value)


def _descriptor(number: int, address: int, length: int, flags: int) -> bytes:
    at = _DESC + 16 * number
    return (_store(at, address) + _store(at + 4, 0) + _store(at + 8, length)
            + _store(at + 12, flags | (number + 1) << 16))


def spinner(path: Path) -> Path:
    """A guest that only counts."""
    count = _count(COUNTER)
    return _image(path, b'\xfa' + count
                  + b'\xeb' + struct.pack('<b', -len(count) - 2))


def driver(path: Path, write: bool) -> Path:
    """
    A guest that has a virtio-blk device (virtio 1, of QUEUE_SIZE) write its
    first sector, or read it, again and again, one request at a time.
    """
    following, device_writes = 1, 2
    setup = (b'\xfa'
             # bus master, the BAR of the registers
             + _pci(0x04, 0x4) + _pci(_BAR, 4)
             # reset, acknowledge, driver; VIRTIO_F_VERSION_1; features ok
             + _set(20, 1, 0) + _set(20, 1, 1) + _set(20, 1, 3)
             + _set(8, 4, 1) + _set(12, 4, 1) + _set(20, 1, 11)
             # queue 0
             + _set(22, 2, 0) + _set(24, 2, QUEUE_SIZE)
             + _set(32, 4, _DESC) + _set(40, 4, _AVAIL) + _set(48, 4, _USED)
             + _set(28, 2, 1)
             + _descriptor(0, _HEADER, 16, following)
             + _descriptor(1, _DATA, 512,
                           following | (0 if write else device_writes))
             + _descriptor(2, STATUS, 1, device_writes)
             + _store(_HEADER, 1 if write else 0)
             + b''.join(_store(_DATA + i, PATTERN * 0x01010101)
                        for i in range(0, 512, 4))
             # no interrupts; the ring is full of descriptor 0 already
             + _store(_AVAIL, 1)
             + _set(20, 1, 15)
             + _window(_NOTIFY, 2) + _address(_WINDOW_DATA))
    # inc word [index]; notify
    submit = b'\xff\x06' + struct.pack('<H', _AVAIL + 2) + _out32(0xcfc, 0)
    # count; mov ax, [index of what is used]; cmp ax, [index]
    wait = (_count(COUNTER) + b'\xa1' + struct.pack('<H', _USED + 2)
            + b'\x3b\x06' + struct.pack('<H', _AVAIL + 2))
    wait += b'\x75' + struct.pack('<b', -len(wait) - 2)
    loop = submit + wait + _count(ANSWERED)
    return _image(path, setup + loop
                  + b'\xe9' + struct.pack('<h', -len(loop) - 3))
