"""
Promised: a request to the storage that hangs is reported while it hangs, as
soon as it is older than the limit of a rule; with action quiesce, the VM is
contained before the guest does anything about it.

Measured, with a Linux guest that writes to a disk that another process serves:

The process is stopped, and HARDWARE_ERROR comes while the guest's kernel has
not said a word. What it says of the request is so, by the guest's disk. The
process goes on before the guest has noticed, and another event comes, with the
whole time; the guest goes on, too.

Two VMs, of which only one has a rule, and their storage hangs at the same
time. The kernel of the other one panics, because of a task that is blocked, or
its driver resets the disk, because of a command that has timed out, or hangs
together with QEMU when it tries to. The kernel of the one with the rule says
nothing for as long, and longer. When the storage goes on, it is quiesced, and
HARDWARE_ERROR says so. Then it is continued; it has not noticed anything, and
all that it was told is written is on its disk.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import image
from harness.guest import CONTROLLERS, Controller, Guest
from harness.machine import PATIENCE
from harness.process import until
from harness.records import check
from harness.rig import STREAMS
from harness.served import PAGE, Storage, write_pages
from harness.tap import Failure, expect, note

_SIZE = 512 << 20
_LIMIT_MS = 500
# how much longer than the other guest it must bear
_LONGER_S = 2.0
# a guest that has not answered for so long does not answer any more
_DEAD_S = 4.0


@dataclass(frozen=True)
class Impatience:
    """What a guest does when its disk does not answer."""
    name: str
    controller: Controller
    settings: dict[str, int]
    # in the kernel's log
    symptom: str


_IMPATIENT = (
    Impatience('a blocked task is a reason to panic',
               CONTROLLERS['virtio-blk'],
               {'/proc/sys/kernel/hung_task_timeout_secs': 2,
                '/proc/sys/kernel/hung_task_check_interval_secs': 1,
                '/proc/sys/kernel/hung_task_panic': 1},
               'Kernel panic'),
    Impatience('commands time out', CONTROLLERS['ide'],
               {'/sys/block/sda/device/timeout': 3}, 'exception Emask'),
)


class _Vm(contextlib.ExitStack):
    """A guest that writes, its storage, and what its kernel has said."""

    def __init__(self, work: Path, instance: int, controller: Controller,
                 action: str | None) -> None:
        super().__init__()
        self.log = work / f'kernel{instance}.log'
        with contextlib.ExitStack() as failed:
            failed.enter_context(self)
            self.storage = self.enter_context(
                Storage(work, f'storage{instance}', _SIZE + PAGE))
            rule = (f'hw-error-rule,id=stall,source=block-stall,'
                    f'stall-limit={_LIMIT_MS},severity=recoverable,'
                    f'action={action}')
            self.guest = self.enter_context(Guest(
                work, self.storage.disk(controller), instance=instance,
                kernel_log=self.log,
                args=['-object', rule] if action else []))
            # it could not end while the storage hangs
            self.callback(self.storage.go_on)
            failed.pop_all()

    def start(self, settings: dict[str, int]) -> None:
        """Boot, and write."""
        self.guest.boot()
        self.guest.record(STREAMS)
        self.guest.wait_for_progress(STREAMS)
        self.guest.channel.send(write_pages(self.guest, _SIZE))
        self.guest.channel.send(' && '.join(
            [*(f'echo {value} >{file}' for file, value in settings.items()),
             'echo SET']))
        self.guest.channel.wait(lambda line: line == 'SET', 'settings')
        self.guest.wait_for_progress(STREAMS)

    def end(self) -> None:
        """Whatever its QEMU is doing."""
        self.guest.shutdown(hard=True)
        self.storage.go_on()

    def says(self, text: str = '') -> bool:
        """Is the text in the kernel's log?"""
        said = self.log.read_text(errors='replace')
        return text in said if text else bool(said.strip())

    def noticed(self, symptom: str) -> str:
        """
        How the guest shows that it has noticed the stall; empty if it has not.
        """
        if self.says(symptom):
            return f'"{symptom}"'
        # QEMU waits for IDE's DMA to end when the driver wants to cancel it,
        # and nothing else goes on meanwhile
        lines = len(self.guest.channel.lines)
        self.guest.channel.send('echo ALIVE')
        try:
            self.guest.channel.wait(lambda line: line == 'ALIVE', 'echo',
                                    lines, _DEAD_S)
        except Failure:
            return 'dead'
        return ''

    def error(self, **info: object) -> dict:
        """The next HARDWARE_ERROR of such a stall; its data."""
        event = self.guest.event_wait(
            'HARDWARE_ERROR', PATIENCE,
            {'data': {'info': {'source': 'block-stall', **info}}})
        assert event
        return event['data']


