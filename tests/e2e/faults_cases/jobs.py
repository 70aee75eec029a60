"""
Block jobs that run when the VM is told to quiesce: they end, and are reported;
the images of the disk are whole and have all that was written; and nothing is
written to any file any more, those of the job's target included.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import image
from harness.bare import Bare
from harness.process import until
from harness.table import Row
from harness.tap import expect
from harness.watch import Control

from .backends import SIZE, tool
from .fault import VIRTIO

_MIB = 1 << 20
# a job of this speed, in bytes a second, does not get far
_SLOW = 65536
# layer of the chain -> pattern, and what it is written to, in MiB
_LAYERS = {'base': (1, 0, 4), 'mid': (2, 2, 6), 'top': (3, 4, 8)}
# what is written, and in flight, while the job runs
_LATE = (4, 10, 11)

_FILTERS = {
    '': '',
    'throttle': 'throttle,node-name=disk,throttle-group=free,file=top',
    'copy-on-read': 'copy-on-read,node-name=disk,file=top',
}


@dataclass(frozen=True)
class Job:
    """A block job, and the filter node between the device and the chain."""
    name: str
    command: str
    arguments: dict[str, object]
    # the state in which the VM is quiesced
    state: str = 'running'
    filter: str = ''

    @property
    def top(self) -> str:
        """The node that the device has."""
        return 'disk' if self.filter else 'top'

    @property
    def device(self) -> str:
        """The node that the job is told; a stream cannot start at a filter"""
        return 'top' if self.command == 'block-stream' else self.top

    @property
    def where(self) -> str:
        """For people."""
        return (f'{self.state}, qcow2 chain of 3'
                + (f' under {self.filter}' if self.filter else ''))


def _all_jobs() -> Iterator[Job]:
    full = {'target': 'target', 'sync': 'full'}
    slow = {'speed': _SLOW}
    for name in _FILTERS:
        yield Job('mirror', 'blockdev-mirror', full | slow, filter=name)
    yield Job('mirror', 'blockdev-mirror', full, 'ready')
    yield Job('mirror', 'blockdev-mirror', full, 'ready', 'throttle')
    yield Job('backup', 'blockdev-backup', full | slow)
    yield Job('backup', 'blockdev-backup', full | slow,
              filter='copy-on-read')
    yield Job('commit, active layer', 'block-commit', slow)
    yield Job('commit, active layer', 'block-commit', {}, 'ready', 'throttle')
    inner = {'top-node': 'mid', 'base-node': 'base'}
    yield Job('commit, middle layer', 'block-commit', inner | slow)
    yield Job('commit, middle layer', 'block-commit', inner | slow,
              filter='throttle')
    yield Job('stream', 'block-stream', slow)
    yield Job('stream', 'block-stream', slow, filter='throttle')


class _Chain:
    """A chain of images whose content is known."""

    def __init__(self, work: Path) -> None:
        self.layers = [work / layer for layer in _LAYERS]
        self.target = image.create(work / 'target', 'raw', SIZE)
        self.content = bytearray(SIZE)
        below: list[object] = []
        for path, layer in zip(self.layers, _LAYERS.values()):
            tool('qemu-img', 'create', '-q', '-f', 'qcow2', *below, path,
                 SIZE)
            tool('qemu-io', '-f', 'qcow2', '-c', self.write(*layer), path)
            below = ['-b', path, '-F', 'qcow2']

    def write(self, pattern: int, start: int, end: int) -> str:
        """The command of qemu-io, of something that is going to be there."""
        length = (end - start) * _MIB
        self.content[start * _MIB:end * _MIB] = bytes([pattern]) * length
        return f'write -q -P {pattern} {start * _MIB} {length}'

    def args(self, job: Job) -> list[str]:
        """The part of QEMU's command line."""
        args = ['-object', 'throttle-group,id=free']
        below = ''
        for path in self.layers:
            args += ['-blockdev', f'qcow2,node-name={path.name},'
                     f'file.driver=file,file.filename={path}{below}']
            below = f',backing={path.name}'
        args += ['-blockdev', f'file,node-name=target,filename={self.target}']
        if job.filter:
            args += ['-blockdev', _FILTERS[job.filter]]
        return [*args, '-device', f'virtio-blk-pci,id=dev,drive={job.top}']

    def files(self) -> list[Path]:
        """All that could be written to."""
        return [*self.layers, self.target]

    def check(self) -> None:
        """By another process: are the images whole, and is all there?"""
        for path in self.files():
            expect(not image.is_locked(path), f'{path.name} is locked')
        for path in self.layers:
            tool('qemu-img', 'check', '-q', '-f', 'qcow2', path)
        with image.content(self.layers[-1], 'qcow2') as disk:
            expect(disk[:] == self.content, 'the disk has another content')


def _ends(job: Job, work: Path, _control: Control) -> Row:
    chain = _Chain(work)
    with Bare(work, chain.args(job)) as vm:
        vm.start()
        vm.execute(job.command, **job.arguments | {
            'device': job.device, 'job-id': 'job'})
        until(lambda: [info['status'] for info in vm.execute('query-jobs')]
              == [job.state], f'the job is {job.state}')
        vm.io(VIRTIO.path, f'aio_{chain.write(*_LATE)}')
        data = vm.quiesced()
        before = [image.digest(path) for path in chain.files()]
        chain.check()

        jobs = data.get('cancelled-jobs')
        expect(jobs is not None, f'no cancelled-jobs in VM_QUIESCED: {data}')
        kind = job.command.removeprefix('block').removeprefix('dev')[1:]
        expect([(info['id'], info['type']) for info in jobs]
               == [('job', kind)], f'cancelled-jobs: {jobs}')
        told = vm.execute('query-vm-quiesce').get('cancelled-jobs')
        expect(told == jobs, f'query-vm-quiesce says: {told}')

        vm.refused('cont')
        time.sleep(0.2)
        expect([image.digest(path) for path in chain.files()] == before,
               'a file was written to after VM_QUIESCED')

        vm.execute('vm-unquiesce', token=data['token'])
        vm.execute('cont')
        vm.io(VIRTIO.path, chain.write(5, 12, 13))
        vm.quiesced()
        chain.check()
        return Row('Block jobs', job.name, job.where,
                   '`VM_QUIESCED`; the job is cancelled, the disk whole',
                   f'cancelled-jobs: type {kind}, status '
                   f'{jobs[0]["status"]}',
                   {'quiesced': float(data['duration-ms'])})


def cases() -> Iterator[tuple[str, Callable[..., Row], Job]]:
    """Name, test, and arguments of each."""
    for job in _all_jobs():
        yield f'block job: {job.name}, {job.where}', _ends, job
