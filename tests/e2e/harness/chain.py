"""
VMs that take over one disk from each other, and what must be true of the disk,
and of a VM that was quiesced, whenever it is looked at.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import random
import signal
import time

from . import image
from .guest import Disk, Guest
from .records import Record, check
from .refusals import abuse, refusal
from .rig import STREAMS, Rig
from .tap import expect


class Chain:
    """A disk, and the VMs that write to it one after the other."""

    def __init__(self, rig: Rig, rng: random.Random, disk: Disk,
                 warm: bool) -> None:
        self._rig = rig
        self._rng = rng
        self._disk = disk
        self._warm = warm
        self._writers: list[int] = []
        self._acknowledged: list[Record] = []

    def next_vm(self) -> Guest:
        """The next VM; a warm one is loaded, but has no lock yet."""
        instance = len(self._writers) + 1
        self._writers.append(instance)
        vm = Guest(self._rig.work, self._disk, accel=self._rig.accel,
                   instance=instance)
        if self._warm:
            vm.load(self._rig.template(self._disk.controller))
        return vm

    def start(self, vm: Guest, hurry: float = 0.25) -> None:
        """
        Have it take the disk and write. One that has to boot is not waited for
        in this share of the cases.
        """
        if self._warm:
            vm.cmd('cont')
            expect(vm.status() == 'running', 'the new VM does not run')
        elif self._rng.random() < hurry:
            vm.launch()         # and it will be quiesced while it boots
            time.sleep(self._rng.uniform(0, 2))
            return
        else:
            vm.boot()
        vm.record(STREAMS)
        if self._rng.random() < 0.75:
            vm.wait_for_progress(STREAMS)
        time.sleep(self._rng.uniform(0, 0.4))

    def report(self, vms: list[Guest]) -> str:
        """Check the disk against what these and all former VMs have said."""
        acknowledged = self._acknowledged + [
            record for vm in vms for record in vm.acknowledged()]
        with image.content(self._disk.image, self._disk.fmt) as disk:
            report = check(disk, STREAMS, self._writers, acknowledged)
        expect(not report.problems, report)
        return str(report)

    def end(self, vm: Guest) -> None:
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

    def quiesce(self, vm: Guest) -> dict:
        """Quiesce a running VM; the event, with its promises checked."""
        expect(image.is_locked(self._disk.image),
               'the running VM has no lock')
        return self.contained(vm, vm.quiesce())

    def contained(self, vm: Guest, event: dict) -> dict:
        """VM_QUIESCED has come: check what it promises; the event."""
        expect(not image.is_locked(self._disk.image),
               'VM_QUIESCED, but the image is locked')
        state = vm.cmd('query-vm-quiesce')
        expect(vm.status() == state['phase'] == 'quiesced',
               f'VM_QUIESCED, but the state is {vm.status()}, {state}')
        expect(state['token'] == event['data']['token'],
               f'two tokens: {event} {state}')
        return event

    def linger(self, vm: Guest) -> None:
        """Nothing must change while nobody runs, whatever is tried."""
        path = self._disk.image
        before = image.digest(path)
        abuse(vm)
        self.report([vm])
        expect(image.digest(path) == before,
               'the image has changed after VM_QUIESCED')

    def outlive(self, old: Guest, token: str,
                writes: list[tuple[int, int, int]]) -> None:
        """The old VM, while the new one runs."""
        abuse(old)
        error = refusal(old, 'vm-unquiesce', {'token': token})
        expect('disk' in error, f'the node is not named: {error}')
        expect(old.writes() == writes,
               'the quiesced VM has counted more writes')
