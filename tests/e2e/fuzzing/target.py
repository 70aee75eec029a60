"""
The VM that is fuzzed: a Linux guest that writes to three disks all the time, a
network card, and places to plug in more.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import shutil
import time
from pathlib import Path

from harness import image
from harness.guest import PATIENCE, Guest
from harness.tap import expect

from . import network
from .monitor import Monitor

# all alike, because jobs demand it
_SIZE = 8 << 20
DISKS = ('disk0.raw', 'disk1.qcow2', 'disk2.qcow2')
# files that commands may open, and write to
SPARES = ('x0.raw', 'x1.qcow2', 'x2.raw', 'x3.qcow2')
# for vhost-user-blk exports
_SERVED = 'served.raw'
_RECORDER = 'recorder 1 2 -q /dev/vda /dev/vdb /dev/sda'


def format_of(name: str) -> str:
    """The image format, by the file name."""
    return name.rpartition('.')[2]


class Target(Guest):
    """The QEMU process."""

    def __init__(self, work: Path, with_tap: bool) -> None:
        self.work = work
        # all that QEMU may write to while it is not quiesced
        self.images = work / 'images'
        self.frames = work / 'frames'
        super().__init__(work, memory='96M', args=[
            '-smp', '1,maxcpus=3', '-no-shutdown',
            '-action', 'reboot=reset',
            *self._monitor_args(), *self._disk_args(),
            *self._network_args(with_tap),
            '-device', 'pvpanic-pci', '-device', 'virtio-balloon-pci,id=ball'])
        self.monitors: list[Monitor] = []
        self._answered = 0

    def _monitor_args(self) -> list[str]:
        return [arg for i in range(2) for arg in (
            '-qmp', f'unix:{self.work}/qmp{i},server=on,wait=off')]

    # No disk has an iothread. Upstream asserts in bdrv_insert_node() when
    # block-stream puts a filter above a node that is in one, and may leave it.
    def _disk_args(self) -> list[str]:
        def node(disk: int, fmt: str) -> str:
            return (f'driver={fmt},node-name=disk{disk},file.driver=file,'
                    f'file.node-name=disk{disk}-file,'
                    f'file.filename={self.images}/{DISKS[disk]}')

        return ['-object', 'iothread,id=io0',
                '-object', 'throttle-group,id=tg0',
                '-blockdev', node(0, 'raw'),
                '-device', 'virtio-blk-pci,drive=disk0,id=vd0,'
                'werror=stop,rerror=stop',
                '-blockdev', node(1, 'qcow2'),
                '-device', 'virtio-blk-pci,drive=disk1,id=vd1',
                '-blockdev', node(2, 'qcow2'),
                '-blockdev', 'driver=throttle,node-name=disk2-throttle,'
                'throttle-group=tg0,file=disk2',
                '-device', 'virtio-scsi-pci,id=scsi0',
                '-device', 'scsi-hd,drive=disk2-throttle,id=sd0',
                '-blockdev', 'driver=raw,node-name=served,file.driver=file,'
                f'file.filename={self.images}/{_SERVED}',
                *(arg for i in range(3) for arg in (
                    '-device', f'pcie-root-port,id=rp{i},slot={i + 1}'))]

    def _network_args(self, with_tap: bool) -> list[str]:
        args = ['-netdev', 'hubport,id=port1,hubid=0',
                '-device', 'virtio-net-pci,netdev=port1,id=nic0']
        if with_tap:
            # A filter takes frames also while the VM is stopped.
            args += ['-netdev', f'tap,id=tap0,ifname={network.TAP},'
                     'script=no,downscript=no',
                     '-netdev', 'hubport,id=port0,hubid=0,netdev=tap0',
                     '-chardev', f'socket,id=frames,path={self.frames},'
                     'server=on,wait=off',
                     '-object', 'filter-redirector,id=filter0,netdev=tap0,'
                     'queue=rx,indev=frames']
        return args

    def make_images(self) -> None:
        """New images, in place of those of a former VM."""
        shutil.rmtree(self.images, ignore_errors=True)
        self.images.mkdir()
        for name in (*DISKS, *SPARES, _SERVED):
            image.create(self.images / name, format_of(name), _SIZE)

    def connect(self) -> None:
        """Open the two monitors."""
        self.monitors = [Monitor(self.work / f'qmp{i}') for i in range(2)]

    def keep_writing(self) -> None:
        """Have the guest write whenever it has booted again."""
        ready = sum(line == 'READY' for _, line in list(self.channel.lines))
        if ready > self._answered:
            self._answered = ready
            self.channel.send(_RECORDER)

    def make_template(self, path: Path) -> None:
        """Save a guest that writes to empty disks."""
        self.make_images()
        with self:
            self.boot()
            self.keep_writing()
            deadline = time.monotonic() + PATIENCE
            while not all(count for count, *_ in self.writes()):
                expect(time.monotonic() < deadline,
                       'the guest does not write to each disk')
                time.sleep(0.05)
            self.save(path)
