"""
A QEMU process under the control of a test, whatever runs in it.

SPDX-License-Identifier: GPL-2.0-or-later
"""

from pathlib import Path

from .paths import QEMU_BIN, SYSTEM
from .tap import Failure, expect

from qemu.machine import QEMUMachine    # pylint: disable=wrong-import-order

# No promise is about time: this only ends a test that hangs.
PATIENCE = 90


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
        try:
            event = self.events_wait(
                [('VM_QUIESCED', {'data': {'token': token}}),
                 ('VM_QUIESCE_FAILED', None)], PATIENCE)
        except TimeoutError:
            raise Failure('neither VM_QUIESCED nor VM_QUIESCE_FAILED in '
                          f'{PATIENCE} s') from None
        expect(event['event'] == 'VM_QUIESCED', event)
        self.quiesced_ms = max(self.quiesced_ms, event['data']['duration-ms'])
        return event

    def unquiesce(self, event: dict) -> None:
        """Undo the quiesce that has sent this event; the VM is paused."""
        self.cmd('vm-unquiesce', token=event['data']['token'])
