"""
Disk images as the host sees them: made, compared, and probed for locks.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from .paths import QEMU_BIN
from .tap import expect

# struct flock and the command of <fcntl.h>; Python has no name for the latter
_FLOCK = struct.Struct('hhqqi4x')
_F_OFD_GETLK = 36
_HOLDER_PATIENCE = 30


def create(path: Path, fmt: str, size: int,
           preallocation: str = 'off') -> Path:
    """Make an empty image."""
    subprocess.run([QEMU_BIN / 'qemu-img', 'create', '-q', '-f', fmt,
                    '-o', f'preallocation={preallocation}', path, str(size)],
                   check=True)
    return path


def digest(path: Path) -> str:
    """A digest of the file, read afresh."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def is_locked(path: Path) -> bool:
    """
    Does any process hold a lock that keeps a VM from using the image?

    QEMU read-locks one byte of the file for each thing that it does to an
    image (from 100 on) or does not let others do (from 200 on); a write lock
    would conflict with them. Byte 100 is left out: it stands for reading what
    is consistent, and an inactive qcow2 node keeps it.
    """
    with open(path, 'rb') as file:
        for first, count in ((101, 7), (200, 8)):
            answer = fcntl.fcntl(file, _F_OFD_GETLK, _FLOCK.pack(
                fcntl.F_WRLCK, os.SEEK_SET, first, count, 0))
            if _FLOCK.unpack(answer)[0] != fcntl.F_UNLCK:
                return True
    return False


@contextlib.contextmanager
def held(path: Path, fmt: str) -> Iterator[None]:
    """Another process has the image open, and its locks for writing."""
    with subprocess.Popen([QEMU_BIN / 'qemu-io', '-f', fmt, path],
                          stdin=subprocess.PIPE,
                          stdout=subprocess.DEVNULL) as holder:
        try:
            deadline = time.monotonic() + _HOLDER_PATIENCE
            while not is_locked(path):
                expect(holder.poll() is None and time.monotonic() < deadline,
                       'qemu-io cannot open the image')
                time.sleep(0.002)
            yield
        finally:
            holder.communicate()    # it ends at the end of its input


@contextlib.contextmanager
def reading(url: str) -> Iterator[subprocess.Popen]:
    """A process that reads an export, as fast as it can, until an error."""
    with subprocess.Popen([QEMU_BIN / 'qemu-img', 'bench', '-f', 'raw',
                           '-c', '1000000000', '-d', '4', url],
                          stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as reader:
        try:
            yield reader
        finally:
            reader.kill()


@contextlib.contextmanager
def content(path: Path, fmt: str) -> Iterator[mmap.mmap]:
    """The disk in an image that no VM uses, as a guest would see it."""
    raw = path
    if fmt != 'raw':
        raw = path.with_suffix('.content')
        subprocess.run([QEMU_BIN / 'qemu-img', 'convert', '-f', fmt,
                        '-O', 'raw', path, raw], check=True)
    try:
        with open(raw, 'rb') as file, \
             mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as disk:
            yield disk
    finally:
        if raw != path:
            raw.unlink(missing_ok=True)


def supports_direct_io(directory: Path) -> bool:
    """Can files there be opened with O_DIRECT? Not so on some tmpfs."""
    probe = directory / 'direct-io-probe'
    try:
        os.close(os.open(probe, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600))
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True
