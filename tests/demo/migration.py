"""
The part of the demo in which a guest moves while it writes more than the
network can send.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import time
from pathlib import Path

from harness.machine import PATIENCE, Machine
from harness.process import until
from harness.tap import expect
from harness.worker import Kind, Load, Phase, Worker
from story import DIM, GREEN, RED, Timeline, headline, paint, say, stamp

_MIB = 1 << 20
_RATE, _HOT, _BANDWIDTH, _DOWNTIME_MS = 400, 64, 100, 300
# the default is watched for as long: the other one needs less
_WATCHED_S = 12
# the guest must be seen at work in the destination
_AFTER_S = 2
_ID = 'demo-0001'


def _limit(vm: Machine) -> None:
    vm.cmd('migrate-set-parameters', {'max-bandwidth': _BANDWIDTH * _MIB,
                                      'downtime-limit': _DOWNTIME_MS})


def _default(vm: Machine) -> None:
    headline('A guest moves while it writes: QEMU as it is')
    say(f'  VM 6 writes {_RATE} MiB/s, most of it to {_HOT} MiB; '
        f'{_BANDWIDTH} MiB/s may be sent.')
    line = Timeline()
    line.add(time.time(), 'VM 6', '<- migrate')
    vm.cmd('migrate', {'uri': 'exec:cat >/dev/null'})
    time.sleep(_WATCHED_S)
    info = vm.cmd('query-migrate')
    expect(info['status'] == 'active', info)
    line.add(time.time(), 'VM 6', paint(
        f'still {info["status"]}: {info["ram"]["transferred"] // _MIB} MiB '
        f'sent, {info["ram"]["remaining"] // _MIB} MiB left; nobody says '
        'whether it will end', RED))
    vm.cmd('migrate_cancel')
    until(lambda: vm.cmd('query-migrate')['status'] == 'cancelled',
          'the end of a migration', PATIENCE)
    line.add(time.time(), 'VM 6', '<- migrate_cancel')
    line.tell()


def _enforced(worker: Worker, work: Path) -> None:
    headline('The same with the capability "convergence"')
    source, destination = worker.source, worker.destination
    uri = f'unix:{work}/demo-migration'
    source.cmd('migrate-set-capabilities', {'capabilities': [
        {'capability': 'convergence', 'state': True}]})
    for vm in source, destination:
        vm.cmd('migrate-set-parameters', {'migration-id': _ID})
    destination.cmd('migrate-incoming', {'uri': uri})
    source.get_qmp_events()
    line = Timeline()
    line.add(time.time(), 'VM 6', '<- migrate')
    source.cmd('migrate', {'uri': uri})
    until(lambda: source.cmd('query-migrate')['status'] == 'completed',
          'the end of a migration', PATIENCE)
    until(lambda: destination.cmd('query-status')['running'],
          'the guest in the destination', PATIENCE)
    events = source.get_qmp_events()
    for event in events:
        if event['event'] == 'MIGRATION_CONVERGENCE':
            found = event['data']['pass']
            line.add(stamp(event), 'VM 6', f'{found["decision"]}: '
                     + paint(found['reason'], DIM))
    stopped, = [event for event in events if event['event'] == 'STOP']
    resumed, = [event for event in destination.get_qmp_events()
                if event['event'] == 'RESUME']
    line.add(stamp(stopped), 'VM 6', 'STOP')
    line.add(stamp(resumed), 'VM 7', paint('RESUME', GREEN))
    line.tell()
    # by the clock that the guest's work is seen with
    clock = time.perf_counter() - time.time()
    time.sleep(_AFTER_S)
    worker.switched(stamp(stopped) + clock, stamp(resumed) + clock)
    for vm in source, destination:
        record = vm.cmd('query-migration-history')[-1]
        expect(record['id'] == _ID and record['outcome'] == 'completed',
               record)
        say(f'  {record["direction"]} {record["id"]}: {record["outcome"]}, '
            f'stopped for {record["downtime"]} ms'
            + (f', predicted {record["predicted-downtime"]} ms'
               if 'predicted-downtime' in record else ''))


def tell(work: Path) -> None:
    """The story."""
    load = Load((Phase(Kind.SCATTER, _RATE, hot_size=_HOT),))
    with Worker(work, load, linux=True, accel='tcg') as worker:
        worker.boot()
        worker.begin()
        _limit(worker.source)
        _default(worker.source)
        _enforced(worker, work)
        bad = worker.verify()
        expect(not bad, f'{bad} pages are not as the guest left them')
        say('  The guest has verified every page of its memory.')
