"""
Promised: user-mode networking sends nothing in the quiesced state, not even
what it has taken from the guest, but has not sent yet.

Measured: a Linux guest sends without an end on two TCP connections, one that
it has made and one that was made to it, through a forwarded port. The
receivers do not read until no more comes: then data wait in QEMU, too. In the
quiesced state they read everything that the kernel had been given (by its own
account: what waits at the receiver, and what the sending socket has not got
rid of), and get not a byte more. After vm-unquiesce and cont they do.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import socket
import time

from harness.guest import Guest
from harness.machine import PATIENCE
from harness.netns import namespace
from harness.process import until
from harness.rig import Rig
from harness.table import Case, Row
from harness.tap import expect, note

_OUT, _IN = 4001, 4002
_SETTLE_S = 0.5
_SETUP = (
    'ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; '
    'nc -l -p 80 </dev/zero & nc -l -p 80 </dev/zero & sleep 1; echo LISTEN; '
    f'nc 10.0.2.2 {_OUT} </dev/zero')


class _Receiver:
    """One connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.read = 0

    def take(self) -> int:
        """Read all there is; how much has been read so far."""
        while True:
            try:
                data = self._sock.recv(1 << 20, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return self.read
            expect(data, 'the connection was closed')
            self.read += len(data)

    def left_qemu(self) -> int:
        """Bytes that the kernel has been given, wherever they are."""
        ours = (self._sock.getsockname()[1], self._sock.getpeername()[1])
        waiting = 0
        with open('/proc/thread-self/net/tcp', encoding='ascii') as file:
            for line in file.readlines()[1:]:
                _, local, remote, _, queues, *_ = line.split()
                ports = tuple(int(end.split(':')[1], 16)
                              for end in (local, remote))
                sending, receiving = (int(size, 16)
                                      for size in queues.split(':'))
                if ports == ours:
                    waiting += receiving
                elif ports == ours[::-1]:
                    waiting += sending
        return self.read + waiting


def _settled(receivers: list[_Receiver]) -> list[int]:
    """Wait until no more leaves QEMU; what has."""
    deadline = time.monotonic() + PATIENCE
    last: list[int] = []
    while (now := [receiver.left_qemu() for receiver in receivers]) != last:
        expect(time.monotonic() < deadline, 'the sockets are never full')
        last = now
        time.sleep(_SETTLE_S)
    return now


def _await_flow(receivers: list[_Receiver]) -> None:
    """Wait until more comes on each."""
    for receiver in receivers:
        goal = receiver.read + 100_000
        until(lambda: receiver.take() >= goal, 'more is received')


def _queued(rig: Rig) -> Row:
    with namespace(), socket.create_server(('127.0.0.1', _OUT)) as server, \
         Guest(rig.work, args=[
             '-netdev', 'user,id=out,'
             f'hostfwd=tcp:127.0.0.1:{_IN}-10.0.2.15:80',
             '-device', 'virtio-net-pci,netdev=out']) as vm:
        vm.boot()
        vm.channel.send(_SETUP)
        vm.channel.wait(lambda line: line == 'LISTEN', 'the network')
        sockets = [server.accept()[0],
                   socket.create_connection(('127.0.0.1', _IN))]
        receivers = [_Receiver(sock) for sock in sockets]
        _await_flow(receivers)
        for _ in range(2):
            left = _settled(receivers)
            event = vm.quiesce()
            for receiver, bytes_left in zip(receivers, left):
                until(lambda: receiver.take() >= bytes_left,
                      'all that has left is read')
            time.sleep(_SETTLE_S)
            more = [receiver.take() - bytes_left
                    for receiver, bytes_left in zip(receivers, left)]
            expect(more == [0, 0], f'{more} bytes more in state quiesced')
            vm.unquiesce(event)
            vm.cmd('cont')
            _await_flow(receivers)
        note(f'had left at the last quiesce: {left}')
        for sock in sockets:
            sock.close()
        return Row('Network', 'user', 'TCP of a Linux guest; its receivers '
                   'read when the VM is quiesced', '`VM_QUIESCED`; what waits '
                   'in QEMU does not leave before `cont`',
                   times={'quiesced': vm.quiesced_ms})


def cases(rig: Rig) -> list[Case]:
    """One."""
    return [('user-mode networking keeps what it has not sent',
             lambda: _queued(rig))]
