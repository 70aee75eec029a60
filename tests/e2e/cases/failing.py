"""
Promised: with action quiesce for I/O errors, a guest whose disk fails is not
told. The VM is contained at once; when it is continued, the disk has done what
it failed to do.

Measured, with a Linux guest that writes to a disk, for each kind of disk: some
writes fail, and the VM is quiesced, with as many requests held as have failed.
Continued, the guest goes on; its kernel has not said a word, and all that it
was told is written is on its disk.

SPDX-License-Identifier: GPL-2.0-or-later
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import image
from harness.guest import CONTROLLERS, Controller, Disk, Guest
from harness.machine import PATIENCE
from harness.records import check
from harness.rig import STREAMS
from harness.served import PAGE, write_pages
from harness.tap import expect, note

_SIZE = 512 << 20
_FAILURES = 3
_RULE = ('-object', 'hw-error-rule,id=rule,source=block-io,action=quiesce')
_CONTROLLERS = ('virtio-blk', 'virtio-scsi', 'ide', 'nvme')


@dataclass(frozen=True)
class _FailingDisk(Disk):
    """A raw image whose last page cannot be written at first."""

    def args(self) -> list[str]:
        failures = ''.join(
            f',inject-error.{i}.event=none,inject-error.{i}.iotype=write,'
            f'inject-error.{i}.once=on,inject-error.{i}.sector={_SIZE // 512}'
            for i in range(_FAILURES))
        return ['-blockdev', f'file,node-name=file,filename={self.image}',
                '-blockdev', f'blkdebug,node-name=disk,image=file{failures}',
                *self.controller.args]


def _contained(guest: Guest) -> None:
    """The next failure; the VM is paused afterwards."""
    quiesced = guest.event_wait('VM_QUIESCED', PATIENCE)
    event = guest.event_wait('HARDWARE_ERROR', PATIENCE)
    assert quiesced and event
    data = event['data']
    info = data['info']
    expect(info['source'] == 'block-io' and info['operation'] == 'write', info)
    expect(info['offset'] <= _SIZE < info['offset'] + info['length'], info)
    expect(data['contained'] and data['outcome'] == 'quiesced', data)
    expect(quiesced['data']['held-requests'] == 1, quiesced)
    expect(guest.status() == 'quiesced', guest.status())
    guest.unquiesce(quiesced)


def held(work: Path, controller: Controller) -> None:
    """A disk that fails, and then does not."""
    disk = _FailingDisk(
        image.create(work / 'failing.raw', 'raw', _SIZE + PAGE), 'raw',
        controller, False)
    log = work / 'kernel.log'
    with Guest(work, disk, kernel_log=log, args=_RULE) as guest:
        guest.boot()
        guest.record(STREAMS)
        guest.wait_for_progress(STREAMS)
        # there may be errors and warnings of the boot
        said = log.stat().st_size
        guest.channel.send(write_pages(guest, _SIZE))
        for _ in range(_FAILURES):
            _contained(guest)
            guest.cmd('cont')
        guest.wait_for_progress(STREAMS)
        expect(log.stat().st_size == said, log.read_text()[said:])
        event = guest.quiesce()
        expect(event['data']['held-requests'] == 0, event)
        guest.shutdown()
        guest.channel.drain()
        with image.content(disk.image, 'raw') as content:
            report = check(content, STREAMS, [0], guest.acknowledged())
        expect(not report.problems, report)
        note(report)
    disk.image.unlink()


def cases(work: Path) -> list[tuple[str, Callable[[], None]]]:
    """All cases."""
    return [(f'a guest is not told of failed writes ({name})',
             lambda name=name: held(work, CONTROLLERS[name]))
            for name in _CONTROLLERS]
