"""
Promised: a quiesced VM comes back only by vm-unquiesce, with the token of the
quiesce that it undoes, and only if nobody else has locked one of its images.
It is `paused` then, and goes on where it was stopped.

Measured: a writing guest is quiesced; another QEMU opens the disk. With it
there, vm-unquiesce fails, names the disk, and changes nothing. With it gone, a
wrong token is still refused; the right one gives the event VM_UNQUIESCED, the
state `paused` and the lock. After `cont` the guest appends further records.
All that several times over, and the records are checked.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import time

from harness import image
from harness.guest import CONTROLLERS, PATIENCE, Disk, Guest
from harness.records import check
from harness.refusals import refusal
from harness.rig import STREAMS
from harness.tap import expect, note

from cases.takeover import Series

_ROUNDS = 5


def _round(series: Series, disk: Disk, vm: Guest) -> None:
    vm.wait_for_progress(STREAMS)
    time.sleep(series.rng.uniform(0, 0.4))
    token = vm.quiesce()['data']['token']
    with Guest(series.rig.work, disk, instance=2, args=['-S']) as other:
        other.launch()
        error = refusal(vm, 'vm-unquiesce', {'token': token})
        expect('disk' in error, f'the node is not named: {error}')
    refusal(vm, 'vm-unquiesce', {'token': f'not {token}'})
    expect(not image.is_locked(disk.image), 'a refused vm-unquiesce has left '
           'a lock')
    vm.cmd('vm-unquiesce', token=token)
    vm.event_wait('VM_UNQUIESCED', PATIENCE)
    expect(vm.status() == 'paused', f'vm-unquiesce has made it {vm.status()}')
    expect(image.is_locked(disk.image), 'vm-unquiesce has taken no lock')
    answer = vm.qmp('vm-unquiesce', {'token': token})
    expect('error' in answer, 'a token was accepted twice')
    vm.cmd('cont')


def change_of_mind(series: Series) -> None:
    """The case."""
    disk = series.rig.disk(CONTROLLERS['virtio-blk'], 'qcow2')
    try:
        with Guest(series.rig.work, disk, instance=1) as vm:
            vm.boot()
            vm.record(STREAMS)
            for _ in range(_ROUNDS):
                _round(series, disk, vm)
            vm.wait_for_progress(STREAMS)
            vm.quiesce()
            vm.shutdown()
            vm.channel.drain()
            with image.content(disk.image, disk.fmt) as content:
                report = check(content, STREAMS, [1], vm.acknowledged())
        expect(not report.problems, report)
        note(report)
    finally:
        disk.image.unlink()
