"""
Promised: when a migration with the capability `convergence` slows a guest
down, the guest is as slow as was decided, also where the host is busy; and
with KVM's dirty ring, only the vCPUs that write are.

Measured, with guests that write more than the network can send, by what they
get done. With other work on all CPUs of the host: a guest that is slowed down
by 99 % does less than a quarter of what it did before. And under KVM: the
first vCPU writes, the second one only reads; while they are slowed down, the
first one does less than half of what it did before that, the second one more.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.machine import PATIENCE, Machine
from harness.process import until
from harness.tap import Skip, expect, note
from harness.worker import Kind, Load, Phase, Worker

from qemu.machine.machine import QEMUMachineError

_RING = 'kvm,dirty-ring-size=4096'
_MIB = 1 << 20
_AREA_MIB = 128
_SWEEP = Load((Phase(Kind.SWEEP),), area_mib=_AREA_MIB)
# what is written all the time does not fit into the limit of the downtime
_WITH_READER = Load((Phase(Kind.SCATTER, 400),), area_mib=_AREA_MIB,
                    neighbour=True)
_BANDWIDTH = 50 * _MIB
_WARM_S = 1
_AFTER_S = 1


def _require_ring(work: Path) -> None:
    if not os.access('/dev/kvm', os.R_OK | os.W_OK):
        raise Skip('/dev/kvm cannot be used')
    with Machine(work, 'probe') as vm:
        vm.set_machine('none')
        vm.add_args('-accel', _RING)
        try:
            vm.launch()
        except QEMUMachineError:
            raise Skip(f'no dirty ring: {vm.get_log() or ""}') from None


@contextlib.contextmanager
def _busy_host() -> Iterator[None]:
    """Something else to do for each CPU."""
    with contextlib.ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            child = stack.enter_context(subprocess.Popen(
                [sys.executable, '-c', 'while True: pass']))
            stack.callback(child.kill)
        yield


def _migrate(worker: Worker, work: Path) -> None:
    uri = f'unix:{work}/slowdown'
    worker.source.cmd('migrate-set-capabilities', {'capabilities': [
        {'capability': 'convergence', 'state': True}]})
    # as if the network were no faster while the guest is stopped
    worker.source.cmd('migrate-set-parameters', {
        'max-bandwidth': _BANDWIDTH, 'avail-switchover-bandwidth': _BANDWIDTH})
    worker.destination.cmd('migrate-incoming', {'uri': uri})
    worker.begin()
    worker.source.cmd('migrate', {'uri': uri})
    until(lambda: worker.source.cmd('query-migrate')['status']
          in ('completed', 'failed'), 'the end of a migration', PATIENCE)


def _slowed_passes(worker: Worker) -> tuple[list[dict], float]:
    """Those in which the guest was slowed down; when the first one began."""
    history = worker.source.cmd('query-migration-history')[-1]
    slow = [item for item in history['passes'] if item['throttle']]
    expect(slow, f'the guest was not slowed down: {history}')
    return slow, history['start'] / 1000 - time.time() + time.perf_counter()


def _speed(worker: Worker, cpu: int, begin: float, end: float) -> float:
    return (worker.work(end, cpu) - worker.work(begin, cpu)) / (end - begin)


def _shares(worker: Worker, cpus: int) -> list[float]:
    """How fast vCPUs were while slowed down, in shares of the time before."""
    slow, start = _slowed_passes(worker)
    begin = start + (slow[0]['time'] - slow[0]['duration']) / 1000
    end = start + slow[-1]['time'] / 1000
    shares = [_speed(worker, cpu, begin, end)
              / _speed(worker, cpu, start, begin) for cpu in range(cpus)]
    note(f'slowed down for {end - begin:.1f} s by '
         + ', '.join(f'{item["throttle"]}' for item in slow)
         + ' %: ' + ', '.join(f'{share:.1%}' for share in shares)
         + ' of the speed before')
    return shares


def holds(work: Path) -> None:
    """A case."""
    with Worker(work, _SWEEP, accel='tcg', memory='256M') as worker:
        worker.boot()
        time.sleep(_WARM_S)
        with _busy_host():
            _migrate(worker, work)
        time.sleep(_AFTER_S)
        share, = _shares(worker, 1)
    expect(share < 0.25, 'the guest is not as slow as was decided')


def reader_is_spared(work: Path) -> None:
    """A case."""
    _require_ring(work)
    with Worker(work, _WITH_READER, accel=_RING, memory='256M') as worker:
        worker.boot()
        time.sleep(_WARM_S)
        _migrate(worker, work)
        time.sleep(_AFTER_S)
        writer, reader = _shares(worker, 2)
    expect(writer < 0.5, 'the vCPU that writes was not slowed down')
    expect(reader > 0.5, 'the vCPU that reads was slowed down')


def cases(work: Path) -> list[tuple[str, Callable[[], None]]]:
    """All cases."""
    return [('a guest is as slow as was decided (TCG)', lambda: holds(work)),
            ('a vCPU that only reads is not slowed down (KVM)',
             lambda: reader_is_spared(work))]
