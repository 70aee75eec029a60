"""
A network of its own: a tap whose packets the kernel counts, and somebody who
wants frames to leave through it all the time.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import fcntl
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

TAP = 'fuzz0'
_MARK = 'FUZZ_NETWORK'
_TUNSETIFF = 0x400454ca
_TUNSETPERSIST = 0x400454cb
_IFF_TAP_NO_PI = 0x1002
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
# to everybody, from a locally administered address, a type for experiments
_FRAME = b'\xff' * 6 + b'\x02fuzz!' + b'\x88\xb5' + bytes(46)
_INTERVAL_S = 0.005


def enter() -> str:
    """
    Go on in a network namespace of one's own, by executing this program once
    more; if there is none to be had, the reason.
    """
    if _MARK in os.environ:
        return os.environ[_MARK]
    unshare = ['unshare', '--net']
    if os.geteuid():
        unshare += ['--user', '--map-root-user']
    why_not = ''
    if not os.access('/dev/net/tun', os.R_OK | os.W_OK):
        why_not = '/dev/net/tun cannot be used'
    elif subprocess.run([*unshare, 'true'], check=False,
                        stderr=subprocess.DEVNULL).returncode:
        why_not = 'no network namespace can be made'
    os.environ[_MARK] = why_not
    if why_not:
        return why_not
    os.execvp('unshare', [*unshare, '--', sys.executable, *sys.argv])


def make_tap() -> None:
    """Make the tap, and set it up."""
    tun = os.open('/dev/net/tun', os.O_RDWR)
    try:
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack('16sH22x', TAP.encode(),
                                                 _IFF_TAP_NO_PI))
        fcntl.ioctl(tun, _TUNSETPERSIST, 1)
    finally:
        os.close(tun)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack('16sH22x', TAP.encode(),
                                                     _IFF_UP))


def packets_sent() -> int:
    """How many packets have left QEMU: the kernel has received them."""
    for line in Path('/proc/self/net/dev').read_text().splitlines():
        name, _, counters = line.partition(':')
        if name.strip() == TAP:
            return int(counters.split()[1])
    return 0


def _flood(path: Path, end: threading.Event) -> None:
    """Send frames to one VM after the other, as each comes to listen."""
    frame = struct.pack('>I', len(_FRAME)) + _FRAME
    while not end.wait(_INTERVAL_S):
        with contextlib.suppress(OSError), \
             socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            while not end.wait(_INTERVAL_S):
                sock.sendall(frame)


@contextlib.contextmanager
def flood(path: Path) -> Iterator[None]:
    """Have frames come to the socket at @path all the time."""
    end = threading.Event()
    thread = threading.Thread(target=_flood, args=(path, end), daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
