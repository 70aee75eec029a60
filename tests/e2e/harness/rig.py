"""
What several VMs of a test share: a directory, disks, and a guest that has
booted before.

SPDX-License-Identifier: GPL-2.0-or-later
"""

from pathlib import Path

from . import image
from .guest import Controller, Disk, Guest

STREAMS = 4
DISK_SIZE = 128 << 20


class Rig:
    """Makes disks and saved guests in a directory."""

    def __init__(self, work: Path, accel: str = 'tcg',
                 disk_size: int = DISK_SIZE) -> None:
        self.work = work
        self.disk_size = disk_size
        self.accel = accel
        self.direct = image.supports_direct_io(work)
        self._templates: dict[Controller, Path] = {}

    def disk(self, controller: Controller, fmt: str,
             name: str = 'disk', size: int | None = None) -> Disk:
        """A new, empty disk."""
        path = image.create(self.work / f'{name}.{fmt}', fmt,
                            size or self.disk_size)
        return Disk(path, fmt, controller, self.direct)

    def template(self, controller: Controller) -> Path:
        """A saved guest that has booted with an empty disk."""
        if controller not in self._templates:
            path = (self.work
                    / f'{self.accel}-{len(self._templates)}.template')
            disk = self.disk(controller, 'raw', 'template')
            with Guest(self.work, disk, accel=self.accel) as vm:
                vm.boot()
                vm.save(path)
            disk.image.unlink()
            self._templates[controller] = path
        return self._templates[controller]
