"""
A host with an IOMMU and a network card, which is assigned to the guest of the
inner QEMU. The outer QEMU emulates the card and the errors of its link.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from .host import PATIENCE, RAM, Host
from .monitor import Monitor
from .process import until
from .tap import Skip, expect

# the root port, and behind it the card, on the host
_PORT, CARD = '0000:00:04.0', '0000:01:00.0'
# the card in the guest
GUEST_CARD = '0000:02:00.0'
CARD_PATH = '/machine/peripheral/card'
_CONFIG = '/sys/bus/pci/devices/{}/config'
_FRAME = (b'\xff' * 6 + b'\x52\x54\x00\x00\x00\x01' + b'\x88\xb5'
          + b'qemu-failsafe' * 16)


class Assigned(Host):
    """A host with an inner QEMU that has the card."""

    def __init__(self, work: Path, args: Sequence[str] = (),
                 guest: bool = False) -> None:
        """With @guest it runs Linux, which uses the card; else firmware."""
        # frames that go to the card
        self._wire, card_end = socket.socketpair(socket.AF_UNIX,
                                                 socket.SOCK_DGRAM)
        self._outer = Monitor('outer')
        os.set_inheritable(card_end.fileno(), True)
        # One CPU: TCG of QEMU 10.2 ends with a failed assertion when a CPU
        # moves a BAR while another one accesses a device.
        super().__init__(work, (
            '-smp', '1', '-device', 'intel-iommu,intremap=on',
            *self._outer.args(),
            '-device', 'pcie-root-port,id=root,addr=4',
            '-netdev', 'dgram,id=wire,local.type=fd,'
            f'local.str={card_end.fileno()}',
            '-device', 'e1000e,netdev=wire,bus=root'),
            (self._outer.qemu_fd(), card_end.fileno()),
            # on a loaded machine the timer looks as if it did not work
            'intel_iommu=on no_timer_check')
        card_end.close()
        self.callback(self._outer.close)
        self.callback(self._wire.close)
        with contextlib.ExitStack() as failed:
            failed.enter_context(self)
            self._outer.connect(PATIENCE)
            self.booted()
            self._assign()
            self._boot(args, guest)
            failed.pop_all()

    def _assign(self) -> None:
        """Have the host handle errors, and give the card away."""
        if not self.run('ls /sys/kernel/iommu_groups'):
            raise Skip("the host's kernel does not use the IOMMU")
        if not self.run('dmesg | grep "AER: enabled"'):
            raise Skip("the host's kernel does not handle AER")
        # Bridge control: errors go through the port. Firmware would do that.
        self.run(r"printf '\002' | dd bs=1 seek=62 conv=notrunc of="
                 + _CONFIG.format(_PORT))
        said = self.run(
            f'echo vfio-pci >/sys/bus/pci/devices/{CARD}/driver_override; '
            f'echo {CARD} >/sys/bus/pci/drivers_probe; ls -1 /dev/vfio')
        if not any(line.isdigit() for line in said):
            raise Skip(f"the host's kernel cannot assign a device: {said}")

    def _boot(self, args: Sequence[str], guest: bool) -> None:
        kernel = ('-kernel /guest/vmlinuz -initrd /guest/assigned '
                  "-append 'console=ttyS1 quiet panic=-1'" if guest else '')
        # The card is not where it is on the host
        self.start(kernel, '-device pcie-root-port,id=port1,chassis=1',
                   '-device pcie-root-port,id=port2,chassis=2',
                   f'-device vfio-pci,id=card,host={CARD},bus=port2,romfile=',
                   # not the end of it, as it is in other rigs
                   '-action reboot=reset', *args)
        if guest:
            self.console.wait(lambda line: line == 'READY', 'the guest boots',
                              patience=PATIENCE)
            self.guest('ip link set eth0 up')
            until(self.link_is_up, 'the link comes up', PATIENCE)
        else:
            self._await_firmware()

    def _await_firmware(self) -> None:
        until(lambda: 'Bus  2' in self.monitor.hmp('info pci'),
              'the firmware finds the card', PATIENCE)

    def reset(self) -> None:
        """Reset the guest, of which there is only the firmware."""
        self.monitor.execute('system_reset')
        self.monitor.execute('cont')
        self._await_firmware()

    def guest(self, command: str) -> list[str]:
        """What a command says in the guest."""
        return self.said(self.console, command)

    def link_is_up(self) -> bool:
        """Does the guest's Linux see a link?"""
        return self.guest('cat /sys/class/net/eth0/carrier') == ['1']

    def received(self) -> int:
        """How many frames the guest has received."""
        count, = self.guest('cat /sys/class/net/eth0/statistics/rx_packets')
        return int(count)

    def fail(self, error: str) -> None:
        """The link to the card has an uncorrectable error."""
        said = self._outer.hmp(f'pcie_aer_inject_error root {error}')
        expect(said.startswith('OK'), said)

    def take_back(self) -> None:
        """The host takes the card from the QEMU; this does not wait."""
        self._commands.send(f'echo {CARD} '
                            '>/sys/bus/pci/drivers/vfio-pci/unbind; '
                            'echo UNBOUND; exec sleep 99999')

    def taken_back(self) -> bool:
        """Has it got it?"""
        # perhaps in a line with what the inner QEMU says
        return any('UNBOUND' in line for _, line in list(self._commands.lines))

    def masters_bus(self) -> bool:
        """May the card do DMA, says the host?"""
        command, = self.run("hexdump -s 4 -n 2 -e '1/2 \"%u\\n\"' "
                            + _CONFIG.format(CARD))
        return bool(int(command) & 4)

    def send(self, count: int) -> None:
        """Send frames to the card, and wait for a second."""
        for _ in range(count):
            self._wire.send(_FRAME)
            # no more than the card takes
            time.sleep(0.01)
        time.sleep(1)

    def memory(self) -> str:
        """A checksum of the guest's memory."""
        line, = self.run(f'md5sum {RAM}')
        return line
