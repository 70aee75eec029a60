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

from harness.machine import Machine
from harness.outlets import VhostUser
from harness.process import denied_here, denied_seconds
from harness.netns import namespace
from harness.nics import NICS
from harness.rig import Rig
from harness.table import Case, Row
from harness.tap import expect, note
from harness.tiny import Tiny
from harness.watch import LIMIT, QUESTIONS

from cases.network import await_all, network, silent, sources

_DEADLINE_MS = 500
_TOLERANCE_MS = 100


class _Latency:
    """The longest answers of a monitor, and of one for comparison."""

    def __init__(self, vm: Machine, control: Machine) -> None:
        self._vm = vm
        self._control = control
        self.longest = 0.0
        self.late: list[float] = []

    def ask(self) -> None:
        """Both; one that is late alone, and was not kept waiting, counts."""
        for question in QUESTIONS:
            before = _answer(self._control, question)
            denied = denied_seconds(self._vm.get_pid()) + denied_here()
            taken = _answer(self._vm, question)
            denied = (denied_seconds(self._vm.get_pid()) + denied_here()
                      - denied)
            after = _answer(self._control, question)
            self.longest = max(self.longest, taken)
            if taken > LIMIT + max(before, after, denied):
                self.late.append(taken)


def _answer(vm: Machine, question: str) -> float:
    """How long the monitor takes."""
    start = time.monotonic()
    vm.cmd(question)
    return time.monotonic() - start


def _failed_at_deadline(vm: Machine, latency: _Latency) -> str:
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
    return next(participant['error'] for participant
                in event['data']['participants']
                if participant['name'] == 'vhost')


def _hangs(rig: Rig) -> Row:
    with namespace():
        outlet = VhostUser(rig.work / 'bridge')
        with Tiny(rig.work, 'control') as control, \
             network(rig, outlet, NICS['virtio-net'], False) as vm:
            control.launch()
            control.cmd('stop')
            await_all(vm, outlet, sources(outlet, False))
            latency = _Latency(vm, control)
            os.kill(outlet.bridge.pid, signal.SIGSTOP)
            named = _failed_at_deadline(vm, latency)
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
    expect(not latency.late, f'late answers, in seconds: {latency.late}')
    return Row('Network', 'vhost-user', 'stopped (SIGSTOP), the guest sends',
               '`VM_QUIESCE_FAILED` at the deadline; `VM_QUIESCED` when it '
               'goes on, no frame leaves before `cont`', named)


def cases(rig: Rig) -> list[Case]:
    """One."""
    return [('a vhost-user network back end that hangs is named',
             lambda: _hangs(rig))]
