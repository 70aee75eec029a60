"""
Promised: an outgoing migration is cancelled by vm-quiesce, or had been
completed before: there are never two QEMUs that run the guest, or that hold
the lock of its image. During postcopy, and where an incoming migration is
awaited, vm-quiesce is refused and changes nothing.

Measured, with two QEMUs on this machine and a guest that writes to its disk:
a precopy that is slow is cancelled; and many that are quick are hit at a
moment that is tuned for the switchover. When VM_QUIESCED has come, the
source's vCPU, whose counter the test sees, stands still. If the migration was
cancelled, the destination ends, has never run, and the image is not locked;
the guest goes on at the source after vm-unquiesce and cont. Else the
destination runs and holds the lock, and vm-unquiesce is refused at the source.
At no time do both counters move.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import collections
import os
import random
import threading
import time

from harness import image, ports
from harness.machine import PATIENCE
from harness.process import until
from harness.rig import Rig
from harness.table import Case, Row
from harness.tap import Failure, expect, note
from harness.tiny import COUNTERS, IDE, Script, Tiny

SECTION = 'Migration'
_DISK_SIZE = 1 << 20
_ALL_RAM = 16 << 20
# from here on the guest's memory is only filled
_FILLER = 1 << 20


def writing() -> Script:
    """Write to the disk, and never end."""
    script = Script()
    again = script.end()
    for sector in range(16):
        ports.write_sector(script, sector)
    # what the vCPU does not do by itself while it runs a script
    script.add('increment', value=COUNTERS)
    return script.add('goto', value=again)


def _fill(vm: Tiny) -> None:
    """Give the migration something to send."""
    vm.write(_FILLER, os.urandom(_ALL_RAM - _FILLER))


def _migration(vm: Tiny) -> str:
    return vm.cmd('query-migrate').get('status', 'none')


def await_migration(vm: Tiny, *wanted: str) -> str:
    """Wait until the migration has one of these states."""
    deadline = time.monotonic() + PATIENCE
    while (status := _migration(vm)) not in wanted:
        expect(status != 'failed' and time.monotonic() < deadline,
               f'the migration is {status}')
        time.sleep(0.001)
    return status


class _TwoRunners:
    """Watches two guests' counters, and whether they move together."""

    def __init__(self, first: Tiny, second: Tiny) -> None:
        self._vms = first, second
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.together = 0

    def __enter__(self) -> '_TwoRunners':
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        # One may stop and the other start between two looks: what counts is
        # both moving in two periods, one after the other.
        last = [vm.counters() for vm in self._vms]
        streak = 0
        while not self._end.wait(0.0005):
            now = [vm.counters() for vm in self._vms]
            # what is received for the destination's memory is no movement of
            # its vCPU while that equals what the source has
            both = (now[0] != last[0] and now[1] != last[1]
                    and now[0] != now[1])
            streak = streak + 1 if both else 0
            self.together = max(self.together, streak)
            last = now


