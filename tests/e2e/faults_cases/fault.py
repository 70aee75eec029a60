"""
A row of the table, as it is set up, and what is found out about it.

SPDX-License-Identifier: GPL-2.0-or-later
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .backends import Backend


@dataclass(frozen=True)
class Device:
    """A device that has the disk."""
    name: str
    path: str
    args: tuple[str, ...]


VIRTIO = Device('virtio-blk', '/machine/peripheral/dev/virtio-backend',
                ('-device', 'virtio-blk-pci,id=dev,drive=disk'))
IOTHREAD = Device('virtio-blk with an iothread', VIRTIO.path,
                  ('-object', 'iothread,id=io', '-device',
                   'virtio-blk-pci,id=dev,drive=disk,iothread=io'))
IDE = Device('ide', '/machine/peripheral/dev',
             ('-device', 'ide-hd,id=dev,drive=disk'))
# the back end is the device's own
VHOST_USER = Device('vhost-user-blk', '/machine/peripheral/dev', ())


@dataclass(frozen=True)
class Fault:
    """A row of the table: a disk, and what is in flight when it hangs."""
    back_end: str
    fault: str
    make: Callable[[Path], Backend]
    device: Device = VIRTIO
    flush: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return f'{self.back_end}, {self.fault}'


@dataclass
class Found:
    """What was seen in a cell."""
    named: str = ''
    # does the kernel keep the process that has ended?
    kept: bool = False
    times: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def took(self, what: str, seconds: float) -> None:
        """Remember a time; the longest, if there are several."""
        self.times[what] = max(seconds * 1e3, self.times.get(what, -1e9))
