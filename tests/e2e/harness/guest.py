"""
A Linux guest in a QEMU process, its disk, and its channel to the host.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .machine import PATIENCE, Machine
from .paths import GUEST, QEMU_BIN, SYSTEM
from .records import Record
from .tap import Failure, expect


@dataclass(frozen=True)
class Controller:
    """How a disk is attached to the guest, and what Linux calls it there."""
    name: str
    device: str
    args: tuple[str, ...]
    machine: str = 'q35'
    # can the guest be saved to a file and loaded in another QEMU?
    migratable: bool = True


CONTROLLERS = {controller.name: controller for controller in (
    Controller('virtio-blk', '/dev/vda',
               ('-device', 'virtio-blk-pci,drive=disk')),
    Controller('virtio-blk with an iothread', '/dev/vda',
               ('-object', 'iothread,id=io0',
                '-device', 'virtio-blk-pci,drive=disk,iothread=io0')),
    Controller('virtio-blk without ioeventfd', '/dev/vda',
               ('-device', 'virtio-blk-pci,drive=disk,ioeventfd=off')),
    Controller('virtio-scsi', '/dev/sda',
               ('-device', 'virtio-scsi-pci',
                '-device', 'scsi-hd,drive=disk')),
    Controller('ide', '/dev/sda', ('-device', 'ide-hd,drive=disk'),
               machine='pc'),
    Controller('nvme', '/dev/nvme0n1',
               ('-device', 'nvme,drive=disk,serial=1'), migratable=False),
)}


@dataclass(frozen=True)
class Disk:
    """An image and its controller."""
    image: Path
    fmt: str
    controller: Controller
    direct: bool

    def args(self) -> list[str]:
        """The part of QEMU's command line."""
        direct = 'on' if self.direct else 'off'
        return ['-blockdev',
                f'driver={self.fmt},node-name=disk,cache.direct={direct},'
                f'file.driver=file,file.filename={self.image},'
                f'file.cache.direct={direct}', *self.controller.args]


class Channel:
    """
    The guest's first serial port: commands go in, lines come out. They are
    read by a thread, so that a guest never waits for the host, and kept with
    the time (seconds since the epoch, the clock of QMP events) of arrival.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._grown = threading.Condition()
        self._ended = False
        self.lines: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        # what comes after the last newline was not said
        rest = b''
        while True:
            try:
                data = self._sock.recv(65536)
            except OSError:
                data = b''
            if not data:
                with self._grown:
                    self._ended = True
                    self._grown.notify_all()
                return
            now = time.time()
            *lines, rest = (rest + data).split(b'\n')
            with self._grown:
                self.lines += ((now, line.decode(errors='replace').strip())
                               for line in lines)
                self._grown.notify_all()

    def send(self, command: str) -> None:
        """Have the guest run a command."""
        self._sock.sendall(command.encode() + b'\n')

    def check(self, start: int = 0) -> None:
        """Fail if the guest has reported an error since line @start."""
        for _, line in list(self.lines[start:]):
            expect(not line.startswith('E '), f'the guest reports: {line}')

    def drain(self) -> None:
        """Read what QEMU, which has ended, has left behind."""
        self._reader.join(PATIENCE)
        self._sock.close()

    def wait(self, wanted: Callable[[str], bool], what: str,
             start: int = 0, patience: float = PATIENCE) -> tuple[float, str]:
        """The first line from index @start on that is wanted."""
        deadline = time.monotonic() + patience
        with self._grown:
            while True:
                self.check(start)
                for stamp, line in self.lines[start:]:
                    if wanted(line):
                        return stamp, line
                start = len(self.lines)
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    why = 'QEMU has ended' if self._ended else f'{patience} s'
                    raise Failure(f'{what}: waited for in vain ({why})')
                self._grown.wait(left)


class Guest(Machine):
    """A QEMU process that runs, or is ready to run, the Linux guest."""

    def __init__(self, work: Path, disk: Disk | None = None, *,
                 binary: Path = QEMU_BIN / SYSTEM, accel: str = 'tcg',
                 instance: int = 0, memory: str = '256M',
                 kernel_log: Path | None = None,
                 args: Sequence[str] = ()) -> None:
        super().__init__(work, f'vm{instance}', binary)
        self.instance = instance
        self.disk = disk
        self.channel: Channel
        self.set_machine(disk.controller.machine if disk else 'q35')
        self.set_console()
        # a KVM that runs in a guest itself may not have what is left out
        cpu = ('max,-arch-capabilities' if accel.startswith('kvm')
               else 'max')
        self.add_args('-accel', accel, '-cpu', cpu, '-m', memory,
                      '-nodefaults', '-no-user-config', '-no-reboot',
                      '-serial', f'file:{kernel_log}' if kernel_log else 'null',
                      '-kernel', str(GUEST / 'vmlinuz'),
                      '-initrd', str(GUEST / 'initrd'),
                      '-append', 'console=ttyS1 quiet panic=-1',
                      *(disk.args() if disk else ()), *args)

    def launch(self) -> None:
        super().launch()
        self.channel = Channel(
            socket.socket(fileno=os.dup(self.console_socket.fileno())))

    def boot(self, patience: float = PATIENCE) -> None:
        """Launch, and wait until the guest takes commands."""
        self.launch()
        self.channel.wait(lambda line: line == 'READY', 'READY',
                          patience=patience)

    def record(self, streams: int) -> None:
        """Have the guest append records to its disk."""
        assert self.disk
        self.channel.send(f'recorder {self.instance} {streams} '
                          f'{self.disk.controller.device}')

    def acknowledged(self) -> list[Record]:
        """The records that the guest has said are on stable storage."""
        # the reading thread only ever appends
        words = [line.split() for _, line in list(self.channel.lines)]
        return [Record(self.instance, int(word[1]), int(word[2]))
                for word in words if len(word) == 3 and word[0] == 'A']

    def wait_for_progress(self, streams: int) -> float:
        """Wait for a new record on each stream; when the first one came."""
        start = len(self.channel.lines)
        first = [self.channel.wait(
            lambda line, s=stream: line.startswith(f'A {s} '),
            f'a record on stream {stream}', start)[0]
            for stream in range(streams)]
        return min(first)

    def save(self, path: Path) -> None:
        """Save the guest to a file, as for a migration."""
        self.cmd('migrate', uri=f'file:{path}')
        self._wait_for_migration()

    def load(self, path: Path) -> None:
        """
        Launch with a saved guest, up to the point where only `cont` is
        missing. Until then no image is active and no lock is taken.
        """
        self.add_args('-S', '-incoming', 'defer')
        self.launch()
        self.cmd('migrate-set-capabilities', capabilities=[
            {'capability': 'late-block-activate', 'state': True}])
        self.cmd('migrate-incoming', uri=f'file:{path}')
        self._wait_for_migration()

    def _wait_for_migration(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            status = self.cmd('query-migrate').get('status')
            if status == 'completed':
                return
            expect(status != 'failed' and time.monotonic() < deadline,
                   f'migration to or from a file: {status}')
            time.sleep(0.02)

    def writes(self) -> list[tuple[int, int, int]]:
        """What QEMU itself counts: writes, their bytes, and flushes."""
        return [(stats['wr_operations'], stats['wr_bytes'],
                 stats['flush_operations'])
                for stats in (device['stats']
                              for device in self.cmd('query-blockstats'))]
