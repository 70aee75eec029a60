# SPDX-License-Identifier: GPL-2.0-or-later
"""patches/upstream.mk: which upstream the series is made against."""

import re

from .git import Failure
from .snapshot import PIN, File

_LINE = re.compile(r'^(QEMU_\w+) *:= *(.*?) *$', re.M)
NAMES = ('QEMU_VERSION', 'QEMU_TAG', 'QEMU_DEBIAN_VERSION',
         'QEMU_DEBIAN_SUITE', 'QEMU_TARBALL', 'QEMU_SHA256')


def read(files):
    """The values of the pin of a snapshot."""
    if PIN not in files:
        raise Failure(f'{PIN}: missing')
    values = dict(_LINE.findall(files[PIN].data.decode()))
    for name in NAMES:
        if name not in values:
            raise Failure(f'{PIN}: no line "{name} := ..."')
    return values


def update(files, values):
    """The file with some values replaced, comments kept."""
    def replace(match):
        name = match[1]
        return f'{name} := {values.get(name, match[2])}'.rstrip()
    text = _LINE.sub(replace, files[PIN].data.decode())
    return File('100644', text.encode())
