"""
The records on a disk that guest/recorder.c writes, and the check of what must
be true of them however often, and whenever, the writing VM was quiesced and
replaced by another one.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import mmap
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

RECORD = 2048
_HEAD = struct.Struct('<8sIIQ')
_CRC = struct.Struct('<I')
_MAGIC = b'QFSREC01'
_ZERO = bytes(RECORD)


class Record(NamedTuple):
    """What identifies a record: who wrote it, where it belongs."""
    instance: int
    stream: int
    number: int


def pack(record: Record) -> bytes:
    """The bytes of a record, except for the guest's filler."""
    body = _HEAD.pack(_MAGIC, *record).ljust(RECORD - _CRC.size, b'\xa5')
    return body + _CRC.pack(zlib.crc32(body))


def unpack(slot: bytes) -> Record | None:
    """The record in a slot; None if its bytes are not those of a record."""
    magic, *rest = _HEAD.unpack_from(slot)
    crc, = _CRC.unpack_from(slot, RECORD - _CRC.size)
    if magic != _MAGIC or crc != zlib.crc32(slot[:-_CRC.size]):
        return None
    return Record(*rest)


@dataclass
class Report:
    """The result of a check: what is wrong, and how much was looked at."""
    problems: list[str] = field(default_factory=list)
    records: int = 0
    acknowledged: int = 0
    # how many records each instance has on the disk
    written: dict[int, int] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.problems:
            return (f'{self.records} records on disk, {self.acknowledged} '
                    'acknowledged: none missing, torn or twice, one writer '
                    'at a time')
        more = len(self.problems) - 5
        return '; '.join(self.problems[:5]) + (f'; {more} more' if more > 0
                                               else '')


def check(disk: bytes | mmap.mmap, streams: int, writers: Sequence[int],
          acknowledged: Iterable[Record]) -> Report:
    """
    Check a whole disk that was zero before the first of @writers, which ran in
    this order, wrote to it. @acknowledged is what they told the host.
    """
    report = Report()
    turn = {instance: i for i, instance in enumerate(writers)}
    by_place: dict[tuple[int, int], int] = {}
    slots = len(disk) // streams // RECORD
    for stream in range(streams):
        _check_stream(disk, stream, slots, turn, by_place, report)
    for record in acknowledged:
        report.acknowledged += 1
        writer = by_place.get((record.stream, record.number))
        if writer is None:
            report.problems.append(f'missing: {record} was acknowledged')
        elif writer != record.instance:
            report.problems.append(f'two writers: {record} was acknowledged, '
                                   f'but is by {writer} on disk')
    return report


def _check_stream(disk: bytes | mmap.mmap, stream: int, slots: int,
                  turn: dict[int, int],
                  by_place: dict[tuple[int, int], int],
                  report: Report) -> None:
    base = stream * slots * RECORD
    latest = -1
    gap = None
    for number in range(slots):
        slot = disk[base + number * RECORD:base + (number + 1) * RECORD]
        place = f'place {stream}/{number}'
        if slot == _ZERO:
            gap = number if gap is None else gap
            continue
        if gap is not None:
            report.problems.append(f'missing: {stream}/{gap}, but there is '
                                   f'something at {place}')
            gap = None
        record = unpack(slot)
        if record is None:
            report.problems.append(f'torn: {place}')
            continue
        if (record.stream, record.number) != (stream, number):
            report.problems.append(f'twice: {record} is also at {place}')
            continue
        report.records += 1
        by_place[stream, number] = record.instance
        report.written[record.instance] = (
            report.written.get(record.instance, 0) + 1)
        if record.instance not in turn:
            report.problems.append(f'two writers: {record} is by nobody '
                                   'who should have run')
        elif turn[record.instance] < latest:
            report.problems.append(f'two writers: {record} comes after '
                                   'records of an instance that took over')
        else:
            latest = turn[record.instance]
