"""
Where the things under test are. Each place has a default in the build
directory and an environment variable that overrides it.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]


def _place(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or REPO / 'build' / default)


# qemu-system-x86_64, qemu-img, ... of the series, and unpatched ones
QEMU_BIN = _place('QEMU_BIN', 'bin')
QEMU_UPSTREAM_BIN = _place('QEMU_UPSTREAM_BIN', 'upstream/bin')
# the "python" directory of a QEMU source tree, for qemu.qmp and qemu.machine
QEMU_PYTHON = _place('QEMU_PYTHON', 'src/python')
# a vhost-user back end for tests
BRIDGE = _place('VHOST_USER_BRIDGE', 'qemu/tests/vhost-user-bridge')
# where the guest's kernel and initramfs are built
GUEST = _place('E2E_GUEST', 'e2e-guest')
# where tests leave rows for docs/failures.md
FAULTS = _place('FAULTS_ROWS', 'faults')

SYSTEM = 'qemu-system-x86_64'

sys.path.insert(0, str(QEMU_PYTHON))


def require(*paths: Path) -> None:
    """End with a clear message if one of the paths is not there."""
    for path in paths:
        if not path.exists():
            sys.exit(f'{path} is not there: run "make" first, or set '
                     'QEMU_BIN, QEMU_UPSTREAM_BIN, QEMU_PYTHON')


def build_guest(*options: str) -> None:
    """Make the guests, unless they are up to date."""
    build = REPO / 'tests' / 'e2e' / 'guest' / 'build'
    if subprocess.run([build, GUEST, *options], check=False).returncode:
        sys.exit('the guest image cannot be built')
