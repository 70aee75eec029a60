"""
A host with real bad memory (guest/hwpoison.c), and in it a QEMU with a Linux
guest (guest/victim.c) under KVM.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from .host import PATIENCE, RAM, SIZE, Host
from .tap import expect


class Nested(Host):
    """A host with an inner QEMU, whose guest runs and knows its page."""

    def __init__(self, work: Path, args: Sequence[str] = (),
                 late: bool = True) -> None:
        """
        With @late, the inner QEMU is not told of a bad page before somebody
        reads it.
        """
        self._disk = work / 'host.disk'
        with open(self._disk, 'wb') as disk:
            # for a dump of the guest
            disk.truncate(SIZE + (64 << 20))
        super().__init__(work, (
            '-smp', '2', '-blockdev', 'raw,node-name=disk,file.driver=file,'
            f'file.filename={self._disk}',
            '-device', 'virtio-blk-pci,drive=disk'))
        self.callback(self._disk.unlink)
        with contextlib.ExitStack() as failed:
            failed.enter_context(self)
            self._boot(args, late)
            failed.pop_all()

    def _boot(self, args: Sequence[str], late: bool) -> None:
        self.booted()
        self.start('-kernel /guest/vmlinuz -initrd /guest/initrd '
                   "-append 'console=ttyS1 quiet panic=-1'", *args,
                   prefix='hwpoison late' if late else '')
        line = self.console.wait(lambda line: line.startswith('PAGE '),
                                 'the guest boots', patience=PATIENCE)[1]
        self.page = int(line.split()[1], 16)
        expect(0 < self.page < SIZE, line)
        # where it is in the inner QEMU
        self.host_page = self.host_address(self.page)

    def poison(self) -> None:
        """Make the page of the guest's program bad."""
        self._commands.send(f'hwpoison page {RAM} {self.page:#x}')
        self._commands.wait(lambda line: line == 'POISONED', 'poison',
                            patience=PATIENCE)

    def read(self) -> None:
        """Have the guest's program read its page; this does not wait."""
        self.console.send('')

    def told(self) -> str:
        """What the guest says of the next end of a reading process."""
        return self.console.wait(
            lambda line: line.startswith(('KILLED', 'READ')),
            'the guest reads', patience=PATIENCE)[1]

    def silent(self) -> bool:
        """Has it said nothing of a reading process?"""
        return not any(line.startswith(('KILLED', 'READ'))
                       for _, line in list(self.console.lines))

    def dump(self) -> bytes:
        """A dump of the guest's memory, without paging."""
        self.monitor.execute('dump-guest-memory', paging=False,
                             protocol='file:/dev/vda')
        self.run('sync')
        return self._disk.read_bytes()
