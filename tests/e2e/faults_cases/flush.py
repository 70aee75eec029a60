"""
A flush that fails: the VM is not quiesced, the node and the error are named,
and another attempt works when the cause is gone.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from harness import image
from harness.bare import Bare
from harness.table import Row
from harness.tap import expect
from harness.watch import Control

from . import backends
from .fault import IDE, IOTHREAD, VIRTIO, Device

_DEADLINE_MS = 10000


class FailsOnce(backends.Backend):
    """A disk whose first flush fails."""

    def __init__(self, work: Path, error: int) -> None:
        super().__init__(work)
        self._error = error

    def args(self) -> list[str]:
        # blkdebug sees only the flushes of a node above it
        return ['-blockdev', f'file,node-name=file,filename={self.image}',
                '-blockdev', 'blkdebug,node-name=debug,image=file,'
                             'inject-error.0.event=flush_to_disk,'
                             f'inject-error.0.errno={self._error},'
                             'inject-error.0.once=on',
                '-blockdev', 'raw,node-name=disk,file=debug']


def _fails(device: Device, error: int, work: Path,
           _control: Control) -> Row:
    with FailsOnce(work, error) as backend, \
            Bare(work, [*backend.args(), *device.args]) as vm:
        vm.start()
        vm.io(device.path, 'write -q -P 3 0 64k')
        attempt = vm.quiesce(_DEADLINE_MS)
        count = vm.counters()
        when, data = vm.verdict(attempt)
        expect(data['event'] == 'VM_QUIESCE_FAILED',
               f'the flush cannot have been made: {data}')
        parts = data['participants']
        expect([part['name'] for part in parts] == ['block'],
               f'nothing else has failed, but it names: {parts}')
        named = parts[0]['error']
        expect(re.fullmatch(
            r"node 'disk' \(/machine/peripheral/dev.*\): flush failed: "
            + re.escape(os.strerror(error)), named), f'named: {named}')
        names = [event['event']
                 for _, event in vm.main.events[attempt.events:]]
        expect('STOP' not in names, f'events: {names}')
        expect(vm.status() == 'paused', vm.status())
        expect('not permitted' in vm.refused('cont'), 'cont')
        expect(image.is_locked(backend.image), 'the lock was given up')

        again = vm.quiesced()
        expect(again['token'] != attempt.token, 'the token is the same')
        expect(vm.counters() == count, 'the guest has run')
        expect(not image.is_locked(backend.image), 'the image is locked')
        with open(backend.image, 'rb') as file:
            expect(file.read(65536) == b'\3' * 65536, 'not written')
        backend.write_elsewhere()
        return Row('Flush that fails', device.name,
                   f'{errno.errorcode[error]}, once',
                   '`VM_QUIESCE_FAILED` at once; another `vm-quiesce` '
                   'reaches the state', named,
                   {'failed': (when - attempt.sent) * 1e3,
                    'quiesced, second time': float(again['duration-ms'])})


def cases() -> Iterator[tuple[str, Callable[..., Row], Device, int]]:
    """Name, test, and arguments of each."""
    for device in VIRTIO, IOTHREAD, IDE:
        for error in errno.EIO, errno.ENOSPC:
            yield (f'flush that fails, {device.name}, '
                   f'{errno.errorcode[error]}', _fails, device, error)