def _check_request(data: dict) -> None:
    info = data['info']
    expect(info['node-name'] == 'disk'
           and info['qom-path'] == info['component']
           and info['qom-path'].startswith('/machine/peripheral-anon/'), info)
    expect(info['operation'] in ('write', 'flush'), info)
    if info['operation'] == 'write':
        end = info['offset'] + info['length']
        expect(0 <= info['offset'] < end <= _SIZE + PAGE, info)
    expect(info['age-ms'] >= _LIMIT_MS, info)


def reported(work: Path) -> None:
    """While it hangs, and when it ends."""
    impatient = _IMPATIENT[0]
    with _Vm(work, 1, impatient.controller, 'report') as vm:
        # there may be errors and warnings of the boot
        vm.start({})
        said = vm.log.stat().st_size
        begin = time.monotonic()
        vm.storage.hang()
        data = vm.error(ended=False)
        took = time.monotonic() - begin
        _check_request(data)
        expect(vm.guest.status() == 'running', 'the VM was stopped')
        vm.storage.go_on()
        ended = vm.error(ended=True)
        expect(ended['info']['severity'] == 'corrected'
               and ended['info']['age-ms'] >= _LIMIT_MS, ended)
        vm.guest.wait_for_progress(STREAMS)
        expect(vm.log.stat().st_size == said, vm.log.read_text()[said:])
        note(f'limit {_LIMIT_MS} ms: the event came after {took * 1e3:.0f} ms')


def _check_contained(vm: _Vm) -> None:
    quiesced = vm.guest.event_wait('VM_QUIESCED', PATIENCE)
    assert quiesced
    data = vm.error(ended=False)
    _check_request(data)
    expect(data['quiesce']['token'] == quiesced['data']['token'], data)
    # a host that is slow may reach the deadline before the other guest panics
    expect(data['contained'] == (data['outcome'] == 'quiesced'), data)
    expect(data['outcome'] in ('quiesced', 'quiesce-failed'), data)
    expect(vm.guest.status() == 'quiesced', vm.guest.status())
    vm.guest.unquiesce(quiesced)


def contained(work: Path, impatient: Impatience) -> None:
    """One VM has a rule, the other one has not."""
    with _Vm(work, 1, impatient.controller, None) as without, \
         _Vm(work, 2, impatient.controller, 'quiesce') as vm:
        for each in without, vm:
            each.start(impatient.settings)
        expect(not without.says(impatient.symptom)
               and not vm.says(impatient.symptom), 'one has noticed already')
        begin = time.monotonic()
        for each in vm, without:
            each.storage.hang()
        until(lambda: bool(without.noticed(impatient.symptom)),
              f'"{impatient.symptom}" without a rule', PATIENCE)
        took = time.monotonic() - begin
        noticed = without.noticed(impatient.symptom)
        time.sleep(_LONGER_S)
        without.end()
        expect(vm.guest.status() == 'paused', vm.guest.status())
        expect(not vm.says(impatient.symptom), 'the guest has noticed')
        vm.storage.go_on()
        _check_contained(vm)

        vm.guest.cmd('cont')
        vm.guest.wait_for_progress(STREAMS)
        expect(not vm.says(impatient.symptom), 'the guest has noticed')
        event = vm.guest.quiesce()
        expect(event['data']['held-requests'] == 0, event)
        vm.guest.shutdown()
        vm.guest.channel.drain()
        with image.content(vm.storage.image, 'raw') as content:
            report = check(content, STREAMS, [2], vm.guest.acknowledged())
        expect(not report.problems, report)
        note(f'without a rule: {noticed} after {took:.1f} s')
        note(report)


def cases(work: Path) -> list[tuple[str, Callable[[], None]]]:
    """All cases."""
    return [
        ('a stall is reported before the guest notices', lambda:
         reported(work)),
        *((f'a stall is contained before the guest notices ({one.name})',
           lambda one=one: contained(work, one)) for one in _IMPATIENT),
    ]
