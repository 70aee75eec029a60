"""
What is in a dump of a guest's memory, an ELF file.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import struct
from typing import NamedTuple

from .tap import expect

# see docs/specs/hw-error-dump.rst
_NOTE = b'QEMU-BADMEM\0'
_PT_LOAD, _PT_NOTE = 1, 4


class _Segment(NamedTuple):
    """A program header, as far as needed."""
    kind: int
    offset: int
    address: int
    size: int


def _segments(elf: bytes) -> list[_Segment]:
    expect(elf.startswith(b'\x7fELF'), 'no ELF file')
    offset, = struct.unpack_from('<Q', elf, 32)
    size, count = struct.unpack_from('<HH', elf, 54)
    return [_Segment(kind, at, address, length)
            for kind, at, address, length in (
                struct.unpack_from('<I4xQ8xQQ', elf, offset + i * size)
                for i in range(count))]


def bad_pages(elf: bytes) -> list[tuple[int, int]]:
    """Address and size of what the note says is missing."""
    notes, = (segment for segment in _segments(elf)
              if segment.kind == _PT_NOTE)
    note = elf.find(_NOTE, notes.offset, notes.offset + notes.size)
    expect(note >= 0, 'not among the notes')
    note += len(_NOTE)
    version, flags, count = struct.unpack_from('<IIQ', elf, note)
    expect((version, flags) == (1, 0), f'version {version}, flags {flags}')
    return [struct.unpack_from('<QQ', elf, note + 16 + 16 * i)
            for i in range(count)]


def memory(elf: bytes, address: int, size: int) -> bytes:
    """What the dump has of the guest's memory."""
    start, = (segment.offset - segment.address for segment in _segments(elf)
              if segment.kind == _PT_LOAD and segment.address <= address
              and address + size <= segment.address + segment.size)
    return elf[start + address:start + address + size]
