"""
A Linux host under TCG that has KVM, and in it a QEMU with a guest. The test
speaks with the host, with the inner QEMU and with its guest by serial ports.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import itertools
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from . import paths
from .errors import Monitored
from .guest import Channel
from .monitor import Monitor
from .process import Process
from .tap import Failure, Skip, expect, note

# No promise is about time. On an idle machine both have booted after 27 s.
PATIENCE = 240
# of the inner guest
SIZE = 128 << 20
RAM = '/memory/ram'
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


class Host(contextlib.ExitStack, Monitored):
    """The host, when it has booted; then the inner QEMU with its guest."""

    def __init__(self, work: Path, args: Sequence[object],
                 fds: Sequence[int] = (), append: str = '') -> None:
        """
        With these arguments for the outer QEMU, which inherits @fds, and for
        the host's kernel.
        """
        super().__init__()
        number = next(_numbers)
        self._log = work / f'host{number}.kernel'
        self.monitor = Monitor('qmp')
        self.callback(self.monitor.close)
        ours, theirs = zip(*(socket.socketpair() for _ in range(2)))
        self._commands, self.console = map(Channel, ours)
        for end in theirs:
            os.set_inheritable(end.fileno(), True)
        ports = (theirs[0].fileno(), self.monitor.qemu_fd(),
                 theirs[1].fileno())
        chardevs = [*(f'socket,fd={fd}' for fd in ports),
                    f'file,path={self._log}']
        self._process = self.enter_context(Process(
            [paths.QEMU_BIN / paths.SYSTEM, '-accel', 'tcg', '-machine', 'q35',
             '-cpu', 'max,+svm,-la57', '-m', '1G',
             '-display', 'none', '-nodefaults', '-no-user-config',
             '-no-reboot', '-kernel', paths.GUEST / 'host',
             '-initrd', paths.GUEST / 'host.initrd',
             '-append', f'console=ttyS3 quiet panic=-1 {append}', *args,
             *(arg for i, chardev in enumerate(chardevs) for arg in (
                 '-chardev', f'{chardev},id=port{i}',
                 # each with an interrupt of its own
                 '-device', f'isa-serial,chardev=port{i},index={i},'
                 f'irq={_IRQS[i]}'))],
            work / f'host{number}.log', (*ports, *fds)))
        for end in theirs:
            end.close()
        for channel in (self._commands, self.console):
            self.callback(channel.drain)
        # QEMU first: the channels are read until it has ended
        self.callback(self._process.end)

    def booted(self) -> None:
        """Wait until it takes commands."""
        self._commands.wait(lambda line: line == 'READY', 'the host boots',
                            patience=PATIENCE)

    def start(self, *args: str, prefix: str = '') -> None:
        """Start the inner QEMU, by means of the command @prefix if given."""
        self._commands.send(
            'mkdir /memory; mount -t tmpfs memory /memory; '
            f'{prefix} qemu -accel kvm -cpu host -L /firmware '
            f'-machine q35,memory-backend=ram -m {SIZE >> 20} '
            f'-object memory-backend-file,id=ram,size={SIZE},share=on,'
            f'mem-path={RAM} -display none -nodefaults -no-user-config '
            '-chardev serial,id=qmp,path=/dev/ttyS1 '
            '-mon chardev=qmp,mode=control '
            '-serial /dev/ttyS2 -serial file:/guest.log -no-reboot '
            # and then the host has nothing to do: nobody waits in vain for it
            f'{" ".join(args)}; echo ENDED $?; sleep 1; poweroff -f')
        try:
            self.monitor.connect(PATIENCE)
        except (OSError, EOFError) as err:
            raise Failure(f'the inner QEMU does not start: {err!r}') from None

    def __exit__(self, exc_type: type[BaseException] | None,
                 *details: object) -> bool:
        if exc_type and not issubclass(exc_type, Skip):
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

    @staticmethod
    def said(channel: Channel, command: str) -> list[str]:
        """What a command says to which guest/init listens there."""
        start = len(channel.lines)
        # if it ended, the next command could come to harm
        channel.send(f'{command}; echo =END; exec sleep 99999')
        channel.wait(lambda line: line == '=END', command, start, PATIENCE)
        lines = [line for _, line in channel.lines[start:]]
        return lines[:lines.index('=END')]

    def run(self, command: str) -> list[str]:
        """What a command says on the host."""
        return self.said(self._commands, command)
