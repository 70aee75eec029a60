"""
What must not change while a VM is quiesced: image files, the packets that have
left, the positions of open files; and no image may be locked for writing.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from harness import image
from harness.tap import expect

from . import network
from .target import Target


@dataclass
class _State:
    # name -> time of the last change, size, digest
    files: dict[str, tuple[int, int, str]]
    positions: dict[str, str]
    packets: int

    @classmethod
    def of(cls, vm: Target) -> '_State':
        """As it is now."""
        files = {}
        for path in vm.images.iterdir():
            stat = path.stat()
            files[path.name] = (stat.st_mtime_ns, stat.st_size,
                                image.digest(path))
        return cls(files, _positions(vm), network.packets_sent())

    def changes(self, later: '_State') -> str:
        """What is different later."""
        found = [f'{name}: {self.files.get(name)} -> {later.files.get(name)}'
                 for name in sorted(self.files | later.files)
                 if self.files.get(name) != later.files.get(name)]
        if self.positions != later.positions:
            found.append(f'positions: {self.positions} -> {later.positions}')
        if self.packets != later.packets:
            found.append(f'packets sent: {self.packets} -> {later.packets}')
        return '; '.join(found)


def _positions(vm: Target) -> dict[str, str]:
    """Where in its image files the process is; of those it has open."""
    process = Path('/proc') / str(vm.get_pid())
    result = {}
    for link in (process / 'fd').iterdir():
        with contextlib.suppress(OSError):
            if Path(os.readlink(link)).parent == vm.images:
                info = (process / 'fdinfo' / link.name).read_text()
                result[link.name] = info.splitlines()[0]
    return result


class Watch:
    """Looks at a VM, as often as it is told to."""

    def __init__(self, vm: Target, counts: Counter) -> None:
        self._vm = vm
        self._counts = counts
        self._first: _State | None = None

    def look(self) -> bool:
        """
        Is the VM quiesced, and all that it was when it was first seen to be?
        Must not be called while a command is open that could end the state.
        """
        if self._vm.status() != 'quiesced':
            expect(not self._first, 'the VM is not quiesced any more, but '
                   'nobody has asked for that')
            return False
        now = _State.of(self._vm)
        self._counts['looks'] += 1
        if self._first:
            changes = self._first.changes(now)
            expect(not changes, f'quiesced, but changed: {changes}')
        else:
            self._counts['times quiesced'] += 1
            self._first = now
            for path in self._vm.images.iterdir():
                expect(not image.is_locked(path),
                       f'quiesced, but {path.name} is locked')
        return True

    def end(self) -> None:
        """The last look: a command that may end the state will be sent."""
        if self._first:
            self.look()
        self._first = None