class Pair:
    """A source, and a destination that waits for it."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.disk = rig.disk(IDE, 'raw', 'migrating', _DISK_SIZE)
        self._vms: list[Tiny] = []
        self.source = self.new('source')
        self.target: Tiny

    def new(self, name: str, *args: str, **options: object) -> Tiny:
        """A QEMU with the disk; it ends with the pair."""
        vm = Tiny(self._rig.work, name, disk=self.disk, args=args, **options)
        self._vms.append(vm)
        return vm

    def expect_target(self, **options: object) -> None:
        """Start the destination."""
        self.target = self.new('target', '-incoming', 'defer', **options)
        self.target.launch()

    def begin(self, *capabilities: str, **parameters: object) -> None:
        """Start the migration."""
        uri = f'unix:{self._rig.work / "migration"}'
        states = [{'capability': name, 'state': True}
                  for name in ('events', *capabilities)]
        for vm in self.source, self.target:
            vm.cmd('migrate-set-capabilities', capabilities=states)
        self.source.cmd('migrate-set-parameters', **parameters)
        self.target.cmd('migrate-incoming', uri=uri)
        self.source.cmd('migrate', uri=uri)

    def times(self) -> dict[str, float]:
        """For a row."""
        return {'quiesced': max(vm.quiesced_ms for vm in self._vms)}

    def close(self) -> None:
        """End what is left."""
        for vm in self._vms:
            vm.kill()
        self.disk.image.unlink()


def _await_end(vm: Tiny) -> None:
    """A destination whose migration was cancelled."""
    deadline = time.monotonic() + PATIENCE
    while vm.is_running():
        # one that ends answers no question
        if time.monotonic() > deadline:
            raise Failure(f'cancelled, but the destination is {vm.status()}, '
                          f'and its migration {_migration(vm)}')
        time.sleep(0.01)
    expect(vm.exitcode() == 1,
           f'the destination has ended with {vm.exitcode()}')


def _cancelled(pair: Pair, event: dict) -> None:
    """The destination has not run, and the source can go on."""
    expect(event['data']['previous-status'] != 'postmigrate', event)
    _await_end(pair.target)
    expect(not image.is_locked(pair.disk.image), 'the image is locked')
    pair.source.unquiesce(event)
    expect(image.is_locked(pair.disk.image), 'vm-unquiesce takes no lock')
    pair.source.cmd('cont')
    pair.source.wait_until_moving()


def _completed(pair: Pair, event: dict) -> None:
    """The destination has the guest, as is told; it is the next source."""
    expect(event['data']['previous-status'] == 'postmigrate', event)
    deadline = time.monotonic() + PATIENCE
    while (status := pair.target.status()) != 'running':
        expect(time.monotonic() < deadline,
               f'the source is {pair.source.status()}, the destination '
               f'{status}, and its migration {_migration(pair.target)}')
        time.sleep(0.001)
    pair.target.wait_until_moving()
    expect(image.is_locked(pair.disk.image), 'the destination has no lock')
    # its nodes were inactive before, so vm-unquiesce takes no lock; cont does
    pair.source.unquiesce(event)
    answer = pair.source.qmp('cont')
    expect('error' in answer and 'lock' in answer['error']['desc'], answer)
    expect(not pair.source.moving(0.01), 'the source runs, too')
    pair.source.shutdown()
    pair.source = pair.target


def _any_moment(rig: Rig, rng: random.Random, tries: int) -> Row:
    pair = Pair(rig)
    ends: collections.Counter[str] = collections.Counter()
    lead = 0.02
    try:
        pair.source.boot()
        pair.source.run(writing())
        for _ in range(tries):
            pair.expect_target()
            with _TwoRunners(pair.source, pair.target) as both:
                pair.begin()
                time.sleep(lead * rng.uniform(0.7, 1.3))
                event = pair.source.quiesce()
                counters = pair.source.counters()
                end = await_migration(pair.source, 'completed', 'cancelled')
                ends[end] += 1
                lead *= 1.15 if end == 'cancelled' else 1 / 1.15
                time.sleep(0.02)
                expect(pair.source.counters() == counters,
                       'the source runs after VM_QUIESCED')
                if end == 'cancelled':
                    _cancelled(pair, event)
            if end == 'completed':
                _completed(pair, event)
            expect(both.together < 2, 'two run the guest')
    finally:
        pair.close()
    note(', '.join(f'{count} {end}' for end, count in ends.items())
         + f', at last {lead * 1000:.1f} ms after migrate')
    return Row(SECTION, 'source', 'precopy, at about the switchover',
               '`VM_QUIESCED`; either cancelled, or waited for and complete: '
               'then only the destination runs', times=pair.times())


def _precopy(rig: Rig) -> Row:
    pair = Pair(rig)
    try:
        pair.source.boot()
        _fill(pair.source)
        pair.source.run(writing())
        pair.expect_target()
        pair.begin(**{'max-bandwidth': 1 << 20})
        await_migration(pair.source, 'active')
        time.sleep(0.3)
        event = pair.source.quiesce()
        expect(_migration(pair.source) == 'cancelled',
               f'VM_QUIESCED, but the migration is {_migration(pair.source)}')
        expect(not pair.source.moving(0.05), 'the source runs')
        _cancelled(pair, event)
        return Row(SECTION, 'source', 'precopy, that is slow',
                   '`VM_QUIESCED`; cancelled, the destination ends; the guest '
                   'goes on here after `vm-unquiesce` and `cont`',
                   times=pair.times())
    finally:
        pair.close()


def _refused(vm: Tiny, *words: str) -> str:
    """vm-quiesce is, for this reason, and nothing changes; the error."""
    before = vm.status()
    answer = vm.qmp('vm-quiesce', {'reason': 'test'})
    expect('error' in answer, f'{before}: vm-quiesce was not refused')
    error = answer['error']['desc']
    expect(any(word in error for word in words), f'unclear: {error}')
    expect(vm.status() == before
           and vm.cmd('query-vm-quiesce')['phase'] == 'none',
           f'refused, but it has changed from {before}')
    return error


def _postcopy(rig: Rig) -> Row:
    pair = Pair(rig)
    try:
        pair.source.boot()
        _fill(pair.source)
        pair.source.run(writing())
        # precopy is slow, so that there is something left
        pair.expect_target(shared=False)
        pair.begin('postcopy-ram', **{'max-bandwidth': 1 << 20,
                                      'max-postcopy-bandwidth': 1 << 20})
        await_migration(pair.source, 'active')
        time.sleep(0.2)
        pair.source.cmd('migrate-start-postcopy')
        await_migration(pair.source, 'postcopy-active')
        error = _refused(pair.source, 'postcopy')
        until(lambda: pair.target.status() == 'running', 'postcopy runs')
        expect(_refused(pair.target, 'postcopy') == error,
               'the reasons differ')
        expect(_migration(pair.source) == 'postcopy-active',
               'it was not during postcopy')
        pair.source.cmd('migrate-set-parameters',
                        **{'max-postcopy-bandwidth': 0})
        await_migration(pair.source, 'completed')
        await_migration(pair.target, 'completed')
        pair.target.quiesce()
        expect(not image.is_locked(pair.disk.image), 'the image is locked')
        return Row(SECTION, 'source, destination', 'postcopy',
                   '`vm-quiesce` is refused, and changes nothing; permitted '
                   'when it is complete', error, pair.times())
    finally:
        pair.close()


def _incoming(rig: Rig) -> Row:
    pair = Pair(rig)
    try:
        pair.source.boot()
        pair.source.run(writing())
        pair.expect_target()
        error = _refused(pair.target, 'incoming')
        pair.begin()
        await_migration(pair.source, 'completed')
        _completed(pair, pair.source.quiesce())
        return Row(SECTION, 'destination', 'awaited',
                   '`vm-quiesce` is refused, and changes nothing', error)
    finally:
        pair.close()


def cases(rig: Rig, rng: random.Random,
          tries: int) -> list[Case]:
    """@tries is the number of migrations that are hit at any moment."""
    return [
        ('precopy under load is cancelled', lambda: _precopy(rig)),
        ('postcopy: refused on both sides', lambda: _postcopy(rig)),
        ('an incoming migration is awaited: refused', lambda: _incoming(rig)),
        ('a migration at any moment: never two that run',
         lambda: _any_moment(rig, rng, tries)),
    ]
