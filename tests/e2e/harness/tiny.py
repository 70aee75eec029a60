"""
The tiny guest (guest/tiny.S): ready as soon as QEMU has started, and at the
command of the test, which writes scripts of port accesses into its memory and
sees what its vCPUs do, without QEMU in between.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import mmap
import os
import struct
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from .guest import Controller, Disk
from .machine import PATIENCE, Machine
from .paths import GUEST, QEMU_BIN, SYSTEM
from .tap import expect

# see tiny.S
_STARTS = 0x500
_NMIS = 0x504
SCRIPT = 0x508
_BUSY = 0x50c
COUNTERS = 0x1000
_SCRIPTS = 0x2000
_STEP = struct.Struct('<HHIII')
_OPERATIONS = ('end', 'outb', 'outw', 'outl', 'outs', 'await_port',
               'goto_unless_equal', 'increment', 'goto', 'hang', 'delay',
               'start_others', 'store', 'store_word')

MACHINE = 'pc,memory-backend=ram'
_SIZE = 16 << 20

# The disk that ports.write_sector() writes to
IDE = Controller('ide', '', ('-device', 'ide-hd,drive=disk,bus=ide.0'))

# From here on to 0xf000 there is room for the buffers of devices
BUFFERS = 0x9000


class Script:
    """Steps for the guest; each method of that name adds one."""

    def __init__(self, address: int = _SCRIPTS) -> None:
        self.address = address
        self._steps = b''

    def __bytes__(self) -> bytes:
        return self._steps + bytes(_STEP.size)

    def add(self, operation: str, port: int = 0, value: int = 0,
            second: int = 0) -> 'Script':
        """One step."""
        self._steps += _STEP.pack(_OPERATIONS.index(operation), port, value,
                                  second, 0)
        return self

    def pci(self, slot: int, register: int, value: int, width: str = 'outl',
            function: int = 0) -> 'Script':
        """Write to the configuration space of a PCI device."""
        self.add('outl', 0xcf8, 1 << 31 | slot << 11 | function << 8
                 | register & ~3)
        return self.add(width, 0xcfc + (register & 3), value)

    def end(self) -> int:
        """Where the next step will be: to go there again."""
        return self.address + len(self._steps)


class TinyGuest:
    """The guest itself, whoever starts its QEMU."""

    def __init__(self, cpus: int = 1) -> None:
        self._cpus = cpus
        # it is gone when neither this process nor QEMU has it open
        self._file = open(os.memfd_create('tiny'), 'rb+')
        self._file.truncate(_SIZE)
        self._ram = mmap.mmap(self._file.fileno(), _SIZE)

    def guest_args(self, smp: str = '', shared: bool = True) -> list[str]:
        """
        The part of QEMU's command line, for MACHINE. Postcopy needs memory
        that is not shared: then, do not look at it.
        """
        path = f'/proc/{os.getpid()}/fd/{self._file.fileno()}'
        return ['-accel', 'tcg,thread=multi', '-cpu', 'max',
                '-nodefaults', '-no-user-config',
                '-bios', str(GUEST / 'tiny.bin'),
                '-smp', smp or str(self._cpus), '-m', str(_SIZE >> 20),
                '-object',
                'memory-backend-' + (f'file,mem-path={path},share=on'
                                     if shared else 'ram')
                + f',id=ram,size={_SIZE}']

    def word(self, address: int) -> int:
        """32 bits of the guest's memory."""
        return struct.unpack_from('<I', self._ram, address)[0]

    def write(self, address: int, data: bytes) -> None:
        """Write into the guest's memory."""
        self._ram[address:address + len(data)] = data

    def run(self, script: Script) -> None:
        """Have the first vCPU run a script, from now on."""
        self.write(script.address, bytes(script))
        self.write(SCRIPT, struct.pack('<I', script.address))

    def done(self) -> bool:
        """Has the script ended?"""
        return not self.word(SCRIPT) and not self.word(_BUSY)

    def starts(self) -> int:
        """How often the first vCPU has started from the reset vector."""
        return self.word(_STARTS)

    def nmis(self) -> int:
        """How many NMIs the vCPUs have seen."""
        return self.word(_NMIS)

    def counters(self) -> list[int]:
        """One for each vCPU."""
        return [self.word(COUNTERS + 64 * cpu) for cpu in range(self._cpus)]

    def moving(self, seconds: float) -> list[int]:
        """The vCPUs that execute in the next moments."""
        before = self.counters()
        time.sleep(seconds)
        return [cpu for cpu, (old, new)
                in enumerate(zip(before, self.counters())) if old != new]

    def wait_until_moving(self, cpus: Iterable[int] | None = None) -> None:
        """Wait until these vCPUs (default: all) execute."""
        waiting = set(range(self._cpus) if cpus is None else cpus)
        before = self.counters()
        deadline = time.monotonic() + PATIENCE
        while waiting:
            now = self.counters()
            waiting -= {cpu for cpu in waiting if now[cpu] != before[cpu]}
            expect(time.monotonic() < deadline, f'vCPUs {waiting} do not run')
            time.sleep(0.001)


class Tiny(Machine, TinyGuest):
    """A QEMU process with the tiny guest."""

    def __init__(self, work: Path, name: str = 'tiny', *, cpus: int = 1,
                 smp: str = '', disk: Disk | None = None, shared: bool = True,
                 binary: Path = QEMU_BIN / SYSTEM,
                 args: Sequence[str] = ()) -> None:
        Machine.__init__(self, work, name, binary)
        TinyGuest.__init__(self, cpus)
        self.set_machine(MACHINE)
        self.add_args(*self.guest_args(smp, shared),
                      *(disk.args() if disk else ()), *args)

    def boot(self) -> None:
        """Launch, and wait until all vCPUs execute."""
        self.launch()
        self.wait_until_moving()
