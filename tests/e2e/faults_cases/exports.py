"""
Block exports with a client that does not pause: they are closed and reported,
the client gets an error, and nothing is written any more.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness import image, paths, virtio
from harness.bare import Bare
from harness.process import PATIENCE, Process, until
from harness.table import Row
from harness.tap import expect
from harness.watch import Control

from .backends import Backend, vhost_user_args


class _NbdClient(contextlib.ExitStack):
    """qemu-img, which ends when a request fails."""

    kind = 'nbd'

    def __init__(self, work: Path, socket: Path, write: bool) -> None:
        super().__init__()
        pattern = ['-w', f'--pattern={virtio.PATTERN}'] if write else []
        self._process = self.enter_context(Process(
            [paths.QEMU_BIN / 'qemu-img', 'bench', '-f', 'raw', '-s', '512',
             '-S', '512', '-c', '100000000', *pattern,
             f'nbd+unix:///e?socket={socket}'], work / 'client.log'))

    def await_progress(self) -> None:
        """Wait until it has done many requests."""
        until(lambda: self._process.cpu_seconds() > 0.1, 'the client works')
        expect(self._process.status() is None, self._process.output())

    def check_error(self) -> None:
        """Has it seen an error?"""
        expect(self._process.wait(PATIENCE), 'the client goes on')
        said = self._process.output()
        expect(self._process.status() == 1 and 'Failed request' in said,
               f'the client says: {said}')


class _VhostUserClient(contextlib.ExitStack):
    """A VM whose guest does one request after the other."""

    kind = 'vhost-user-blk'

    def __init__(self, work: Path, socket: Path, write: bool) -> None:
        super().__init__()
        self._vm = self.enter_context(Bare(work, vhost_user_args(socket)))
        self._vm.start()
        self._vm.run(virtio.access(self._vm, write))

    def await_progress(self) -> None:
        """Wait until it has done many requests."""
        until(lambda: self._answered() > 100, 'the guest works')
        expect(self._vm.word(virtio.BLK_STATUS) & 0xff == 0,
               'a request has failed')

    def _answered(self) -> int:
        return self._vm.word(virtio.ANSWERED)

    def check_error(self) -> None:
        """Does it know that the back end is gone?"""
        def closed() -> bool:
            # neither is known to QMP in another way
            text = str(self._vm.execute('query-chardev'))
            return "'filename': 'disconnected:unix:" in text
        until(closed, 'the back end disconnects')
        answered = self._answered()
        time.sleep(0.1)
        expect(self._answered() == answered, 'requests are still answered')


Client = type[_NbdClient] | type[_VhostUserClient]


def _export(vm: Bare, kind: str, socket: Path, writable: bool) -> None:
    address = {'type': 'unix', 'path': str(socket)}
    arguments: dict[str, object] = {
        'type': kind, 'id': 'export', 'node-name': 'disk',
        'writable': writable}
    if kind == 'nbd':
        vm.execute('nbd-server-start', addr={
            'type': 'unix', 'data': {'path': str(socket)}})
        arguments['name'] = 'e'
    else:
        arguments['addr'] = address
    vm.execute('block-export-add', **arguments)


def _closed(client_type: Client, writable: bool, work: Path,
            _control: Control) -> Row:
    kind = client_type.kind
    socket = work / 'socket'
    with Backend(work) as backend, Bare(work, [
            *backend.args(), '-device',
            'virtio-blk-pci,id=dev,drive=disk,share-rw=on']) as vm:
        _export(vm, kind, socket, writable)
        vm.start()
        with client_type(work, socket, writable) as client:
            client.await_progress()
            data = vm.quiesced()
            before = image.digest(backend.image)
            client.check_error()

            exports = data.get('closed-exports')
            expect(exports is not None,
                   f'no closed-exports in VM_QUIESCED: {data}')
            expect([(info['id'], info['type'], info['node-name'])
                    for info in exports] == [('export', kind, 'disk')],
                   f'closed-exports: {exports}')
            told = vm.execute('query-vm-quiesce').get('closed-exports')
            expect(told == exports, f'query-vm-quiesce says: {told}')
            expect(vm.execute('query-block-exports') == [], 'an export is up')

            vm.refused('cont')
            time.sleep(0.3)
            expect(image.digest(backend.image) == before,
                   'the image was written to after VM_QUIESCED')
            with open(backend.image, 'rb') as file:
                expect((file.read(1)[0] == virtio.PATTERN) == writable,
                       'the client has written nothing, or should not have')
            expect(not image.is_locked(backend.image), 'the image is locked')
            backend.write_elsewhere()
        return Row('Block exports', kind,
                   ('writable, a client writes' if writable else
                    'read-only, a client reads'),
                   '`VM_QUIESCED`; the export is closed, the client gets an '
                   'error', f'closed-exports: type {kind}, node disk',
                   {'quiesced': float(data['duration-ms'])})


def cases() -> Iterator[tuple[str, Callable[..., Row], Client, bool]]:
    """Name, test, and arguments of each."""
    for client in _NbdClient, _VhostUserClient:
        for writable in True, False:
            yield (f'export: {client.kind}, '
                   f'{"writable" if writable else "read-only"}',
                   _closed, client, writable)
