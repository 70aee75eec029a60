"""
Promised: once VM_QUIESCED has come, another QEMU may use the disk at once,
without fencing. No acknowledged record is missing or torn, none appears twice,
and two writers never exist.

Measured: chains of takeovers. In each, a Linux guest appends records to a disk
on several streams; at a random moment it is quiesced, and another QEMU process
takes the disk over and goes on where the records end. When VM_QUIESCED comes,
no lock is held on the image. In every other takeover, at random, the next VM
starts immediately; in the others the file must not change by a byte while the
quiesced VM is given every command that could make it write. In all of them the
quiesced VM is given these commands while the new one writes, too, it must not
get its locks back, it must count no further write, and it must end when told
to. After each chain all records are checked (harness/records.py) against what
the guests reported.

The next VM is either loaded, before the takeover, with a guest that was saved
when it had booted (warm), or booted afterwards (cold).

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from harness.chain import Chain
from harness.guest import CONTROLLERS, Controller, Disk
from harness.rig import Rig
from harness.tap import expect, note

# controller, format, warm, and the share of the takeovers
_CHAINS = (
    ('virtio-blk', 'raw', True, 10),
    ('virtio-blk', 'qcow2', False, 4),
    ('virtio-blk with an iothread', 'qcow2', True, 8),
    ('virtio-blk without ioeventfd', 'raw', True, 6),
    ('virtio-scsi', 'raw', True, 6),
    ('virtio-scsi', 'qcow2', True, 6),
    ('ide', 'raw', True, 6),
    ('ide', 'qcow2', True, 6),
    ('nvme', 'raw', False, 4),
    ('nvme', 'qcow2', False, 4),
)
_SHARES = sum(share for *_, share in _CHAINS)


@dataclass
class Series:
    """All takeovers of one run of the tests."""
    rig: Rig
    rng: random.Random
    takeovers: int = 0


class _Takeovers(Chain):
    """A chain in which each VM is taken over by the next one."""

    def __init__(self, series: Series, disk: Disk, warm: bool) -> None:
        super().__init__(series.rig, series.rng, disk, warm)
        self._series = series

    def run(self, takeovers: int) -> None:
        """The given number of takeovers, and the check of the whole disk."""
        with contextlib.ExitStack() as stack:
            old = stack.enter_context(self.next_vm())
            self.start(old)
            for _ in range(takeovers):
                new = stack.enter_context(self.next_vm())
                event = self.quiesce(old)
                writes = old.writes()
                if self._rng.random() < 0.5:
                    self.linger(old)
                self.start(new)
                self.outlive(old, event['data']['token'], writes)
                self.end(old)
                self._series.takeovers += 1
                old = new
            self.quiesce(old)
            self.end(old)
            note(self.report([]))


def _chain(series: Series, controller: Controller, fmt: str, warm: bool,
           takeovers: int) -> None:
    disk = series.rig.disk(controller, fmt)
    try:
        _Takeovers(series, disk, warm).run(takeovers)
    finally:
        disk.image.unlink()


def cases(series: Series, rounds: int) -> list[tuple[str,
                                                     Callable[[], None]]]:
    """At least @rounds takeovers, over all controllers and formats."""
    result: list[tuple[str, Callable[[], None]]] = []
    for name, fmt, warm, share in _CHAINS:
        count = -(-rounds * share // _SHARES)
        result.append((
            f'{count} {"warm" if warm else "cold"} takeovers, {fmt} on {name}',
            lambda controller=CONTROLLERS[name], fmt=fmt, warm=warm,
            count=count: _chain(series, controller, fmt, warm, count)))

    def enough() -> None:
        expect(series.takeovers >= rounds,
               f'{series.takeovers} takeovers of {rounds} were made')

    result.append((f'at least {rounds} takeovers in all', enough))
    return result


def under_kvm(series: Series) -> None:
    """A few takeovers where vCPUs run by themselves."""
    _chain(series, CONTROLLERS['virtio-blk'], 'raw', True, 8)
