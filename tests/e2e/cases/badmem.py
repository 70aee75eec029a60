"""
Promised: memory of the guest that cannot be read is reported as a hardware
error, and a rule says what comes of it. With `quiesce` the guest is not told,
the VM is quiesced before HARDWARE_ERROR comes, and the evidence can be saved.
Without a rule the guest gets a machine check, as always. When QEMU itself has
read bad memory, it says so before it ends. What keeps KVM from running a vCPU
is reported, too.

Measured: a page of a guest under KVM is made unreadable in the kernel
(UFFDIO_POISON), the guest reads it, and KVM sends the signal. Only what no
kernel does without bad hardware is made up: that a page was found to be bad
which nobody has read, and exits of KVM that are errors; see guest/badmem.c.
With a real page of that kind, and Linux as the guest: cases/hwpoison.py.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from harness import elfdump
from harness.errors import (expect_memory, expect_no_migration,
                            expect_quiesced)
from harness.process import PATIENCE, until
from harness.reader import PAGE, PAGE_TABLE, SIZE, Reader
from harness.tap import Failure, Skip, expect

_BAD = 0x400000

# IA32_MCi_STATUS: valid, uncorrected; action required; poison (AMD)
_MCI_VALID_UC = 1 << 63 | 1 << 61
_MCI_AR = 1 << 55
_MCI_POISON = 1 << 43

_KVM_EXITS = {
    0: {'reason': 'internal-error', 'code': 3, 'data': [0x1234, 0x5678]},
    1: {'reason': 'emulation-failure', 'code': 1, 'data': []},
    2: {'reason': 'fail-entry', 'code': 0x80000021, 'data': [1]},
    3: {'reason': 'memory-fault', 'code': 14, 'data': [1 << 63, PAGE],
        'guest-address': 0x200000},
    4: {'reason': 'run-failed', 'code': 16},
}


def _rule(action: str, source: str = 'guest-memory') -> list[str]:
    return ['-object', f'hw-error-rule,id=rule,source={source},'
            f'action={action}']


def _expect_end(vm: Reader, expected: int) -> list[dict]:
    """QEMU ends, with this status; the HARDWARE_ERRORs that came before."""
    try:
        while True:
            vm.monitor.event('nothing')
    except (OSError, EOFError):
        pass
    vm.process.wait(PATIENCE)
    expect(vm.process.status() == expected,
           f'QEMU: status {vm.process.status()}')
    return [event['data'] for _, event in vm.monitor.events
            if event['event'] == 'HARDWARE_ERROR']


def _expect_lost(vm: Reader, host: int, vcpu: int | None) -> None:
    """
    QEMU ends because it has read _BAD, in its thread for @vcpu if it is not
    None; it says so before.
    """
    error, = _expect_end(vm, -signal.SIGBUS)
    info = error['info']
    expect(error['outcome'] == 'exiting', error)
    expect(info['source'] == 'qemu-memory' and info.get('vcpu') == vcpu
           and info['guest-address'] == _BAD
           and info['host-address'] == host, info)


class Cases:
    """They share the answer to whether KVM can do it."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._why_not: str | None = None

    def _require(self) -> None:
        if self._why_not is None:
            self._why_not = self._find_why_not()
        if self._why_not:
            raise Skip(self._why_not)

    def _require_poison(self) -> None:
        """What the cases without KVM need."""
        with Reader(self._work, 'tcg', ['-S']) as vm:
            try:
                vm.poison(_BAD)
            except Failure as err:
                raise Skip(f'no UFFDIO_POISON: {err}') from None

    def _find_why_not(self) -> str:
        if not os.access('/dev/kvm', os.R_OK | os.W_OK):
            return '/dev/kvm cannot be used'
        try:
            with Reader(self._work, 'kvm', _rule('stop')) as vm:
                vm.wait_until_running()
                vm.poison(_BAD)
                vm.read(_BAD)
                vm.error()
        except (Failure, OSError, EOFError) as err:
            return (f'no SIGBUS from KVM for a page made bad by '
                    f'UFFDIO_POISON: {err}').splitlines()[0]
        return ''

    def _vm(self, *args: str) -> Reader:
        self._require()
        return Reader(self._work, 'kvm', args)

    def _read_bad(self, vm: Reader) -> int:
        """Have the guest read a bad page; its address in QEMU."""
        vm.wait_until_running()
        host = vm.poison(_BAD)
        vm.read(_BAD)
        return host

    def no_rule(self) -> None:
        """The guest is told, as always."""
        with self._vm() as vm:
            host = self._read_bad(vm)
            error = vm.error()
            expect_memory(error, _BAD, host, True)
            expect(error['action'] == 'report' and not error['contained'],
                   error)
            until(lambda: vm.checks == 1, 'a machine check in the guest')
            status, address = vm.check
            expect(address == _BAD, f'{address:#x}')
            expect(status & _MCI_VALID_UC == _MCI_VALID_UC and
                   status & _MCI_AR, f'{status:#x}')
            vm.wait_until_running()
            expect(vm.status() == 'running', vm.status())
            failure = vm.monitor.event('MEMORY_FAILURE', start=0)[1]['data']
            expect(failure['flags']['action-required'], failure)
            expect_no_migration(vm)

    def amd(self) -> None:
        """An AMD guest is told in another way."""
        with self._vm('-cpu', 'EPYC,vendor=AuthenticAMD') as vm:
            host = self._read_bad(vm)
            expect_memory(vm.error(), _BAD, host, True)
            until(lambda: vm.checks == 1, 'a machine check in the guest')
            status = vm.check[0]
            expect(status & _MCI_POISON and not status & _MCI_AR,
                   f'{status:#x}')
            failure = vm.monitor.event('MEMORY_FAILURE', start=0)[1]['data']
            expect(failure['flags']['action-required'], failure)

    def stop(self) -> None:
        """Stopped; the guest goes on, and is told, when there is no rule."""
        with self._vm(*_rule('stop')) as vm:
            host = self._read_bad(vm)
            error = vm.error()
            expect_memory(error, _BAD, host, True)
            expect(error['outcome'] == 'stopping' and not error['contained'],
                   error)
            vm.monitor.event('STOP', start=0)
            expect(vm.status() == 'paused', vm.status())
            expect(not vm.runs() and not vm.checks, 'the guest runs')
            expect_no_migration(vm)
            vm.monitor.execute('object-del', id='rule')
            vm.monitor.execute('cont')
            until(lambda: vm.checks == 1, 'a machine check in the guest')

    def quiesce(self) -> None:
        """Quiesced, and not told; a dump can be made; it may come back."""
        with self._vm(*_rule('quiesce')) as vm:
            vm.write(_BAD - 8, b'kept....')
            host = self._read_bad(vm)
            error = vm.error()
            expect_memory(error, _BAD, host, True)
            token = expect_quiesced(vm, error)
            expect(not vm.runs() and not vm.checks, 'the guest runs')
            self._expect_dump(vm)
            self._expect_saved(vm)
            expect(vm.status() == 'quiesced', vm.status())
            expect(vm.names().count('HARDWARE_ERROR') == 1,
                   'reported again')

            events = len(vm.monitor.events)
            vm.monitor.execute('vm-unquiesce', token=token)
            vm.monitor.execute('cont')
            again = vm.error(events)
            expect_memory(again, _BAD, host, True)
            expect(expect_quiesced(vm, again, events) != token, again)
            expect(not vm.checks and not vm.reads, 'the guest was told')

    def _expect_dump(self, vm: Reader) -> None:
        path = self._work / 'badmem.dump'
        try:
            vm.monitor.execute('dump-guest-memory', paging=False,
                               protocol=f'file:{path}')
            elf = path.read_bytes()
        finally:
            path.unlink(missing_ok=True)
        expect(elfdump.bad_pages(elf) == [(_BAD, PAGE)],
               'the note lists something else')
        expect(elfdump.memory(elf, _BAD - 8, PAGE + 8)
               == b'kept....' + bytes(PAGE), 'the dump has something else')

    def _expect_saved(self, vm: Reader) -> None:
        path = self._work / 'badmem.memory'
        try:
            vm.monitor.execute('pmemsave', val=0, size=SIZE,
                               filename=str(path))
            data = path.read_bytes()
        finally:
            path.unlink(missing_ok=True)
        expect(len(data) == SIZE and data[_BAD - 8:_BAD + PAGE]
               == b'kept....' + bytes(PAGE), 'pmemsave has something else')

    def optional(self) -> None:
        """A bad page that nobody has read: the guest is told."""
        with self._vm() as vm:
            vm.wait_until_running()
            host = vm.host_address(_BAD)
            vm.ask(f'optional {host:x}')
            error = vm.error()
            expect_memory(error, _BAD, host, False)
            until(lambda: vm.checks == 1, 'a machine check in the guest')
            expect(not vm.check[0] & _MCI_AR, f'{vm.check[0]:#x}')

    def optional_quiesce(self) -> None:
        """The same, and it is not told."""
        with self._vm(*_rule('quiesce')) as vm:
            vm.wait_until_running()
            host = vm.host_address(_BAD)
            vm.ask(f'optional {host:x}')
            error = vm.error()
            expect_memory(error, _BAD, host, False)
            expect_quiesced(vm, error)
            expect(not vm.checks, 'the guest was told')

    def cannot_tell(self) -> None:
        """A guest without machine checks: QEMU ends, but by a rule not."""
        with self._vm('-cpu', 'qemu64,-mce') as vm:
            host = self._read_bad(vm)
            errors = _expect_end(vm, 1)
            expect(errors[-1]['outcome'] == 'exiting', errors)
            expect_memory(errors[-1], _BAD, host, True)
        with self._vm('-cpu', 'qemu64,-mce', *_rule('quiesce')) as vm:
            self._read_bad(vm)
            expect_quiesced(vm, vm.error())

    def own(self, accel: str) -> None:
        """A thread of QEMU has read bad memory that is not the guest's."""
        if accel == 'kvm':
            self._require()
        self._require_poison()
        with Reader(self._work, accel, _rule('quiesce', 'qemu-memory')) as vm:
            vm.wait_until_running()
            vm.ask_last('own')
            error, = _expect_end(vm, -signal.SIGBUS)
            info = error['info']
            expect(error['outcome'] == 'exiting' and not error['contained'],
                   error)
            expect(info['source'] == 'qemu-memory'
                   and info['severity'] == 'fatal'
                   and info['action-required'] and 'vcpu' not in info
                   and 'guest-address' not in info, info)

    def own_optional(self) -> None:
        """The host has found it, and QEMU has not read it: it lives."""
        with Reader(self._work, 'tcg', _rule('quiesce', 'qemu-memory')) as vm:
            vm.wait_until_running()
            vm.ask('optional 1000')
            error = vm.error()
            info = error['info']
            expect(info['source'] == 'qemu-memory' and info['host-address']
                   == 0x1000 and not info['action-required'], info)
            expect_quiesced(vm, error)

    def tcg(self) -> None:
        """TCG's vCPUs read bad memory as QEMU does."""
        self._require_poison()
        with Reader(self._work, 'tcg') as vm:
            vm.wait_until_running()
            host = vm.poison(_BAD)
            vm.read(_BAD)
            _expect_lost(vm, host, 0)

    def main_thread(self) -> None:
        """QEMU's main thread reads bad memory of the guest."""
        self._require_poison()
        with Reader(self._work, 'tcg') as vm:
            vm.wait_until_running()
            host = vm.poison(_BAD)
            vm.monitor.send('human-monitor-command',
                            **{'command-line': f'xp {_BAD:#x}'})
            _expect_lost(vm, host, None)

    def page_tables(self) -> None:
        """What needs the guest's page tables fails, and nothing else does."""
        self._require_poison()
        with Reader(self._work, 'tcg') as vm:
            vm.wait_until_running()
            vm.monitor.execute('stop')
            host = vm.poison(PAGE_TABLE)
            path = self._work / 'badmem.dump'
            for command, arguments in (
                    ('dump-guest-memory', {'paging': True,
                                           'protocol': f'file:{path}'}),
                    ('memsave', {'val': _BAD, 'size': PAGE,
                                 'filename': str(path)})):
                try:
                    vm.monitor.execute(command, **arguments)
                except RuntimeError:
                    continue
                raise Failure(f'{command} does not need page tables')
            info = vm.error()['info']
            expect(info['host-address'] == host
                   and info['guest-address'] == PAGE_TABLE, info)
            vm.monitor.execute('dump-guest-memory', paging=False,
                               protocol=f'file:{path}')
            expect(elfdump.bad_pages(path.read_bytes())
                   == [(PAGE_TABLE, PAGE)], 'another note')
            path.unlink()

    def user_signal(self) -> None:
        """Somebody sends the signal: that is the end, and no bad memory."""
        with Reader(self._work, 'tcg') as vm:
            vm.wait_until_running()
            vm.process.signal(signal.SIGBUS)
            expect(not _expect_end(vm, -signal.SIGBUS), 'it is reported')

    def kvm_exits(self, action: str) -> None:
        """Everything that keeps KVM from running a vCPU."""
        for number, expected in _KVM_EXITS.items():
            with self._vm('-S', *(_rule(action, 'kvm') if action else [])) \
                    as vm:
                # an emulation failure counts only outside of user space
                if number != 1:
                    vm.monitor.execute('cont')
                    vm.wait_until_running()
                vm.fail(number)
                if number == 1:
                    vm.monitor.execute('cont')
                error = vm.error()
                info = error['info']
                told = {name: info[name] for name in expected}
                expect(told == expected, f'{told}, not {expected}')
                expect(info['source'] == 'kvm' and info['severity'] == 'fatal'
                       and info['vcpu'] == 0
                       and info['qom-path'].startswith('/machine/'), info)
                if action == 'quiesce':
                    expect_quiesced(vm, error)
                else:
                    vm.monitor.event('STOP', start=0)
                    expect(vm.status() == 'internal-error', vm.status())
                    expect(error['outcome'] == ('stopping' if action
                                                else 'none'), error)

    def user_emulation(self) -> None:
        """In user space an emulation failure is the guest's affair."""
        with self._vm() as vm:
            vm.wait_until_running()
            vm.fail(1)
            vm.wait_until_running()
            expect('HARDWARE_ERROR' not in vm.names(), 'it is reported')


