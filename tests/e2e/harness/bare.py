"""
A QEMU with the tiny guest, and monitors whose answers are timed.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import paths
from .monitor import Monitor
from .process import PATIENCE, Process
from .tap import Failure, expect
from .tiny import MACHINE, TinyGuest

_numbers = itertools.count()


@dataclass(frozen=True)
class Attempt:
    """A vm-quiesce that has been answered."""
    token: str
    # by time.perf_counter()
    sent: float
    replied: float
    # from here on, no vCPU runs
    stopped: float
    # how many events had come before
    events: int


class Bare(contextlib.ExitStack, TinyGuest):
    """
    QEMU with the guest not started yet. Its monitor `main` is for the test,
    the others are there to be watched.
    """

    def __init__(self, work: Path, args: Sequence[object] = ()) -> None:
        contextlib.ExitStack.__init__(self)
        TinyGuest.__init__(self)
        monitors = [Monitor(name) for name in ('main', 'one', 'two')]
        for monitor in monitors:
            self.callback(monitor.close)
        self.main = monitors[0]
        self.watched = monitors[1:]
        self.process = self.enter_context(Process(
            [paths.QEMU_BIN / paths.SYSTEM, '-machine', MACHINE, '-S',
             '-display', 'none', *self.guest_args(), *args,
             *(arg for monitor in monitors for arg in monitor.args())],
            work / f'qemu{next(_numbers)}.log',
            [monitor.qemu_fd() for monitor in monitors]))
        with contextlib.ExitStack() as failed:
            failed.enter_context(self)
            try:
                for monitor in monitors:
                    monitor.connect(PATIENCE)
            except (OSError, EOFError):
                raise Failure(f'QEMU does not start: '
                              f'{self.process.output()}') from None
            failed.pop_all()

    def execute(self, command: str, **arguments: object) -> dict:
        """A QMP command that must succeed."""
        try:
            return self.main.execute(command, **arguments)
        except RuntimeError as error:
            raise Failure(f'{command}: {error}') from None
        except (OSError, EOFError) as error:
            raise self._lost(command, error) from None

    def _lost(self, command: str, error: Exception) -> Failure:
        # if it is ending, it does so in a moment
        self.process.wait(1)
        return Failure(f'{command}: {error!r}; QEMU: status '
                       f'{self.process.status()}, {self.process.output()}')

    def refused(self, command: str, **arguments: object) -> str:
        """The error of a QMP command that must fail."""
        try:
            answer = self.main.execute(command, **arguments)
        except RuntimeError as error:
            return str(error)
        raise Failure(f'{command} was not refused: {answer}')

    def io(self, device: str, command: str) -> None:
        """Have the block backend of a device do something, as by qemu-io."""
        said = self.main.hmp(f'qemu-io -d {device} "{command}"')
        expect(not said or 'wrote' in said, f'{command}: {said}')

    def status(self) -> str:
        """The run state."""
        return self.execute('query-status')['status']

    def start(self) -> None:
        """Start the guest; returns when it has counted."""
        self.execute('cont')
        self.wait_until_moving()

    def quiesce(self, deadline_ms: int) -> Attempt:
        """Send vm-quiesce, and have its reply."""
        events = len(self.main.events)
        sent = time.perf_counter()
        token = self.execute('vm-quiesce', **{
            'reason': 'test', 'deadline-ms': deadline_ms})['token']
        replied = stopped = time.perf_counter()
        # it does not wait for a vCPU to which the host gives no time
        while self._runs():
            stopped = 0.0
        return Attempt(token, sent, replied, stopped or time.perf_counter(),
                       events)

    def _runs(self) -> bool:
        """Is it told that a vCPU has not stopped?"""
        info = self.execute('query-vm-quiesce')
        return info['phase'] == 'stop' and any(
            part['name'] == 'vcpus' and 'error' in part
            for part in info['participants'])

    def verdict(self, attempt: Attempt, *names: str) -> tuple[float, dict]:
        """
        When the first of these events came after vm-quiesce, and its data;
        without names: VM_QUIESCED or VM_QUIESCE_FAILED.
        """
        names = names or ('VM_QUIESCED', 'VM_QUIESCE_FAILED')
        try:
            when, event = self.main.event(*names, start=attempt.events)
        except (OSError, EOFError) as error:
            raise self._lost(' or '.join(names), error) from None
        expect(event['data']['token'] == attempt.token, event)
        return when, event['data'] | {'event': event['event']}

    def quiesced(self, deadline_ms: int = PATIENCE * 1000) -> dict:
        """Quiesce the VM; the data of VM_QUIESCED."""
        data = self.verdict(self.quiesce(deadline_ms))[1]
        expect(data['event'] == 'VM_QUIESCED', data)
        expect(self.status() == 'quiesced', 'VM_QUIESCED, but not quiesced')
        return data
