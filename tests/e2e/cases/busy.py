"""
Promised: the state is reached, and kept, whatever the guest does in the same
instant. What it has asked for waits for vm-unquiesce, and is then done.

Measured, with a guest that runs from the first instruction on and whose vCPUs
count in memory that the test shares:

A guest resets, powers off, suspends, panics, or lets the watchdog bite just
before or after vm-quiesce, many times, with writes to a disk before. The time
between them is tuned for the instant in which the vCPUs are stopped. Each time VM_QUIESCED comes, and from then on, for some time, no vCPU
counts, the image does not change by a byte, and the run state is `quiesced`.
After vm-unquiesce and cont, the guest has got what it had asked for, once.

Eight vCPUs in tight loops with interrupts off stand still from the reply to
vm-quiesce on.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import collections
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import image, ports
from harness.guest import Disk
from harness.machine import PATIENCE
from harness.refusals import abuse
from harness.rig import Rig
from harness.tap import expect, note
from harness.tiny import IDE, Script, Tiny

# long enough for a main loop and vCPUs that wrongly go on
_HOLD_S = 0.02
_DISK_SIZE = 1 << 20
_SECTORS = _DISK_SIZE // 512


@dataclass(frozen=True)
class Request:
    """What a guest asks for."""
    name: str
    make: Callable[[Script], None]
    # that is sent once for it
    event: str
    # what the VM is in afterwards
    state: str
    # what brings it back from there, and whether that restarts the guest
    revive: tuple[str, ...]
    restarts: bool


_REQUESTS = (
    Request('reset', ports.reset, 'RESET', 'running', (), True),
    Request('reset by the keyboard controller', ports.keyboard_reset, 'RESET',
            'running', (), True),
    Request('power off', ports.power_off, 'SHUTDOWN', 'shutdown',
            ('system_reset', 'cont'), True),
    Request('suspend', ports.suspend, 'SUSPEND', 'suspended',
            ('system_wakeup',), True),
    Request('panic', ports.panic, 'GUEST_PANICKED', 'guest-panicked',
            ('cont',), False),
    Request('watchdog', ports.watchdog, 'WATCHDOG', 'watchdog', ('cont',),
            False),
)


def _contained(vm: Tiny, path: Path) -> None:
    """It stays so for a while, and the image as it is."""
    before = image.digest(path)
    counters = vm.counters()
    time.sleep(_HOLD_S)
    expect(vm.counters() == counters, 'a vCPU runs after VM_QUIESCED')
    expect(image.digest(path) == before, 'the image has changed')
    expect(not image.is_locked(path), 'the image is locked')
    expect(vm.status() == 'quiesced', f'it has become {vm.status()}')


def _events(vm: Tiny, name: str) -> int:
    """How many events of that name have come; they are taken."""
    events = vm.get_qmp_events()
    return sum(event['event'] == name
               and event.get('data', {}).get('reason') != 'host-qmp-system-reset'
               for event in events)


class _Trials:
    """Trials of one kind of request, on one VM."""

    def __init__(self, vm: Tiny, path: Path, request: Request,
                 rng: random.Random) -> None:
        self._vm = vm
        self._path = path
        self._request = request
        self._rng = rng
        self._lead = 0.0002
        self.when: collections.Counter[str] = collections.Counter()

    def _ask(self) -> None:
        """The script, with random work before the request."""
        script = Script()
        for _ in range(self._rng.choice((0, 1, 4))):
            ports.write_sector(script, self._rng.randrange(_SECTORS))
        self._request.make(script)
        self._vm.run(script)

    def _complete(self, seen: int, starts: int) -> None:
        """Have the VM go on until what was asked for has been done, once."""
        vm, request = self._vm, self._request
        deadline = time.monotonic() + PATIENCE
        while not seen or vm.status() != 'running' or vm.starts() != starts:
            expect(time.monotonic() < deadline,
                   f'after vm-unquiesce: {vm.status()}, {request.event} '
                   f'{seen} times, {vm.starts()} starts instead of {starts}')
            state = vm.status()
            if state == request.state:
                self._revive()
            elif state in ('paused', 'prelaunch'):
                # the latter after a reset that has waited
                self._continue()
            time.sleep(0.001)
            seen += _events(vm, request.event)
        vm.wait_until_moving()
        seen += _events(vm, request.event)
        expect(seen == 1, f'{request.event} came {seen} times')
        expect(vm.starts() == starts, f'{vm.starts()} starts, not {starts}')

    def _revive(self) -> None:
        for command in self._request.revive:
            self._vm.cmd(command)

    def _continue(self) -> None:
        """cont; it was in the state before, if that is refused."""
        answer = self._vm.qmp('cont')
        if 'error' in answer:
            expect(self._request.state == 'shutdown', answer)
            self._revive()

    def one(self) -> None:
        """Request and quiesce at about the same time, and back."""
        vm, request = self._vm, self._request
        starts = vm.starts() + request.restarts
        _events(vm, request.event)
        self._ask()
        time.sleep(self._lead * self._rng.uniform(0.5, 1.5))
        token = vm.cmd('vm-quiesce', reason='now')['token']
        quiesced = vm.await_quiesced(token)
        before = _events(vm, request.event)
        _contained(vm, self._path)
        abuse(vm)
        expect(not _events(vm, request.event),
               f'{request.event} while quiesced')
        vm.unquiesce(quiesced)
        # what has waited is done in the next iteration of the main loop
        vm.status()
        after = _events(vm, request.event)
        self.when['before' if before else 'held' if after else 'later'] += 1
        # next time closer to the instant in which the vCPUs are stopped
        self._lead *= 1 / 1.2 if before else 1.2
        self._complete(before + after, starts)


def _devices(cpus: int, disk: Disk) -> dict:
    return {'cpus': cpus, 'disk': disk, 'args': [
        '-device', 'pvpanic', '-device', 'ib700', '-action',
        'panic=pause,watchdog=pause,shutdown=pause']}


def _requests(rig: Rig, rng: random.Random, rounds: int) -> None:
    disk = rig.disk(IDE, 'raw', size=_DISK_SIZE)
    try:
        for request in _REQUESTS:
            with Tiny(rig.work, **_devices(1, disk)) as vm:
                vm.boot()
                trials = _Trials(vm, disk.image, request, rng)
                for _ in range(rounds):
                    trials.one()
            note(f'{request.name}: ' + ', '.join(
                f'{count} {when}' for when, count in trials.when.items()))
    finally:
        disk.image.unlink()


def _nmi(rig: Rig, rng: random.Random, rounds: int) -> None:
    """An NMI from outside and one vm-quiesce, by two monitors at once."""


def _tight_loops(rig: Rig, cpus: int) -> None:
    """vCPUs that never look up."""
    longest = 0
    with Tiny(rig.work, cpus=cpus) as vm:
        vm.boot()
        for _ in range(5):
            vm.wait_until_moving()
            token = vm.cmd('vm-quiesce', reason='now')['token']
            counters = vm.counters()
            event = vm.await_quiesced(token)
            longest = max(longest, event['data']['duration-ms'])
            expect(not vm.moving(0.2) and vm.counters() == counters,
                   'a vCPU has gone on after the reply')
            vm.unquiesce(event)
            expect(not vm.moving(_HOLD_S), 'vm-unquiesce alone has started '
                   'a vCPU')
            vm.cmd('cont')
        vm.wait_until_moving()
        # not even a counter: the first vCPU jumps to itself
        vm.run(Script().add('hang'))
        vm.wait_until_moving(range(1, cpus))
        event = vm.quiesce()
        expect(not vm.moving(_HOLD_S), 'a vCPU runs')
    note(f'{cpus} vCPUs: quiesced after at most {longest} ms')