def cases(work: Path) -> list[tuple[str, Callable[[], None]]]:
    """All of them."""
    case = Cases(work)
    return [
        ('a guest that reads bad memory is told, without a rule (KVM)',
         case.no_rule),
        ('a guest that reads bad memory is told, on AMD (KVM)', case.amd),
        ('a guest that reads bad memory is stopped (KVM)', case.stop),
        ('a guest that reads bad memory is quiesced, and not told (KVM)',
         case.quiesce),
        ('a guest is told of bad memory that nobody has read (KVM)',
         case.optional),
        ('a guest is quiesced for bad memory that nobody has read (KVM)',
         case.optional_quiesce),
        ('a guest that cannot be told of bad memory (KVM)',
         case.cannot_tell),
        ('QEMU reads bad memory, and says so before it ends (KVM)',
         lambda: case.own('kvm')),
        ('QEMU reads bad memory, and says so before it ends (TCG)',
         lambda: case.own('tcg')),
        ('bad memory of QEMU that it has not read: it quiesces the VM',
         case.own_optional),
        ('a guest under TCG reads bad memory', case.tcg),
        ('QEMU reads bad memory in its main thread', case.main_thread),
        ('a guest with a bad page table is dumped', case.page_tables),
        ('a SIGBUS that is sent by a user is not bad memory',
         case.user_signal),
        ('KVM cannot run a vCPU: reported, and stopped (KVM)',
         lambda: case.kvm_exits('')),
        ('KVM cannot run a vCPU: stopped by a rule (KVM)',
         lambda: case.kvm_exits('stop')),
        ('KVM cannot run a vCPU: quiesced (KVM)',
         lambda: case.kvm_exits('quiesce')),
        ('KVM cannot emulate in user space: not reported (KVM)',
         case.user_emulation),
    ]
