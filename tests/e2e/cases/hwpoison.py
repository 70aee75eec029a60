"""
Promised: what cases/badmem.py has, by real bad memory and to Linux: the host's
kernel marks a page of the guest as bad (MADV_HWPOISON), sends the signals, and
KVM finds it when the guest reads it. Without a rule the guest's Linux ends the
process that has read it, and no other. With `quiesce` the guest is not told,
and what can be read of its memory can be saved.

Measured: in a guest under TCG, which is the host of another one under KVM. Its
CPU is one of AMD: TCG has no other hardware virtualization.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import signal
from collections.abc import Callable
from pathlib import Path

from harness import elfdump
from harness.errors import (PAGE, expect_memory, expect_no_migration,
                            expect_quiesced)
from harness.host import SIZE, prepare
from harness.nested import Nested
from harness.tap import expect

_RULE = ('-object', 'hw-error-rule,id=rule,source=guest-memory,action=quiesce')
# what a process ends with that has read bad memory
_KILLED = f'KILLED {signal.SIGBUS:d}'


def _expect_memory(vm: Nested, error: dict, read: bool) -> None:
    """Is it all there, of the page?"""
    expect_memory(error, vm.page, vm.host_page, read)


def _expect_dump(vm: Nested) -> None:
    """Can it be dumped, with all memory but that of the page?"""
    elf = vm.dump()
    expect(elfdump.bad_pages(elf) == [(vm.page, PAGE)],
           f'{elfdump.bad_pages(elf)}; page {vm.page:#x}')
    expect(elfdump.memory(elf, vm.page, PAGE) == bytes(PAGE),
           'the dump has something else')
    expect(b'Linux version ' in elfdump.memory(elf, 1 << 20, SIZE - (1 << 20)),
           'the dump has no kernel')


class Cases:
    """Each with a host of its own."""

    def __init__(self, work: Path) -> None:
        self._work = work

    def _vm(self, *args: str, late: bool = True) -> Nested:
        prepare()
        return Nested(self._work, args, late)

    def no_rule(self) -> None:
        """The process in the guest that has read it is ended."""
        with self._vm() as vm:
            vm.poison()
            expect('HARDWARE_ERROR' not in vm.names(), 'nobody has read it')
            vm.read()
            error = vm.error()
            _expect_memory(vm, error, True)
            expect(error['action'] == 'report' and error['outcome'] == 'none'
                   and not error['contained'], error)
            failure = vm.monitor.event('MEMORY_FAILURE', start=0)[1]['data']
            expect(failure['recipient'] == 'guest'
                   and failure['action'] == 'inject'
                   and failure['flags']['action-required'], failure)
            told = vm.told()
            expect(told == _KILLED, told)
            expect(vm.status() == 'running', vm.status())

    def quiesce(self) -> None:
        """Quiesced, not told; dumped; and it may come back."""
        with self._vm(*_RULE) as vm:
            vm.poison()
            expect('HARDWARE_ERROR' not in vm.names(), 'nobody has read it')
            vm.read()
            error = vm.error()
            _expect_memory(vm, error, True)
            token = expect_quiesced(vm, error)
            _expect_dump(vm)
            names = vm.names()
            expect(names.count('HARDWARE_ERROR') == 1, 'reported again')

            vm.monitor.execute('vm-unquiesce', token=token)
            vm.monitor.execute('cont')
            again = vm.error(len(names))
            _expect_memory(vm, again, True)
            expect(expect_quiesced(vm, again, len(names)) != token, again)

            # only without the rule the guest comes to know of it
            vm.monitor.execute('vm-unquiesce', token=again['quiesce']['token'])
            vm.monitor.execute('object-del', id='rule')
            expect(vm.silent(), 'the guest was told')
            vm.monitor.execute('cont')
            told = vm.told()
            expect(told == _KILLED, told)

    def found(self) -> None:
        """The host tells of it before the guest reads it."""
        with self._vm(late=False) as vm:
            vm.poison()
            _expect_memory(vm, vm.error(), False)
            failure = vm.monitor.event('MEMORY_FAILURE', start=0)[1]['data']
            expect(failure['recipient'] == 'guest'
                   and not failure['flags']['action-required'], failure)
            expect(vm.status() == 'running' and vm.silent(), vm.status())
            vm.read()
            told = vm.told()
            expect(told == _KILLED, told)

    def found_quiesce(self) -> None:
        """The same, and it is quiesced at once."""
        with self._vm(*_RULE, late=False) as vm:
            vm.poison()
            error = vm.error()
            _expect_memory(vm, error, False)
            expect_quiesced(vm, error)
            _expect_dump(vm)
            expect(vm.status() == 'quiesced' and vm.silent(), vm.status())

    def dump(self) -> None:
        """QEMU is the first to read it, for a dump."""
        with self._vm() as vm:
            vm.monitor.execute('stop')
            vm.poison()
            _expect_dump(vm)
            _expect_memory(vm, vm.error(), False)
            expect('MEMORY_FAILURE' not in vm.names(), 'the guest was told')
            expect(vm.status() == 'paused', vm.status())
            expect_no_migration(vm)

            events = len(vm.monitor.events)
            vm.monitor.execute('cont')
            vm.read()
            _expect_memory(vm, vm.error(events), True)
            told = vm.told()
            expect(told == _KILLED, told)


def cases(work: Path) -> list[tuple[str, Callable[[], None]]]:
    """All of them."""
    case = Cases(work)
    return [
        ('Linux reads bad memory, and ends only the process', case.no_rule),
        ('Linux reads bad memory: quiesced, and not told', case.quiesce),
        ('Linux is told of bad memory that the host has found', case.found),
        ('bad memory that the host has found: quiesced, and not told',
         case.found_quiesce),
        ('QEMU reads bad memory that nobody knows of, for a dump', case.dump),
    ]
