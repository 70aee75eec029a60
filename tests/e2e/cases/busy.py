"""
Promised: the state is reached, and kept, whatever the guest does in the same
instant. What it has asked for waits for vm-unquiesce, and is then done.

Measured, with a guest that runs from the first instruction on and whose vCPUs
count in memory that the test shares:

A guest resets, powers off, suspends, panics, or lets the watchdog bite just
before or after vm-quiesce, many times, with writes to a disk before. The time
between them is tuned for the instant in which the vCPUs are stopped. Each
time VM_QUIESCED comes, and from then on, for some time, no vCPU counts, the
image does not change by a byte, and the run state is `quiesced`. After
vm-unquiesce and cont, the guest has got what it had asked for, once.

The same with a guest that does nothing but reset, so that a reset is often
under way; and with a vCPU that executes and is unplugged.

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
from harness.machine import PATIENCE
from harness.refusals import abuse
from harness.rig import Rig
from harness.table import Case, Row
from harness.tap import expect, note
from harness.tiny import IDE, SCRIPT, Script, Tiny

_SECTION = 'Guest that is busy'
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
    # what brings it back from there
    revive: tuple[str, ...] = ()
    # starts and NMIs that the guest sees
    effects: int = 1
    watchdog: str = 'pause'

    def row(self, quiesced_ms: float) -> Row:
        """What must come of it."""
        then = ('goes on after `cont`' if self.state == 'running'
                else f'is `{self.state}`')
        return Row(_SECTION, self.name, 'at the same instant',
                   '`VM_QUIESCED`; done before that, or after '
                   f'`vm-unquiesce`: `{self.event}` once, and the VM {then}',
                   times={'quiesced': quiesced_ms})


_REQUESTS = (
    Request('reset', ports.reset, 'RESET', 'running'),
    Request('reset by the keyboard controller', ports.keyboard_reset, 'RESET',
            'running'),
    Request('power off', ports.power_off, 'SHUTDOWN', 'shutdown',
            ('system_reset', 'cont')),
    Request('suspend', ports.suspend, 'SUSPEND', 'suspended',
            ('system_wakeup',)),
    Request('panic', ports.panic, 'GUEST_PANICKED', 'guest-panicked',
            ('cont',), effects=0),
    Request('watchdog', ports.watchdog, 'WATCHDOG', 'watchdog', ('cont',),
            effects=0),
    Request('NMI by the watchdog', ports.watchdog, 'WATCHDOG', 'running',
            watchdog='inject-nmi'),
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
    return sum(event['event'] == name and event.get('data', {}).get(
        'reason') != 'host-qmp-system-reset' for event in events)


def _effects(vm: Tiny) -> int:
    """What the guest has noticed."""
    return vm.starts() + vm.nmis()


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

    def _complete(self, seen: int, effects: int) -> None:
        """Have the VM go on until what was asked for has been done, once."""
        vm, request = self._vm, self._request
        deadline = time.monotonic() + PATIENCE
        while (not seen or vm.status() != 'running'
               or _effects(vm) != effects):
            expect(time.monotonic() < deadline,
                   f'after vm-unquiesce: {vm.status()}, {request.event} '
                   f'{seen} times, {_effects(vm)} effects, not {effects}')
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
        expect(_effects(vm) == effects, 'done twice')

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
        effects = _effects(vm) + request.effects
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
        self._complete(before + after, effects)


def _requests(rig: Rig, rng: random.Random, request: Request,
              rounds: int) -> Row:
    disk = rig.disk(IDE, 'raw', size=_DISK_SIZE)
    try:
        with Tiny(rig.work, disk=disk, args=[
                '-device', 'pvpanic', '-device', 'ib700', '-action',
                'panic=pause,shutdown=pause,watchdog='
                + request.watchdog]) as vm:
            vm.boot()
            trials = _Trials(vm, disk.image, request, rng)
            # WATCHDOG is sent once a second at most
            for _ in range(-(-rounds // 4) if request.event == 'WATCHDOG'
                           else rounds):
                trials.one()
        note('the request came ' + ', '.join(
            f'{count} times {when}' for when, count in trials.when.items()))
        return request.row(vm.quiesced_ms)
    finally:
        disk.image.unlink()


def _reset_loop(rig: Rig, rng: random.Random, rounds: int) -> Row:
    """Often, a reset is under way when vm-quiesce comes."""
    held = 0
    with Tiny(rig.work) as vm:
        vm.boot()
        script = Script()
        script.add('store', value=script.address, second=SCRIPT)
        ports.reset(script)
        vm.run(script.add('hang'))
        for _ in range(rounds):
            starts = vm.starts()
            while vm.starts() < starts + 3:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.002))
            quiesced = vm.quiesce()
            _events(vm, 'RESET')
            starts = vm.starts()
            time.sleep(_HOLD_S / 4)
            expect(not _events(vm, 'RESET') and vm.starts() == starts
                   and vm.status() == 'quiesced', 'reset while quiesced')
            vm.unquiesce(quiesced)
            held += vm.status() == 'prelaunch'
            vm.cmd('cont')
    note(f'a reset has waited {held} times of {rounds}')
    return Row(_SECTION, 'reset', 'without a pause',
               '`VM_QUIESCED`; none from there on; goes on after `cont`',
               times={'quiesced': vm.quiesced_ms})


def _unplug(rig: Rig, rng: random.Random, rounds: int) -> Row:
    """The guest ejects the other vCPU, which executes."""
    lead = 0.0002
    when: collections.Counter[str] = collections.Counter()
    # TCG has a place for each vCPU that there may be, and uses it once
    with Tiny(rig.work, cpus=2, smp=f'1,maxcpus={rounds + 1}') as vm:
        vm.launch()
        vm.wait_until_moving([0])
        place = next(cpu for cpu in vm.cmd('query-hotpluggable-cpus')
                     if cpu['props']['core-id'] == 1)
        script = Script()
        ports.eject_cpu(script, 1)
        for _ in range(rounds):
            vm.cmd('device_add', driver=place['type'], id='other',
                   **place['props'])
            vm.run(Script().add('start_others'))
            vm.wait_until_moving()
            vm.run(script)
            time.sleep(lead * rng.uniform(0.5, 1.5))
            quiesced = vm.quiesce()
            left = len(vm.cmd('query-cpus-fast'))
            expect(not vm.moving(_HOLD_S), 'a vCPU runs after VM_QUIESCED')
            expect(left == len(vm.cmd('query-cpus-fast')),
                   'a vCPU was removed after VM_QUIESCED')
            when['later' if left > 1 else 'before'] += 1
            lead *= 1.2 if left > 1 else 1 / 1.2
            vm.unquiesce(quiesced)
            vm.cmd('cont')
            while len(vm.cmd('query-cpus-fast')) > 1:
                time.sleep(0.001)
            vm.wait_until_moving([0])
    note('unplugged ' + ', '.join(f'{count} times {name}'
                                  for name, count in when.items()))
    return Row(_SECTION, 'a vCPU that executes is unplugged',
               'at the same instant', '`VM_QUIESCED`; removed before that, or '
               'after `cont`', times={'quiesced': vm.quiesced_ms})


def _tight_loops(rig: Rig, cpus: int) -> Row:
    """vCPUs that never look up."""
    with Tiny(rig.work, cpus=cpus) as vm:
        vm.boot()
        for _ in range(5):
            vm.wait_until_moving()
            token = vm.cmd('vm-quiesce', reason='now')['token']
            counters = vm.counters()
            event = vm.await_quiesced(token)
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
    return Row(_SECTION, f'tight loops on {cpus} vCPUs',
               'all the time, interrupts off', 'they stand still from the '
               'reply to `vm-quiesce` on; `VM_QUIESCED`; go on after `cont`',
               times={'quiesced': vm.quiesced_ms})


def cases(rig: Rig, rng: random.Random,
          rounds: int) -> list[Case]:
    """@rounds is how often each thing is tried."""
    return [
        *((f'{request.name} at the same instant',
           lambda request=request: _requests(rig, rng, request, rounds))
          for request in _REQUESTS),
        ('a guest resets all the time',
         lambda: _reset_loop(rig, rng, 4 * rounds)),
        ('a vCPU is unplugged at the same instant',
         lambda: _unplug(rig, rng, rounds)),
        ('8 vCPUs in tight loops stand still from the reply on',
         lambda: _tight_loops(rig, 8)),
    ]
