"""
The rows of storage that hangs or is slow, and what a row must come to.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import time
from pathlib import Path

from harness import image
from harness.bare import Bare
from harness.table import Row
from harness.tap import expect
from harness.watch import Control, Watch

from . import backends
from .fault import IDE, IOTHREAD, VHOST_USER, VIRTIO, Fault, Found
from .hung import DEADLINE_MS, Cell

HUNG = 'Storage that hangs'
SLOW = 'Storage that is slow'
_STOPPED = 'stopped (SIGSTOP)'
_VANISHED = 'killed, comes back (reconnect-delay)'
_WRITES = '3 writes in flight'
_FLUSH = 'a flush in flight'

# the rate at which a request is done in time, or is not
_ENOUGH, _TOO_LITTLE = 65536, 8192

FAULTS = [
    Fault('NBD, qemu-nbd', f'{_STOPPED}, {_WRITES}', backends.QemuNbd),
    Fault('NBD, qemu-nbd', f'{_STOPPED}, {_FLUSH}', backends.QemuNbd,
          flush=True),
    Fault('NBD, storage daemon', f'{_STOPPED}, {_WRITES}',
          backends.NbdDaemon),
    Fault('NBD, storage daemon', f'{_STOPPED}, {_FLUSH}', backends.NbdDaemon,
          flush=True),
    Fault('NBD, storage daemon', f'{_STOPPED}, {_WRITES}, iothread',
          backends.NbdDaemon, IOTHREAD),
    Fault('NBD, storage daemon', f'{_STOPPED}, {_FLUSH}, iothread',
          backends.NbdDaemon, IOTHREAD, flush=True),
    Fault('NBD, storage daemon', f'{_STOPPED}, {_WRITES}, IDE',
          backends.NbdDaemon, IDE),
    Fault('NBD', f'{_VANISHED}, {_WRITES}', backends.Vanished),
    Fault('NBD', f'{_VANISHED}, {_FLUSH}', backends.Vanished, flush=True),
    Fault('blkdebug', f'suspended, {_WRITES}', backends.Suspended),
    Fault('blkdebug', f'suspended, {_WRITES}, IDE', backends.Suspended, IDE),
    Fault('file on FUSE', f'{_STOPPED}, {_WRITES}', backends.FuseFile),
    Fault('file on FUSE', f'{_STOPPED}, {_FLUSH}', backends.FuseFile,
          flush=True),
    Fault('loop device on FUSE', f'{_STOPPED}, {_WRITES}',
          backends.LoopDevice),
    Fault('vhost-user-blk, storage daemon', f'{_STOPPED}, guest writes',
          backends.VhostUser, VHOST_USER),
]

FAR = Fault('NBD, throttled there', f'64 KiB/s, {_WRITES}',
            lambda work: backends.FarThrottle(work, _ENOUGH))
# the same, for ends that must come while it is busy
_FAR_SLOWER = Fault(FAR.back_end, FAR.fault,
                    lambda work: backends.FarThrottle(work, _TOO_LITTLE))


def ends(fault: Fault) -> list[str]:
    """The ways in which cells of this row end."""
    resumes = fault.make is not backends.Suspended
    return (['goes on'] if resumes else []) + ['quit', 'SIGTERM']


def run_cell(fault: Fault, end: str, work: Path, control: Control) -> Found:
    """One cell."""
    if fault is FAR and end != 'goes on':
        fault = _FAR_SLOWER
    with Cell(fault, work, control) as cell:
        return {'goes on': cell.goes_on, 'quit': cell.quit,
                'SIGTERM': cell.sigterm}[end]()


def row(fault: Fault, found: dict[str, Found]) -> Row:
    """The row of the table that the cells of a fault make."""
    words = ['`VM_QUIESCE_FAILED` at the deadline']
    if 'goes on' in found:
        words.append('`VM_QUIESCED` when it is done' if fault is FAR else
                     '`VM_QUIESCED` when it goes on')
    kept = {cell.kept for end, cell in found.items() if end != 'goes on'}
    words.append('`quit` and SIGTERM end the process' if kept == {False} else
                 '`quit` and SIGTERM leave a dead process, which the kernel '
                 'keeps until the FUSE server goes on')
    times: dict[str, float] = {}
    for cell in found.values():
        for heading, value in cell.times.items():
            times[heading] = max(value, times.get(heading, value))
    named = {cell.named for cell in found.values()}
    expect(len(named) == 1, f'cells of a row have named {named}')
    return Row(SLOW if fault is FAR else HUNG, fault.back_end, fault.fault,
               '; '.join(words), named.pop(), times)


def throttled_here(work: Path, control: Control) -> Row:
    """
    A throttle node in QEMU lets its queue go when it is drained: the state is
    reached at once, with what was in the queue on the disk.
    """
    length = 1 << 20
    with backends.Throttled(work) as backend, \
            Bare(work, [*backend.args(), *VIRTIO.args]) as vm:
        vm.start()
        start = time.perf_counter()
        for number in range(3):
            vm.io(VIRTIO.path,
                  f'aio_write -q -P {number + 1} {number * length} {length}')
        watch = Watch(vm, control)
        attempt = vm.quiesce(DEADLINE_MS)
        when, data = vm.verdict(attempt)
        expect(data['event'] == 'VM_QUIESCED', data)
        written = backend.image.read_bytes()
        for number in range(3):
            part = written[number * length:][:length]
            expect(part == bytes([number + 1]) * length,
                   f'request {number} is not in the image')
        # alone, the throttle would have taken longer for the second one
        expect(when - start < length / 65536, 'the throttle was waited for')
        expect(not image.is_locked(backend.image), 'the image is locked')
        backend.write_elsewhere()
        end = time.perf_counter()
        watch.stop()
        watch.check(attempt.sent, end)
        watch.still(attempt.stopped)
        return Row(SLOW, 'throttle node in QEMU', '64 KiB/s, 3 MiB in its '
                   'queue', '`VM_QUIESCED` before the deadline, with all of '
                   'it written',
                   times={'quiesced': (when - attempt.sent) * 1e3,
                          'slowest monitor': watch.slowest() * 1e3})
