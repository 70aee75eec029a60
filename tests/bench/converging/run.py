"""
One live migration, and what is found out about it.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

# before what it makes importable
from harness.machine import PATIENCE, Machine
from harness.netns import namespace
from harness.process import until
from harness.tap import Failure, Skip, expect
from harness.worker import PAGES_PER_MIB, Load, Worker

from qemu.machine.machine import QEMUMachineError
from qemu.qmp import QMPError

from .arms import Arm

_MIB = 1 << 20
_PORT = 4444
_WARM_S = 3.0
# the guest needs a moment to run, and to be looked at
_AFTER_S = 2.0
# a guest that is paced may work off 50 ms afterwards
_SETTLE_S = 0.2
_SERIES_S = 0.1
_POLL_S = 0.05
_ENDS = ('completed', 'failed', 'cancelled')


@dataclass(frozen=True)
class Setting:
    """What is the same in all runs."""
    binary: Path
    linux: bool
    accel: str
    link: str
    # MiB per second
    bandwidth: int
    downtime_ms: int
    # seconds after which a migration has no end
    cap: float
    # the destination receives in the time that nobody else wants
    idle_destination: bool


@dataclass
class Run:
    """What came of it. Times are in the unit that the name says."""
    load: str
    arm: str
    round: int
    # completed, failed, no end
    status: str = 'error'
    error: str = ''
    seconds: float = 0.0
    mib: float = 0.0
    passes: int = 0
    # as QEMU says, and as the guest sees it
    downtime_ms: float | None = None
    blackout_ms: float | None = None
    # what was sent in the last stage
    last_mib: float = 0.0
    # the longest in which the guest did not run, the switchover included
    gap_ms: float = 0.0
    # in which the guest would have done what it has not
    lost_s: float | None = None
    # the same, of the vCPU that only reads, in per cent of the time
    neighbour_lost: float | None = None
    throttle: int = 0
    predicted_downtime_ms: float | None = None
    # the whole of it, by what was predicted after the third pass
    predicted_s: float | None = None
    bad: int = 0
    host_load: float = 0.0
    # pages per second before; pages that were done, in how many seconds
    normal: float = 0.0
    done: float = 0.0
    span_s: float = 0.0
    # was it as fast as it could be?
    flat_out: bool = False
    # MiB per second, in each _SERIES_S
    series: list[float] = field(default_factory=list)
    # of the vCPU that only reads, in shares of what it did before
    neighbour_series: list[float] = field(default_factory=list)
    # what it lost while the guest was slowed down, in per cent of what it did
    # in the same migration until then
    neighbour_slowed: float | None = None
    gaps: list[tuple[float, float]] = field(default_factory=list)
    pass_events: list[tuple[float, int]] = field(default_factory=list)
    history: dict | None = None
    incoming: dict | None = None

    @property
    def ended(self) -> bool:
        """Did it switch over?"""
        return self.status == 'completed'

    def result(self) -> dict:
        """For JSON."""
        return asdict(self)


@contextlib.contextmanager
def link(setting: Setting) -> Iterator[None]:
    """The network; with `tbf` it is slow in itself."""
    if setting.link == 'unix':
        yield
        return
    with namespace():
        try:
            subprocess.run(
                ['tc', 'qdisc', 'add', 'dev', 'lo', 'root', 'tbf', 'rate',
                 f'{setting.bandwidth * _MIB * 8}bit', 'burst', '512kb',
                 'latency', '20ms'], check=True, capture_output=True,
                text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Skip('no slow network: '
                       f'{getattr(error, "stderr", "") or error}') from None
        yield


class Unavailable(Exception):
    """An arm cannot be used here, for this reason."""


def probe(arm: Arm, setting: Setting, work: Path) -> None:
    """Unavailable is raised if this QEMU cannot migrate so."""
    if arm.ring and setting.accel != 'kvm':
        raise Unavailable('only KVM has a dirty ring')
    with Machine(work, 'probe', setting.binary) as vm:
        vm.set_machine('none')
        vm.add_args('-accel', arm.accel(setting.accel))
        try:
            vm.launch()
        except QEMUMachineError:
            raise Unavailable('QEMU does not start: '
                              f'{vm.get_log() or ""}'.strip()) from None
        known = {item['capability']
                 for item in vm.cmd('query-migrate-capabilities')}
    missing = set(arm.capabilities) - known
    if missing:
        raise Unavailable('this QEMU has no capability '
                          + ', '.join(sorted(missing)))


def _prepare(worker: Worker, arm: Arm, setting: Setting, work: Path) -> str:
    """Both sides, up to the URI."""
    wanted = [{'capability': name, 'state': True}
              for name in ('events', *arm.capabilities)]
    for vm in worker.source, worker.destination:
        vm.cmd('migrate-set-capabilities', {'capabilities': wanted})
        if arm.parameters:
            vm.cmd('migrate-set-parameters', dict(arm.parameters))
    worker.source.cmd('migrate-set-parameters', {
        'downtime-limit': setting.downtime_ms,
        # no limit but the network's
        'max-bandwidth': setting.bandwidth * _MIB
                         if setting.link == 'unix' else 0})
    uri = (f'unix:{work}/migration' if setting.link == 'unix'
           else f'tcp:127.0.0.1:{_PORT}')
    worker.destination.cmd('migrate-incoming', {'uri': uri})
    return uri


def _await_end(worker: Worker, run: Run, start: float,
               cap: float) -> tuple[dict, float]:
    """What QEMU says of the migration at its end, and when that was."""
    while True:
        info = worker.source.cmd('query-migrate')
        now = time.perf_counter()
        run.throttle = max(run.throttle,
                           info.get('cpu-throttle-percentage', 0))
        run.status = info['status']
        if run.status in _ENDS:
            run.error = info.get('error-desc', '')
            return info, now
        if now - start > cap:
            run.status = 'no end'
            worker.source.cmd('migrate_cancel')
            until(lambda: worker.source.cmd('query-migrate')['status']
                  in _ENDS, 'the end of a migration', PATIENCE)
            return info, now
        time.sleep(_POLL_S)


def _when(event: dict) -> float:
    """By the clock of time.perf_counter()."""
    stamp = event['timestamp']
    return (stamp['seconds'] + stamp['microseconds'] / 1e6
            - time.time() + time.perf_counter())


def _last(events: list[dict], name: str) -> float:
    """When the last event of that name was."""
    return max(_when(event) for event in events if event['event'] == name)


def _history(vm: Machine, arm: Arm) -> dict | None:
    return vm.cmd('query-migration-history')[-1] if arm.ours else None


def _lost(worker: Worker, run: Run, start: float, end: float) -> None:
    """How much less the guest has done than it would have."""
    warm = start - _WARM_S + 0.5
    run.normal = (worker.work(start) - worker.work(warm)) / (start - warm)
    if not run.normal:
        return
    wanted = worker.load.pages(start - worker.begun, end - worker.begun)
    run.span_s = end - start
    run.done = worker.work(end) - worker.work(start)
    run.flat_out = wanted is None
    run.lost_s = run.span_s * (
        1 - run.done / (wanted or run.normal * run.span_s))
    run.series = [rate / PAGES_PER_MIB
                  for rate in worker.series(start, end, _SERIES_S)]
    if worker.load.neighbour:
        normal = ((worker.work(start, 1) - worker.work(warm, 1))
                  / (start - warm))
        done = ((worker.work(end, 1) - worker.work(start, 1))
                / (end - start))
        run.neighbour_lost = 100 * (1 - done / normal)
        run.neighbour_series = [rate / normal for rate in worker.series(
            start, end, _SERIES_S, 1)]


def _neighbour_slowed(run: Run) -> None:
    """What the throttle alone takes from the vCPU that only reads."""
    slow = [item for item in run.history['passes'] if item['throttle']
            ] if run.history and run.neighbour_series else []
    if not slow:
        return
    begin, end = (int(ms / 1000 / _SERIES_S) for ms in (
        slow[0]['time'] - slow[0]['duration'], slow[-1]['time']))
    before, slowed = run.neighbour_series[:begin], run.neighbour_series[
        begin + 1:end]
    if before and slowed:
        run.neighbour_slowed = 100 * (
            1 - statistics.mean(slowed) / statistics.mean(before))


def _predictions(run: Run) -> None:
    """What the history says."""
    if not run.history:
        return
    run.predicted_downtime_ms = run.history.get('predicted-downtime')
    for item in run.history['passes']:
        if item['pass'] == 3 and 'predicted-time' in item:
            run.predicted_s = (item['time'] + item['predicted-time']) / 1000


def _migrate(run: Run, load: Load, arm: Arm, setting: Setting,
             work: Path) -> None:
    """Fill in a run."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(link(setting))
        worker = stack.enter_context(Worker(
            work, load, linux=setting.linux, accel=arm.accel(setting.accel),
            binary=setting.binary))
        worker.boot()
        if setting.idle_destination:
            # its main thread alone: the guest has vCPUs of the usual priority
            os.sched_setscheduler(worker.destination.get_pid(), os.SCHED_IDLE,
                                  os.sched_param(0))
        uri = _prepare(worker, arm, setting, work)
        time.sleep(_WARM_S)
        start = time.perf_counter()
        worker.begin()
        worker.source.cmd('migrate', {'uri': uri})
        info, end = _await_end(worker, run, start, setting.cap)
        if run.ended:
            until(lambda: worker.destination.cmd('query-status')['running'],
                  'the guest in the destination', PATIENCE)
        time.sleep(_AFTER_S)
        events = worker.source.get_qmp_events()
        if run.ended:
            switch = worker.switched(
                _last(events, 'STOP'),
                _last(worker.destination.get_qmp_events(), 'RESUME'))
            end = switch.arrived
            run.blackout_ms = switch.blackout * 1000
            run.downtime_ms = info['downtime']
            run.incoming = _history(worker.destination, arm)
        run.history = _history(worker.source, arm)
        ram = info.get('ram', {})
        run.seconds = info.get('total-time', 0) / 1000
        run.mib = ram.get('transferred', 0) / _MIB
        run.last_mib = ram.get('downtime-bytes', 0) / _MIB
        run.passes = ram.get('dirty-sync-count', 0)
        run.pass_events = [(_when(event) - start, event['data']['pass'])
                           for event in events
                           if event['event'] == 'MIGRATION_PASS']
        run.gaps = [(when - start, length) for when, length
                    in worker.gaps(start, end + _SETTLE_S)[:20]]
        run.gap_ms = run.gaps[0][1] * 1000 if run.gaps else 0.0
        _lost(worker, run, start, end + _SETTLE_S)
        _neighbour_slowed(run)
        _predictions(run)
        # where there is no end, dirty-limit goes on to hold the guest after
        # migrate_cancel, for longer than one would wait; nothing has arrived
        if run.status != 'no end':
            run.bad = worker.verify()
        expect(not run.bad, f'{run.bad} pages are not as the guest left them')


def attempt(name: str, load: Load, arm: Arm, number: int, setting: Setting,
            work: Path) -> Run:
    """One run, or what has kept it from being one."""
    run = Run(name, arm.name, number, host_load=os.getloadavg()[0])
    try:
        _migrate(run, load, arm, setting, work)
    except (Failure, QEMUMachineError, QMPError, OSError) as error:
        run.status, run.error = 'error', f'{error}'
    return run


