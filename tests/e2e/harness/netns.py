"""
A network namespace of the test's own, and its interfaces as the kernel sees
them.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections import Counter
from collections.abc import Iterator

from .tap import Skip, expect

_CLONE_NEWNET = 0x40000000
_ETH_P_ALL = 3
_PACKET_OUTGOING = 4
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_BUFFER = 64 << 20
# more than any header before the mark in a frame
_SNAP = 256

_libc = ctypes.CDLL(None, use_errno=True)


def _enter(result: int) -> None:
    if result:
        error = ctypes.get_errno()
        raise Skip(f'no network namespace: {os.strerror(error)}')


@contextlib.contextmanager
def namespace() -> Iterator[None]:
    """
    In the block, this thread and the processes that it starts are in a network
    namespace with nothing but a loopback interface.
    """
    with open('/proc/thread-self/ns/net', 'rb') as before:
        _enter(_libc.unshare(_CLONE_NEWNET))
        try:
            bring_up('lo')
            yield
        finally:
            _enter(_libc.setns(before.fileno(), _CLONE_NEWNET))


def bring_up(interface: str) -> None:
    """Make an interface of the namespace work."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack('16sh22x', interface.encode(), 0)
        flags, = struct.unpack_from('h', fcntl.ioctl(
            sock, _SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack(
            '16sh22x', interface.encode(), flags | _IFF_UP))


class Interface:
    """
    What comes out of an interface: counted by the kernel, and looked at, with
    the time at which it came.
    """

    def __init__(self, name: str, marks: tuple[bytes, ...]) -> None:
        self._name = name
        self._marks = marks
        self.seen: Counter[bytes] = Counter()
        # seconds since the epoch, the clock of QMP events
        self.latest = 0.0
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW,
                                   socket.htons(_ETH_P_ALL))
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._sock.bind((name, 0))

    def close(self) -> None:
        """Stop to look."""
        self._sock.close()

    def sent(self) -> int:
        """How many frames have come, by the kernel's count."""
        with open('/proc/thread-self/net/dev', encoding='ascii') as file:
            for line in file:
                name, _, numbers = line.partition(':')
                if name.strip() == self._name:
                    return int(numbers.split()[1])
        raise OSError(f'{self._name} is not there')

    def look(self) -> None:
        """Take in what has come."""
        while True:
            try:
                data, control, _, address = self._sock.recvmsg(
                    _SNAP, 64, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if address[2] == _PACKET_OUTGOING:
                continue
            for mark in self._marks:
                self.seen[mark] += mark in data
            expect(control, 'a frame without a time')
            seconds, nanoseconds = struct.unpack('qq', control[0][2])
            self.latest = seconds + nanoseconds / 1e9
