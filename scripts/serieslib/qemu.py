# SPDX-License-Identifier: GPL-2.0-or-later
"""Compile a source tree, and run the test programs built from it."""

import os
import subprocess
from pathlib import Path

from . import tap

SCRIPT = Path(__file__).parents[1] / 'build-qemu.sh'
# The longest of upstream's own limits for the programs run here.
TEST_TIMEOUT = 900


def compile_source(source, build, targets=(), **run):
    """Configure if needed, and build; return the finished process."""
    return subprocess.run([SCRIPT, source, build, *targets], check=False,
                          **run)


def run_test(build, test, verbose=False, environment=None):
    """Run one unit test or qtest, as `meson test` would; return a Count."""
    build = Path(build).absolute()
    env = dict(os.environ,
               G_TEST_SRCDIR=str(build.parent / 'src/tests/unit'),
               G_TEST_BUILDDIR=str(build / 'tests/unit'),
               QTEST_QEMU_BINARY=str(build / 'qemu-system-x86_64'),
               QTEST_QEMU_IMG=str(build / 'qemu-img'),
               QTEST_QEMU_STORAGE_DAEMON_BINARY=str(
                   build / 'storage-daemon/qemu-storage-daemon'),
               PYTHON='/usr/bin/python3') | (environment or {})
    return tap.run(test.rpartition('/')[2], [build / test, '--tap', '-k'],
                   TEST_TIMEOUT, verbose, cwd=build, env=env)
