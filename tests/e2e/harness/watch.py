"""
Monitors that are asked all the time: how long do they take to answer, and does
the guest stand still?

What is promised is an answer within 100 ms. The host may have kept QEMU from
running in that time. That is told by the kernel, which counts how long its
threads were ready and did not get a CPU; and by a control, a process of the
same binary that is asked the same, and has nothing to do with what is wrong.
An answer may be as much later as either says.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from .bare import Bare
from .monitor import Monitor
from .process import denied_here, denied_seconds
from .tap import expect

LIMIT = 0.1
_INTERVAL = 0.01
QUESTIONS = ('query-status', 'query-vm-quiesce')


class Sample(NamedTuple):
    """A question and its answer, by time.perf_counter()."""
    start: float
    end: float
    question: str
    # for how long QEMU's threads, and this one, were kept from running
    denied: float

    @property
    def took(self) -> float:
        """Seconds."""
        return self.end - self.start


class Watcher(threading.Thread):
    """Asks one monitor, until it is told to stop or the monitor is gone."""

    def __init__(self, monitor: Monitor, vm: Bare) -> None:
        super().__init__(daemon=True)
        self._monitor = monitor
        self._vm = vm
        self._pid = vm.process.pid
        self._halt = threading.Event()
        self.samples: list[Sample] = []
        # (when it was looked at, value of the guest's counter)
        self.counts: list[tuple[float, int]] = []
        # when the connection ended, and why
        self.lost: tuple[float, str] | None = None

    def run(self) -> None:
        try:
            while not self._halt.is_set():
                for question in QUESTIONS:
                    self._ask(question)
                now = time.perf_counter()
                self.counts.append((now, *self._vm.counters()))
                self._halt.wait(_INTERVAL)
        except (OSError, EOFError, RuntimeError) as error:
            self.lost = time.perf_counter(), repr(error)

    def _ask(self, question: str) -> None:
        denied = denied_seconds(self._pid) + denied_here()
        start = time.perf_counter()
        missing = None
        try:
            self._monitor.execute(question)
        except TimeoutError as error:
            # it counts, with the time that was waited
            missing = error
        end = time.perf_counter()
        # a process that has ended says nothing
        denied = max(0.0, denied_seconds(self._pid) + denied_here() - denied)
        self.samples.append(Sample(start, end, question, denied))
        if missing:
            raise missing

    def stop(self) -> None:
        """Ask no more."""
        self._halt.set()
        self.join()


class Control:
    """The process that has nothing to do with it."""

    def __init__(self, vm: Bare) -> None:
        self._watchers = [Watcher(monitor, vm)
                          for monitor in vm.watched]
        for watcher in self._watchers:
            watcher.start()

    def slack(self, since: float, until: float) -> float:
        """The control's longest answer that was under way in that time."""
        samples = [sample for watcher in self._watchers
                   for sample in list(watcher.samples)]
        return max((sample.took for sample in samples
                    if sample.end >= since and sample.start <= until),
                   default=0.0)

    def stop(self) -> None:
        """Ask no more."""
        for watcher in self._watchers:
            watcher.stop()


class Watch:
    """Both monitors of a VM, from here on."""

    def __init__(self, vm: Bare, control: Control) -> None:
        self._control = control
        self._watchers = [Watcher(monitor, vm)
                          for monitor in vm.watched]
        self._monitors = vm.watched
        for watcher in self._watchers:
            watcher.start()

    def stop(self) -> None:
        """Ask no more."""
        for watcher in self._watchers:
            watcher.stop()

    def slowest(self) -> float:
        """The longest time that an answer took, in seconds."""
        return max(sample.took for sample in self._samples())

    def check(self, since: float, until: float) -> None:
        """
        Was every question up to @until answered in time? What is late is told
        by the time since @since.
        """
        for watcher in self._watchers:
            expect(watcher.samples, 'a monitor was not asked')
            if watcher.lost:
                when, why = watcher.lost
                expect(when > until, f'a monitor was lost: {why}')
        for sample in self._samples():
            if sample.start > until:
                continue
            control = self._control.slack(sample.start, sample.end)
            expect(sample.took <= LIMIT + max(control, sample.denied),
                   f'{sample.question}, {sample.start - since:+.3f} s after '
                   f'vm-quiesce, took {sample.took * 1e3:.0f} ms; at that '
                   f'time the control took {control * 1e3:.0f} ms, and QEMU '
                   f'was kept from running for {sample.denied * 1e3:.0f} ms')

    def still(self, since: float) -> int:
        """
        Fail if the guest has counted after @since; how often that was looked
        at.
        """
        looks = sorted(look for watcher in self._watchers
                       for look in watcher.counts if look[0] >= since)
        expect(looks, 'nobody has looked')
        late = [when for when, count in looks if count != looks[-1][1]]
        expect(not late, f'the guest went on, from {looks[0][1]} to '
               f'{looks[-1][1]}, for more than '
               f'{(max(late, default=since) - since) * 1e3:.1f} ms')
        return len(looks)

    def events(self, name: str) -> Iterable[list[float]]:
        """For each monitor, when events of this name came."""
        for monitor in self._monitors:
            yield [when for when, event in monitor.events
                   if event['event'] == name]

    def _samples(self) -> list[Sample]:
        return [sample for watcher in self._watchers
                for sample in watcher.samples]
