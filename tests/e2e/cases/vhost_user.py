"""
Promised: a vhost-user back end that does not answer is named by
VM_QUIESCE_FAILED at the deadline, and the monitor answers all the time. When
the back end goes on, VM_QUIESCED comes, and no packet leaves after it.

Measured: QEMU's vhost-user-bridge is stopped by SIGSTOP while a guest floods
it. The monitor is asked without a pause; another QEMU, that nothing has
happened to, is asked in turns with it, and excuses what is late for both.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import signal
import time
from collections.abc import Callable

from harness.machine import Machine
from harness.outlets import VhostUser
from harness.netns import namespace
from harness.nics import NICS
from harness.rig import Rig
from harness.tap import expect, note
from harness.tiny import Tiny

from cases.network import await_all, network, silent, sources

_DEADLINE_MS = 500
_TOLERANCE_MS = 100
_ANSWER_S = 0.1


def _answer(vm: Machine) -> float:
    """How long the monitor takes."""
    start = time.monotonic()
    vm.cmd('query-vm-quiesce')
    vm.cmd('query-status')
    return time.monotonic() - start


class _Latency:
    """The longest answers of a monitor, and of one for comparison."""

    def __init__(self, vm: Machine, control: Machine) -> None:
        self._vm = vm
        self._control = control
        self.longest = 0.0
        self.late = 0

    def ask(self) -> None:
        """Both; one that is late alone counts."""
        before, taken, after = (_answer(self._control), _answer(self._vm),
                                _answer(self._control))
        self.longest = max(self.longest, taken)
        self.late += taken > _ANSWER_S > max(before, after)


def _failed_at_deadline(vm: Machine, latency: _Latency) -> None:
    begin = time.time()
    vm.cmd('vm-quiesce', reason='test', **{'deadline-ms': _DEADLINE_MS})
    failed: list[dict] = []
    while not failed:
        latency.ask()
        expect(time.time() - begin < 30, 'no VM_QUIESCE_FAILED')
        failed = [event for event in vm.get_qmp_events()
                  if event['event'] == 'VM_QUIESCE_FAILED']
    event = failed[0]
    stamp = event['timestamp']
    taken = stamp['seconds'] + stamp['microseconds'] / 1e6 - begin
    note(f'failed after {taken * 1000:.0f} ms of {_DEADLINE_MS} ms: '
         f'{event["data"]["participants"]}')
    expect('vhost' in {participant['name'] for participant
                       in event['data']['participants']},
           f'the culprit is not named: {event}')
    expect(vm.status() != 'quiesced', 'failed, but quiesced')
    expect(taken * 1000 > _DEADLINE_MS - _TOLERANCE_MS, 'too early')


def _hangs(rig: Rig) -> None:
    with namespace():
        outlet = VhostUser(rig.work / 'bridge')
        with Tiny(rig.work, 'control') as control, \
             network(rig, outlet, NICS['virtio-net'], False) as vm:
            control.launch()
            control.cmd('stop')
            await_all(vm, outlet, sources(outlet, False))
            latency = _Latency(vm, control)
            os.kill(outlet.bridge.pid, signal.SIGSTOP)
            _failed_at_deadline(vm, latency)
            expect(not vm.moving(0.1), 'a vCPU runs')
            for _ in range(20):
                latency.ask()
            os.kill(outlet.bridge.pid, signal.SIGCONT)
            event = vm.await_quiesced(
                vm.cmd('query-vm-quiesce')['token'])
            silent(vm, outlet, event)
            vm.unquiesce(event)
            vm.cmd('cont')
            await_all(vm, outlet, sources(outlet, False))
    note(f'the monitor has answered in {latency.longest * 1000:.1f} ms at '
         'most')
    expect(not latency.late, f'{latency.late} answers took more than '
           f'{_ANSWER_S} s')


def cases(rig: Rig) -> list[tuple[str, Callable[[], None]]]:
    """One."""
    return [('a vhost-user network back end that hangs is named',
             lambda: _hangs(rig))]
