"""
Promised: once VM_QUIESCED has come, another QEMU may use the disk at once,
without fencing. No acknowledged record is missing or torn, none appears twice,
and two writers never exist.

Measured: chains of takeovers. In each, a Linux guest appends records to a disk
on several streams; at a random moment it is quiesced, and another QEMU process
takes the disk over and goes on where the records end. When VM_QUIESCED comes,
no lock is held on the image. In every other takeover, at random, the next VM
starts immediately; in the others the file must not change by a byte while the
quiesced VM is given every command that could make it write. In all of them the
quiesced VM is given these commands while the new one writes, too, it must not
get its locks back, it must count no further write, and it must end when told
to. After each chain all records are checked (harness/records.py) against what
the guests reported.

The next VM is either loaded, before the takeover, with a guest that was saved
when it had booted (warm), or booted afterwards (cold).

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from harness import image
from harness.guest import CONTROLLERS, Controller, Disk, Guest
from harness.records import Record, check
from harness.refusals import abuse, refusal
from harness.rig import STREAMS, Rig
from harness.tap import expect, note

# controller, format, warm, and the share of the takeovers
_CHAINS = (
    ('virtio-blk', 'raw', True, 10),
    ('virtio-blk', 'qcow2', False, 4),
    ('virtio-blk with an iothread', 'qcow2', True, 8),
    ('virtio-blk without ioeventfd', 'raw', True, 6),
    ('virtio-scsi', 'raw', True, 6),
    ('virtio-scsi', 'qcow2', True, 6),
    ('ide', 'raw', True, 6),
    ('ide', 'qcow2', True, 6),
    ('nvme', 'raw', False, 4),
    ('nvme', 'qcow2', False, 4),
)
_SHARES = sum(share for *_, share in _CHAINS)


@dataclass
class Series:
    """All takeovers of one run of the tests."""
    rig: Rig
    rng: random.Random
    takeovers: int = 0


class Chain:
    """VMs that take over one disk from each other."""

    def __init__(self, series: Series, disk: Disk, warm: bool) -> None:
        self._series = series
        self._rng = series.rng
        self._disk = disk
        self._warm = warm
        self._writers: list[int] = []
        self._acknowledged: list[Record] = []

    def _next_vm(self) -> Guest:
        """The next VM; a warm one is loaded, but has no lock yet."""
        instance = len(self._writers) + 1
        self._writers.append(instance)
        rig = self._series.rig
        vm = Guest(rig.work, self._disk, accel=rig.accel, instance=instance)
        if self._warm:
            vm.load(rig.template(self._disk.controller))
        return vm

    def _start(self, vm: Guest) -> None:
        """Have it take the disk and write. Sometimes, do not wait for that."""
        if self._warm:
            vm.cmd('cont')
            expect(vm.status() == 'running', 'the new VM does not run')
        elif self._rng.random() < 0.25:
            vm.launch()         # and it will be quiesced while it boots
            time.sleep(self._rng.uniform(0, 2))
            return
        else:
            vm.boot()
        vm.record(STREAMS)
        if self._rng.random() < 0.75:
            vm.wait_for_progress(STREAMS)
        time.sleep(self._rng.uniform(0, 0.4))

    def _report(self, vms: list[Guest]) -> str:
        """Check the disk against what these and all former VMs have said."""
        acknowledged = self._acknowledged + [
            record for vm in vms for record in vm.acknowledged()]
        with image.content(self._disk.image, self._disk.fmt) as disk:
            report = check(disk, STREAMS, self._writers, acknowledged)
        expect(not report.problems, report)
        return str(report)

    def _end(self, vm: Guest) -> None:
        """One of the two ways to end a quiesced VM, and what it has said."""
        if self._rng.random() < 0.5:
            vm.shutdown()
        else:
            os.kill(vm.get_pid(), signal.SIGTERM)
            vm.wait()
        expect(vm.exitcode() == 0,
               f'it ended with {vm.exitcode()}: {vm.get_log()}')
        vm.channel.drain()
        self._acknowledged += vm.acknowledged()

    def _quiesce(self, vm: Guest) -> dict:
        """Quiesce a running VM; the event, with its promises checked."""
        path = self._disk.image
        expect(image.is_locked(path), 'the running VM has no lock')
        event = vm.quiesce()
        expect(not image.is_locked(path), 'VM_QUIESCED, but the image is '
               'locked')
        state = vm.cmd('query-vm-quiesce')
        expect(vm.status() == state['phase'] == 'quiesced',
               f'VM_QUIESCED, but the state is {vm.status()}, {state}')
        expect(state['token'] == event['data']['token'],
               f'two tokens: {event} {state}')
        return event

    def _linger(self, vm: Guest) -> None:
        """Nothing must change while nobody runs, whatever is tried."""
        path = self._disk.image
        before = image.digest(path)
        abuse(vm)
        self._report([vm])
        expect(image.digest(path) == before,
               'the image has changed after VM_QUIESCED')

    def _outlive(self, old: Guest, token: str,
                 writes: list[tuple[int, int, int]]) -> None:
        """The old VM, while the new one runs."""
        abuse(old)
        error = refusal(old, 'vm-unquiesce', {'token': token})
        expect('disk' in error, f'the node is not named: {error}')
        expect(old.writes() == writes,
               'the quiesced VM has counted more writes')

    def run(self, takeovers: int) -> None:
        """The given number of takeovers, and the check of the whole disk."""
        with contextlib.ExitStack() as stack:
            old = stack.enter_context(self._next_vm())
            self._start(old)
            for _ in range(takeovers):
                new = stack.enter_context(self._next_vm())
                event = self._quiesce(old)
                writes = old.writes()
                if self._rng.random() < 0.5:
                    self._linger(old)
                self._start(new)
                self._outlive(old, event['data']['token'], writes)
                self._end(old)
                self._series.takeovers += 1
                old = new
            self._quiesce(old)
            self._end(old)
            note(self._report([]))


def _chain(series: Series, controller: Controller, fmt: str, warm: bool,
           takeovers: int) -> None:
    disk = series.rig.disk(controller, fmt)
    try:
        Chain(series, disk, warm).run(takeovers)
    finally:
        disk.image.unlink()


def cases(series: Series, rounds: int) -> list[tuple[str,
                                                     Callable[[], None]]]:
    """At least @rounds takeovers, over all controllers and formats."""
    result: list[tuple[str, Callable[[], None]]] = []
    for name, fmt, warm, share in _CHAINS:
        count = -(-rounds * share // _SHARES)
        result.append((
            f'{count} {"warm" if warm else "cold"} takeovers, {fmt} on {name}',
            lambda controller=CONTROLLERS[name], fmt=fmt, warm=warm,
            count=count: _chain(series, controller, fmt, warm, count)))

    def enough() -> None:
        expect(series.takeovers >= rounds,
               f'{series.takeovers} takeovers of {rounds} were made')

    result.append((f'at least {rounds} takeovers in all', enough))
    return result


def under_kvm(series: Series) -> None:
    """A few takeovers where vCPUs run by themselves."""
    _chain(series, CONTROLLERS['virtio-blk'], 'raw', True, 8)
