"""
A writer for initramfs archives (cpio "newc", see the kernel's
Documentation/driver-api/early-userspace/buffer-format.rst). The same content
gives the same bytes: no dates and no inode numbers of the host are in it.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import stat


class Initramfs:
    """Collects files; bytes() of it is the archive."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._inode = 0
        self._dirs: set[str] = set()

    def _entry(self, name: str, mode: int, data: bytes = b'') -> None:
        self._inode += 1
        raw = name.encode() + b'\0'
        fields = (self._inode, mode, 0, 0, 1, 0, len(data),
                  0, 0, 0, 0, len(raw), 0)
        self._out += b'070701' + b''.join(b'%08X' % f for f in fields) + raw
        self._pad()
        self._out += data
        self._pad()

    def _pad(self) -> None:
        self._out += bytes(-len(self._out) % 4)

    def add(self, path: str, data: bytes, executable: bool = False) -> None:
        """Add a file, and the directories that lead to it."""
        parts = path.split('/')
        for depth in range(1, len(parts)):
            parent = '/'.join(parts[:depth])
            if parent not in self._dirs:
                self._dirs.add(parent)
                self._entry(parent, stat.S_IFDIR | 0o755)
        self._entry(path, stat.S_IFREG | (0o755 if executable else 0o644),
                    data)

    def __bytes__(self) -> bytes:
        end = Initramfs()
        end._entry('TRAILER!!!', 0)
        return bytes(self._out + end._out)
