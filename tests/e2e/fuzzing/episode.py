"""
One VM, from a guest that was loaded to the end of the process, with a sequence
of commands in between; all that must be true of it is checked.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import json
import random
import select
import shutil
import subprocess
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

from harness.guest import PATIENCE
from harness.tap import Failure, TimeLimit, expect

from . import plan
from .commands import ends_quiesced, spoils_dump, with_token
from .monitor import MAX_OPEN, Monitor, Request
from .schema import Schema
from .target import Target
from .watch import Watch

# A sanitizer makes QEMU slow; this is about hanging, not about speed.
_REPLY_LIMIT_S = 60
_HISTORY = 50
# in the quiesced state, look every so many steps
_LOOK = 8


def _stacks(pid: int | None) -> str:
    """Where the threads of a process are, if there is a debugger."""
    if not shutil.which('gdb'):
        return 'install gdb to see where it hangs'
    return subprocess.run(['gdb', '-p', str(pid), '-batch', '-ex',
                           'thread apply all backtrace 20'], check=False,
                          stdin=subprocess.DEVNULL, capture_output=True,
                          text=True).stdout


class Episode:
    """Carries out the steps."""

    def __init__(self, vm: Target, counts: Counter) -> None:
        self._vm = vm
        self._counts = counts
        self._watch = Watch(vm, counts)
        self._history: deque[str] = deque(maxlen=_HISTORY)
        self._began = time.monotonic()
        self._token = 'none'
        # open requests that may end the quiesced state
        self._ending: list[Request] = []
        # the last event of the series says that it is quiesced
        self._announced = False

    def history(self) -> str:
        """The last commands and events."""
        return '\n'.join(self._history)

    def run(self, steps: Iterator[plan.Step]) -> None:
        """All steps, and then the end of the process."""
        for number, step in enumerate(steps):
            match step:
                case plan.Send():
                    self._send(step)
                case plan.Pause():
                    self._pump(step.seconds)
                case plan.Settle():
                    self._settle()
            self._pump(0)
            self._vm.keep_writing()
            if number % _LOOK == 0:
                self._look()
        self._watch.end()
        self._counts['writes'] += sum(count for count, *_ in
                                      self._vm.writes())

    def _note(self, text: str) -> None:
        self._history.append(f'{time.monotonic() - self._began:8.3f} {text}')

    def _send(self, step: plan.Send) -> None:
        monitor = self._vm.monitors[step.monitor]
        while len(monitor.open) >= MAX_OPEN or self._must_wait(step):
            self._pump(0.01)
        ends = ends_quiesced(step.command, step.arguments)
        if ends:
            self._pump(0)
            if not self._ending:
                self._watch.end()
            self._announced = False
        arguments = with_token(step.arguments, self._token)
        text = f'{step.command} {json.dumps(arguments)}'
        self._note(f'{step.monitor} -> {text[:300]}')
        request = monitor.send(step.command, arguments)
        if ends:
            self._ending.append(request)

    def _must_wait(self, step: plan.Send) -> bool:
        """Would a dump and a command that spoils it meet?"""
        requests = [request for monitor in self._vm.monitors
                    for request in monitor.open.values()]
        if step.command == 'dump-guest-memory':
            return any(spoils_dump(request.command, request.arguments)
                       for request in requests)
        return spoils_dump(step.command, step.arguments) and (
            self._vm.status() == 'save-vm'
            or any(request.command == 'dump-guest-memory'
                   for request in requests))

    def _pump(self, seconds: float) -> None:
        """Take what comes in this time, and at least what is there now."""
        monitors = self._vm.monitors
        end = time.monotonic() + seconds
        came = False
        while True:
            left = max(end - time.monotonic(), 0)
            readable, *_ = select.select(monitors, [], [], left)
            for monitor in readable:
                came = True
                self._receive(monitors.index(monitor), monitor)
            if not readable and left <= 0:
                break
        for monitor in monitors:
            if monitor.waiting_for() > _REPLY_LIMIT_S:
                raise Failure('no reply for a minute: ' + ', '.join(
                    request.command for request in monitor.open.values())
                    + f'\n{_stacks(self._vm.get_pid())}')
        if came and self._announced:
            self._look()

    def _receive(self, number: int, monitor: Monitor) -> None:
        events, replies = monitor.receive()
        for event in events:
            # both monitors have the same events
            if number == 0:
                self._event(event)
        for request, reply in replies:
            self._reply(number, request, reply)

    def _event(self, event: dict) -> None:
        name = event['event']
        self._note(f'  <- {name} {json.dumps(event.get("data", {}))[:300]}')
        self._counts[f'event {name}'] += 1
        if name == 'VM_QUIESCED':
            self._announced = True
            self._token = event['data']['token']
        elif name in ('VM_UNQUIESCED', 'VM_QUIESCE_FAILED'):
            self._announced = False
            # the attempt may be due to a rule, not to a command
            self._token = event['data']['token']

    def _reply(self, number: int, request: Request, reply: dict) -> None:
        self._ending = [other for other in self._ending if other != request]
        result = reply.get('error', {}).get('desc', 'ok')
        self._note(f'{number} <- {request.command}: {result[:200]}')
        self._counts[f'{"refused" if "error" in reply else "accepted"} '
                     f'{request.command}'] += 1
        if request.command == 'vm-quiesce' and 'return' in reply:
            self._token = reply['return']['token']

    def _look(self) -> None:
        if self._ending:
            return
        quiesced = self._watch.look()
        if self._announced:
            # events that had not been read yet may say otherwise
            announced, self._announced = self._announced, False
            self._pump(0)
            expect(quiesced or not announced,
                   'VM_QUIESCED, but the state is another one')

    def _settle(self) -> None:
        while any(monitor.open for monitor in self._vm.monitors):
            self._pump(0.02)
        self._look()


def run(vm: Target, template: Path, schema: Schema, rng: random.Random,
        commands: int, counts: Counter) -> None:
    """An episode with this number of commands."""
    vm.make_images()
    with vm:
        vm.load(template)
        vm.connect()
        episode = Episode(vm, counts)
        try:
            vm.cmd('cont')
            episode.run(plan.episode(rng, schema, vm.work, commands))
            vm.shutdown(timeout=PATIENCE)
            expect(vm.exitcode() == 0, f'it ended with {vm.exitcode()}')
        except Exception as err:
            stacks = (_stacks(vm.get_pid()) if isinstance(err, TimeLimit)
                      else '')
            vm.shutdown(hard=True)
            raise Failure(f'{type(err).__name__}: {err}\n{stacks}\n'
                          f'{episode.history()}\n'
                          f'{(vm.get_log() or "")[-20000:]}') from err
        finally:
            for monitor in vm.monitors:
                monitor.close()
