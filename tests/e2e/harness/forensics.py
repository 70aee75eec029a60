"""
The last words of a guest in a dump of its memory.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import mmap
import re
from pathlib import Path

from .guest import Guest
from .records import Record

# the text that guest/recorder.c keeps in each record it builds
_WORDS = re.compile(rb'these are the last words of instance (\d+): '
                    rb'stream (\d+), record (\d+)\.')


def dump(vm: Guest, path: Path) -> Path:
    """Have QEMU write the guest's memory to a file."""
    vm.cmd('dump-guest-memory', paging=False, protocol=f'file:{path}')
    return path


def last_words(path: Path) -> set[Record]:
    """The records that were in the guest's memory."""
    with open(path, 'rb') as file, \
         mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        return {Record(*map(int, match.groups()))
                for match in _WORDS.finditer(memory)}


def unheard(words: set[Record], acknowledged: list[Record]) -> list[Record]:
    """
    The last acknowledged record of each stream, if neither it nor its
    successor, which the guest may have been about to write, is in @words.
    """
    last = {record.stream: record for record in acknowledged}
    return [record for record in last.values()
            if record not in words
            and record._replace(number=record.number + 1) not in words]
