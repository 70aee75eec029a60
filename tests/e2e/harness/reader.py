"""
The guest that reads what it is told to (guest/reader.S), in a QEMU whose
memory can be made bad (guest/badmem.c).

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import itertools
import mmap
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from . import paths
from .errors import PAGE, Monitored
from .monitor import Monitor
from .process import PATIENCE, Process, until
from .tap import Failure, expect

# see reader.S
_TARGET = 0x500
_COUNTER = 0x508
_READS = 0x510
_CHECKS = 0x518
_STATUS = 0x520
_ADDRESS = 0x528

# for the first GiB
PAGE_TABLE = 0x12000
SIZE = 16 << 20
_LIMIT_S = 20

_numbers = itertools.count()


class Reader(contextlib.ExitStack, Monitored):
    """A QEMU that runs the guest."""

    def __init__(self, work: Path, accel: str, args: Sequence[object] = (),
                 binary: Path = paths.QEMU_BIN / paths.SYSTEM) -> None:
        super().__init__()
        # it is gone when neither this process nor QEMU has it open
        file = self.enter_context(open(os.memfd_create('reader'), 'rb+'))
        file.truncate(SIZE)
        self._ram = mmap.mmap(file.fileno(), SIZE)
        self._shim, other = socket.socketpair(socket.AF_UNIX,
                                              socket.SOCK_SEQPACKET)
        self.callback(self._shim.close)
        self._shim.settimeout(PATIENCE)
        self.monitor = Monitor()
        self.callback(self.monitor.close)
        self.process = self.enter_context(Process(
            ['env', f'LD_PRELOAD={paths.GUEST / "badmem.so"}',
             f'BADMEM_FD={other.fileno()}', binary, '-accel', accel,
             '-machine', 'pc,memory-backend=ram', '-m', str(SIZE >> 20),
             '-object', f'memory-backend-file,id=ram,size={SIZE},share=on,'
             f'mem-path=/proc/{os.getpid()}/fd/{file.fileno()}',
             '-bios', paths.GUEST / 'reader.bin', '-display', 'none',
             '-nodefaults', '-no-user-config', *args, *self.monitor.args()],
            work / f'reader{next(_numbers)}.log',
            [self.monitor.qemu_fd(), other.fileno()]))
        other.close()
        with contextlib.ExitStack() as failed:
            failed.enter_context(self)
            try:
                self.monitor.connect(PATIENCE)
            except (OSError, EOFError):
                raise Failure(f'QEMU does not start: '
                              f'{self.process.output()}') from None
            failed.pop_all()

    def word(self, address: int) -> int:
        """64 bits of the guest's memory."""
        return struct.unpack_from('<Q', self._ram, address)[0]

    def write(self, address: int, data: bytes) -> None:
        """Write into the guest's memory."""
        self._ram[address:address + len(data)] = data

    def runs(self) -> bool:
        """Whether the guest is executing."""
        before = self.word(_COUNTER)
        with contextlib.suppress(Failure):
            until(lambda: self.word(_COUNTER) != before, '', 0.2)
        return self.word(_COUNTER) != before

    def wait_until_running(self, patience: float = _LIMIT_S) -> None:
        """Wait until the guest executes."""
        before = self.word(_COUNTER)
        until(lambda: self.word(_COUNTER) != before, 'the guest runs',
              patience)

    def read(self, address: int) -> None:
        """Have the guest read its memory; this does not wait."""
        self.write(_TARGET, struct.pack('<Q', address))

    @property
    def reads(self) -> int:
        """How often it has."""
        return self.word(_READS)

    @property
    def checks(self) -> int:
        """How many machine checks the guest has seen."""
        return self.word(_CHECKS)

    @property
    def check(self) -> tuple[int, int]:
        """Status and address of the last machine check."""
        return self.word(_STATUS), self.word(_ADDRESS)

    def ask(self, command: str) -> None:
        """Have badmem.so do something."""
        self._shim.send(command.encode())
        answer = self._shim.recv(256).decode()
        expect(answer == 'Success', f'{command}: {answer}')

    def ask_last(self, command: str) -> None:
        """Have it do something after which QEMU ends."""
        self._shim.send(command.encode())

    def poison(self, address: int) -> int:
        """Make a page of the guest bad; its address in QEMU."""
        host = self.host_address(address)
        self.ask(f'poison {host:x}')
        return host

    def fail(self, number: int) -> None:
        """Make KVM_RUN return with exit @number of badmem.c, at once."""
        self.ask(f'exit {number}')
        # only when it has left the guest it is called again
        self.monitor.hmp('info registers')
