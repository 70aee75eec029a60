"""
Promised: the record check finds what it is there to find.

Measured: an image with the records of two instances, as a good takeover leaves
it, passes; each kind of damage to it is found and called by its name.

SPDX-License-Identifier: GPL-2.0-or-later
"""

from collections.abc import Callable

from harness.records import RECORD, Record, check, pack
from harness.tap import expect

_STREAMS = 2
_SLOTS = 32
_WRITERS = (1, 2)
# each stream has this many records of each writer
_EACH = 10


def _place(stream: int, number: int) -> int:
    return (stream * _SLOTS + number) * RECORD


def _put(disk: bytearray, stream: int, number: int, data: bytes) -> None:
    place = _place(stream, number)
    disk[place:place + len(data)] = data


def _good() -> tuple[bytearray, list[Record]]:
    disk = bytearray(_STREAMS * _SLOTS * RECORD)
    records = [Record(_WRITERS[number // _EACH], stream, number)
               for stream in range(_STREAMS) for number in range(2 * _EACH)]
    for record in records:
        _put(disk, record.stream, record.number, pack(record))
    return disk, records


def _lost_write(disk: bytearray) -> None:
    _put(disk, 1, 2 * _EACH - 1, bytes(RECORD))


def _hole(disk: bytearray) -> None:
    _put(disk, 0, 3, bytes(RECORD))


def _half_written(disk: bytearray) -> None:
    _put(disk, 0, 2 * _EACH - 1, bytes(RECORD // 2))


def _half_overwritten(disk: bytearray) -> None:
    _put(disk, 1, 5, pack(Record(2, 1, 5))[:512])


def _torn_tail(disk: bytearray) -> None:
    _put(disk, 0, 2 * _EACH, pack(Record(2, 0, 2 * _EACH))[:512])


def _twice(disk: bytearray) -> None:
    _put(disk, 0, 2 * _EACH, pack(Record(2, 0, 2 * _EACH - 1)))


def _old_writer_goes_on(disk: bytearray) -> None:
    _put(disk, 1, 2 * _EACH, pack(Record(1, 1, 2 * _EACH)))


def _old_writer_overwrites(disk: bytearray) -> None:
    _put(disk, 1, _EACH, pack(Record(1, 1, _EACH)))


def _new_writer_overwrites(disk: bytearray) -> None:
    _put(disk, 1, _EACH - 1, pack(Record(2, 1, _EACH - 1)))


def _stranger(disk: bytearray) -> None:
    _put(disk, 1, 2 * _EACH, pack(Record(3, 1, 2 * _EACH)))


_DAMAGE: list[tuple[Callable[[bytearray], None], str]] = [
    (_lost_write, 'missing'),
    (_hole, 'missing'),
    (_half_written, 'torn'),
    (_half_overwritten, 'torn'),
    (_torn_tail, 'torn'),
    (_twice, 'twice'),
    (_old_writer_goes_on, 'two writers'),
    (_old_writer_overwrites, 'two writers'),
    (_new_writer_overwrites, 'two writers'),
    (_stranger, 'two writers'),
]


def finds_damage() -> None:
    """The case."""
    disk, records = _good()
    report = check(disk, _STREAMS, _WRITERS, records)
    expect(not report.problems, f'undamaged: {report}')
    expect(report.records == report.acknowledged == len(records),
           f'not all records were looked at: {report}')
    for damage, name in _DAMAGE:
        disk, records = _good()
        damage(disk)
        report = check(disk, _STREAMS, _WRITERS, records)
        expect(any(problem.startswith(name) for problem in report.problems),
               f'{damage.__name__} is not reported as "{name}": {report}')
