"""
A QEMU process under the control of a test, whatever runs in it.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import time
from pathlib import Path

from .paths import QEMU_BIN, SYSTEM
from .tap import Failure, expect

from qemu.machine import QEMUMachine    # pylint: disable=wrong-import-order

# No promise is about time: this only ends a test that hangs.
PATIENCE = 90.0


class Machine(QEMUMachine):
    """A QEMU process."""

    def __init__(self, work: Path, name: str,
                 binary: Path = QEMU_BIN / SYSTEM) -> None:
        # the kernel kills QEMU if the test cannot end it any more
        super().__init__(str(binary), name=f'{name}-{id(self):x}',
                         base_temp_dir=str(work), qmp_timer=PATIENCE,
                         wrapper=('setpriv', '--pdeathsig', 'KILL'))
        # the longest that a vm-quiesce has taken
        self.quiesced_ms = 0.0

    def __exit__(self, exc_type: type[BaseException] | None,
                 *_: object) -> None:
        # after a failure nothing is learnt from a QEMU that does not quit
        self.shutdown(hard=exc_type is not None)

    def status(self) -> str:
        """The run state."""
        return self.cmd('query-status')['status']

    def quiesce(self, reason: str = 'test') -> dict:
        """vm-quiesce, and wait for the promise; the event."""
        token = self.cmd('vm-quiesce', reason=reason)['token']
        return self.await_quiesced(token)

    def await_quiesced(self, token: str) -> dict:
        """The VM_QUIESCED event of this token."""
        event = self.await_outcome(token)
        expect(event['event'] == 'VM_QUIESCED', event)
        self.quiesced_ms = max(self.quiesced_ms, event['data']['duration-ms'])
        return event

    def await_outcome(self, token: str, late: bool = False) -> dict:
        """
        The event of this token that says how an attempt went. If it is known
        to be @late, another one came before and is of no interest.
        """
        names = ['VM_QUIESCED'] + ([] if late else ['VM_QUIESCE_FAILED'])
        wanted = [(name, {'data': {'token': token}}) for name in names]
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            # nobody tells who waits for an event that QEMU has ended
            expect(self.is_running(), 'QEMU has ended')
            with contextlib.suppress(TimeoutError):
                # only a float is taken for a time limit
                event = self.events_wait(wanted, 1.0)
                assert event
                return event
        raise Failure(f'no {" or ".join(names)} in {PATIENCE} s')

    def unquiesce(self, event: dict) -> None:
        """Undo the quiesce that has sent this event; the VM is paused."""
        self.cmd('vm-unquiesce', token=event['data']['token'])
