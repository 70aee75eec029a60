"""
A guest's disk that another process serves, and that can be made to hang.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from . import image, paths
from .guest import Controller, Disk, Guest
from .process import Process

PAGE = 4096


def write_pages(guest: Guest, offset: int) -> str:
    """
    The command that has a guest write a page there, by way of its page cache,
    again and again. Linux never takes a task for hung that waits for direct
    I/O, as a recorder does.
    """
    assert guest.disk
    return (f'while dd if=/dev/zero of={guest.disk.controller.device} '
            f'bs={PAGE} seek={offset // PAGE} count=1 conv=fsync '
            '2>/dev/null; do sleep 0.1; done; echo E dd has failed')


@dataclass(frozen=True)
class ServedDisk(Disk):
    """A raw image behind NBD."""
    socket: Path

    def args(self) -> list[str]:
        return ['-blockdev',
                'driver=raw,node-name=disk,file.driver=nbd,file.export=disk,'
                f'file.server.type=unix,file.server.path={self.socket}',
                *self.controller.args]


class Storage(contextlib.ExitStack):
    """An image, and the process that serves it."""

    def __init__(self, work: Path, name: str, size: int) -> None:
        super().__init__()
        self.image = image.create(work / f'{name}.raw', 'raw', size)
        self.callback(self.image.unlink)
        self._socket = work / f'{name}.socket'
        ready = work / f'{name}.pid'
        self.server = self.enter_context(Process(
            [paths.QEMU_BIN / 'qemu-storage-daemon',
             '--blockdev', f'file,node-name=file,filename={self.image}',
             '--nbd-server', f'addr.type=unix,addr.path={self._socket}',
             '--export', 'nbd,id=export,name=disk,node-name=file,writable=on',
             '--pidfile', ready], work / f'{name}.log'))
        self.server.await_file(ready)
        # QEMU could not end while it hangs
        self.callback(self.go_on)

    def disk(self, controller: Controller) -> ServedDisk:
        """What a guest has of it."""
        return ServedDisk(self.image, 'raw', controller, False, self._socket)

    def hang(self) -> None:
        """From here on no request is answered."""
        self.server.freeze()

    def go_on(self) -> None:
        """All requests are answered, also those that have waited."""
        self.server.thaw()
