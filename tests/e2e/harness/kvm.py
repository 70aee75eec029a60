"""
Does Linux boot under KVM here? A software KVM may take minutes for it, or
never get there, so this is found out in the background.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import os
import signal
import threading
from pathlib import Path

from .guest import Guest
from .tap import Failure, Skip

_LIMIT_S = 40


class KvmProbe(contextlib.ExitStack):
    """Boots a guest under KVM, while the caller does other things."""

    def __init__(self, work: Path) -> None:
        super().__init__()
        self._why_not = ''
        self._vm: Guest | None = None
        if not os.access('/dev/kvm', os.R_OK | os.W_OK):
            self._why_not = '/dev/kvm cannot be used'
            return
        self._vm = Guest(work, accel='kvm')
        self.callback(self._vm.kill)
        try:
            self._vm.launch()
        except Exception as err:        # pylint: disable=broad-except
            self._why_not = f'QEMU does not start: {err}'.splitlines()[0]
            self._vm = None
            return
        # do not let it use up a CPU while other cases run
        self._timer = threading.Timer(_LIMIT_S, os.kill, (
            self._vm.get_pid(), signal.SIGKILL))
        self._timer.start()
        self.callback(self._timer.cancel)

    def require(self) -> None:
        """Skip the case that calls this if there is no usable KVM."""
        if self._vm:
            try:
                self._vm.channel.wait(lambda line: line == 'READY', 'READY',
                                      patience=_LIMIT_S)
            except Failure:
                self._why_not = ('Linux does not boot under this KVM in '
                                 f'{_LIMIT_S} s')
            self._timer.cancel()
            self._vm.kill()
            self._vm = None
        if self._why_not:
            raise Skip(self._why_not)
