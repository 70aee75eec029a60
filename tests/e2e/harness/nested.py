"""
A Linux host under TCG that has KVM and real bad memory (guest/hwpoison.c), and
in it a QEMU with a Linux guest (guest/victim.c) under KVM. The test speaks
with both guests and with the inner QEMU by serial ports.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import itertools
import os
import platform
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from . import paths
from .guest import Channel
from .monitor import Monitor
from .process import Process
from .tap import Failure, Skip, expect, note

# No promise is about time. On an idle machine both have booted after 27 s.
PATIENCE = 240
PAGE = 4096
# of the inner guest
SIZE = 128 << 20
_RAM = '/memory/ram'
_IRQS = (4, 3, 5, 7)

_numbers = itertools.count()


def prepare() -> None:
    """Build what this is made of."""
    if platform.machine() != 'x86_64':
        raise Skip('not on x86_64: no libraries for the inner QEMU')
    if not shutil.which('strip'):
        raise Skip('no strip: QEMU is too large for the initramfs')
    build = paths.REPO / 'tests' / 'e2e' / 'guest' / 'build'
    made = subprocess.run([build, paths.GUEST, '--nested',
                           paths.QEMU_BIN / paths.SYSTEM], check=False,
                          capture_output=True, text=True)
    # it says in one line what package cannot be had
    if made.returncode == 1 and made.stderr.startswith('guest/build: '):
        raise Skip(made.stderr.splitlines()[0])
    expect(not made.returncode, made.stderr)


class Nested(contextlib.ExitStack):
    """A host with an inner QEMU, whose guest runs and knows its page."""

    def __init__(self, work: Path, args: Sequence[str] = (),
                 late: bool = True) -> None:
        """
        With @late, the inner QEMU is not told of a bad page before somebody
        reads it.
        """
        super().__init__()
        number = next(_numbers)
        self._log = work / f'host{number}.kernel'
        self._disk = work / f'host{number}.disk'
        with open(self._disk, 'wb') as disk:
            # for a dump of the guest
            disk.truncate(SIZE + (64 << 20))
        self.callback(self._disk.unlink)
        self.monitor = Monitor('qmp')
        self.callback(self.monitor.close)
        ours, theirs = zip(*(socket.socketpair() for _ in range(2)))
        self._commands, self.console = map(Channel, ours)
        for end in theirs:
            os.set_inheritable(end.fileno(), True)
        fds = (theirs[0].fileno(), self.monitor.qemu_fd(), theirs[1].fileno())
        chardevs = [*(f'socket,fd={fd}' for fd in fds),
                    f'file,path={self._log}']
        self._process = self.enter_context(Process(
            [paths.QEMU_BIN / paths.SYSTEM, '-accel', 'tcg', '-machine', 'q35',
             '-cpu', 'max,+svm,-la57', '-smp', '2', '-m', '1G',
             '-display', 'none', '-nodefaults', '-no-user-config',
             '-no-reboot', '-kernel', paths.GUEST / 'host',
             '-initrd', paths.GUEST / 'host.initrd',
             '-append', 'console=ttyS3 quiet panic=-1',
             '-blockdev', 'raw,node-name=disk,file.driver=file,'
             f'file.filename={self._disk}',
             '-device', 'virtio-blk-pci,drive=disk',
             *(arg for i, chardev in enumerate(chardevs) for arg in (
                 '-chardev', f'{chardev},id=port{i}',
                 # each with an interrupt of its own
                 '-device', f'isa-serial,chardev=port{i},index={i},'
                 f'irq={_IRQS[i]}'))],
            work / f'host{number}.log', fds))
        for end in theirs:
            end.close()
        for channel in (self._commands, self.console):
            self.callback(channel.drain)
        # QEMU first: the channels are read until it has ended
        self.callback(self._process.end)
        with contextlib.ExitStack() as failed:
            failed.enter_context(self)
            self._boot(args, late)
            failed.pop_all()

    def _boot(self, args: Sequence[str], late: bool) -> None:
        self._commands.wait(lambda line: line == 'READY', 'the host boots',
                            patience=PATIENCE)
        prefix = 'hwpoison late ' if late else ''
        self._commands.send(
            'mkdir /memory; mount -t tmpfs memory /memory; '
            f'{prefix}qemu -accel kvm -cpu host -L /firmware '
            f'-machine q35,memory-backend=ram -m {SIZE >> 20} '
            f'-object memory-backend-file,id=ram,size={SIZE},share=on,'
            f'mem-path={_RAM} -display none -nodefaults -no-user-config '
            '-chardev serial,id=qmp,path=/dev/ttyS1 '
            '-mon chardev=qmp,mode=control '
            '-serial /dev/ttyS2 -serial file:/guest.log '
            '-kernel /guest/vmlinuz -initrd /guest/initrd '
            "-append 'console=ttyS1 quiet panic=-1' -no-reboot "
            # and then the host has nothing to do: nobody waits in vain for it
            f'{" ".join(args)}; echo ENDED $?; sleep 1; poweroff -f')
        try:
            self.monitor.connect(PATIENCE)
        except (OSError, EOFError) as err:
            raise Failure(f'the inner QEMU does not start: {err!r}') from None
        line = self.console.wait(lambda line: line.startswith('PAGE '),
                                 'the guest boots', patience=PATIENCE)[1]
        self.page = int(line.split()[1], 16)
        expect(0 < self.page < SIZE, line)
        said = self.monitor.hmp(f'gpa2hva {self.page:#x}')
        match = re.search(r'is (0x[0-9a-f]+)', said)
        expect(match, said)
        assert match
        # where it is in the inner QEMU
        self.host_page = int(match[1], 16)

    def __exit__(self, exc_type: type[BaseException] | None,
                 *details: object) -> bool:
        if exc_type:
            with contextlib.suppress(OSError):
                self._commands.send('tail -n 20 /guest.log')
                # no harm if that is too short
                time.sleep(2)
            for _, line in self._commands.lines[-40:]:
                note(f'host: {line}')
            note(self._process.output())
            if self._log.exists():
                note(self._log.read_text(errors='replace'))
        return super().__exit__(exc_type, *details)

    def poison(self) -> None:
        """Make the page of the guest's program bad."""
        self._commands.send(f'hwpoison page {_RAM} {self.page:#x}')
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

    def error(self, start: int = 0) -> dict:
        """The data of a HARDWARE_ERROR, also of one that has come."""
        return self.monitor.event('HARDWARE_ERROR', start=start)[1]['data']

    def names(self) -> list[str]:
        """The events up to now."""
        self.monitor.execute('query-status')
        return [event['event'] for _, event in self.monitor.events]

    def status(self) -> str:
        """The run state of the inner QEMU."""
        return self.monitor.execute('query-status')['status']

    def dump(self) -> bytes:
        """A dump of the guest's memory, without paging."""
        self.monitor.execute('dump-guest-memory', paging=False,
                             protocol='file:/dev/vda')
        self._commands.send('sync; echo SYNCED')
        self._commands.wait(lambda line: line == 'SYNCED', 'sync',
                            patience=PATIENCE)
        return self._disk.read_bytes()
