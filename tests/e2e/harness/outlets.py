"""
Network back ends, and what has left through each of them. Nothing here asks
QEMU.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import array
import fcntl
import os
import socket
import termios
from collections import Counter
from pathlib import Path

from .netns import Interface, bring_up
from .paths import BRIDGE
from .process import Process
from .tap import Skip

GUEST, FLOOD = b'<from-the-guest>', b'<from-another-vm>'
# an announcement is a reverse ARP request, of the guest's address
ANNOUNCEMENT = bytes.fromhex('8035 0001 0800 06 04 0003')
MARKS = (GUEST, FLOOD, ANNOUNCEMENT)

_TAP = 'tap0'
# the UDP port to which frames go
PORT = 4001


class Outlet:
    """A back end with the id "out", watched where its frames arrive."""

    marks = MARKS

    def args(self) -> list[str]:
        """The part of QEMU's command line."""
        raise NotImplementedError

    def attach(self) -> None:
        """QEMU is there now."""

    def sent(self) -> int:
        """A number that grows with whatever leaves QEMU."""
        raise NotImplementedError

    def look(self) -> None:
        """Bring seen() and latest() up to date."""

    def seen(self) -> Counter[bytes]:
        """How many frames there were with each mark."""
        raise NotImplementedError

    def latest(self) -> float:
        """When the latest frame came, if that can be known."""
        return 0.0

    def close(self) -> None:
        """After QEMU has ended."""


class _ByInterface(Outlet):
    """The kernel counts the frames of an interface."""

    interface = 'lo'

    def __init__(self) -> None:
        self._at: Interface

    def attach(self) -> None:
        self._at = Interface(self.interface, self.marks)

    def sent(self) -> int:
        return self._at.sent()

    def look(self) -> None:
        self._at.look()

    def seen(self) -> Counter[bytes]:
        return self._at.seen

    def latest(self) -> float:
        return self._at.latest

    def close(self) -> None:
        self._at.close()


class Tap(_ByInterface):
    """A tap device."""

    interface = _TAP

    def __init__(self, vhost: bool = False) -> None:
        super().__init__()
        self._vhost = vhost
        for path in ('/dev/net/tun', *(['/dev/vhost-net'] if vhost else [])):
            if not os.access(path, os.R_OK | os.W_OK):
                raise Skip(f'{path} cannot be used')

    def args(self) -> list[str]:
        return ['-netdev',
                f'tap,id=out,ifname={_TAP},script=no,downscript=no,'
                f'vhost={"on" if self._vhost else "off"}']

    def attach(self) -> None:
        bring_up(_TAP)
        super().attach()


class _ToSocket(_ByInterface):
    """Frames that go to a UDP port on the loopback interface."""

    def __init__(self) -> None:
        super().__init__()
        # that the kernel has nothing to answer; it is never read
        self._sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sink.bind(('127.0.0.1', PORT))

    def close(self) -> None:
        super().close()
        self._sink.close()


class Dgram(_ToSocket):
    """Each frame in a UDP packet."""

    def args(self) -> list[str]:
        return ['-netdev',
                'dgram,id=out,local.type=inet,local.host=127.0.0.1,'
                'local.port=4002,remote.type=inet,remote.host=127.0.0.1,'
                f'remote.port={PORT}']


class User(_ToSocket):
    """What the guest sends to the gateway goes to the host's loopback."""

    # user-mode networking understands no announcement
    marks = (GUEST, FLOOD)

    def args(self) -> list[str]:
        return ['-netdev', 'user,id=out']


class VhostUser(_ToSocket):
    """QEMU's vhost-user-bridge, which puts each frame in a UDP packet."""

    # the bridge does not announce for the guest
    marks = (GUEST,)

    def __init__(self, path: Path) -> None:
        super().__init__()
        if not BRIDGE.exists():
            raise Skip(f'{BRIDGE} is not there')
        self._path = path
        self.bridge = Process(
            [BRIDGE, '-u', path, '-l', '127.0.0.1:4002',
             '-r', f'127.0.0.1:{PORT}'], Path('/dev/null'))
        self.bridge.await_file(path)

    def args(self) -> list[str]:
        return ['-chardev', f'socket,id=bridge,path={self._path}',
                '-netdev', 'vhost-user,id=out,chardev=bridge']

    def close(self) -> None:
        super().close()
        self.bridge.end()
        self._path.unlink(missing_ok=True)


class Stream(Outlet):
    """A stream of frames; it is read by look(), and sooner or later full."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._sock: socket.socket
        self._read = 0
        self._rest = b''
        self._seen: Counter[bytes] = Counter()

    def args(self) -> list[str]:
        return ['-netdev', 'stream,id=out,server=off,addr.type=unix,'
                f'addr.path={self._path}']

    def attach(self) -> None:
        self._sock, _ = self._listener.accept()

    def sent(self) -> int:
        waiting = array.array('i', [0])
        fcntl.ioctl(self._sock, termios.FIONREAD, waiting)
        return self._read + waiting[0]

    def look(self) -> None:
        while True:
            try:
                data = self._sock.recv(1 << 20, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            self._read += len(data)
            data = self._rest + data
            for mark in MARKS:
                self._seen[mark] += data.count(mark)
            # part of a mark may be at the end, a whole one is not counted
            # twice
            keep = max(len(mark) for mark in MARKS) - 1
            self._rest = data[-keep:]
            for mark in MARKS:
                self._seen[mark] -= self._rest.count(mark)

    def seen(self) -> Counter[bytes]:
        return self._seen

    def close(self) -> None:
        self._sock.close()
        self._listener.close()
        self._path.unlink()
