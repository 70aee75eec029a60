"""
What a guest does with the ports of a "pc" machine, as scripts of the tiny
guest.

SPDX-License-Identifier: GPL-2.0-or-later
"""

from .tiny import BUFFERS, Script

_PM_BASE = 0x600
_PM_SLOT, _PM_FUNCTION = 1, 3
_SLP_EN = 1 << 13
_IDE = 0x1f0


def _power_management(script: Script, sleep_type: int) -> None:
    """Give the PIIX4 an address, as firmware does, and change the state."""
    script.pci(_PM_SLOT, 0x40, _PM_BASE | 1, function=_PM_FUNCTION)
    script.pci(_PM_SLOT, 0x80, 1, 'outb', function=_PM_FUNCTION)
    script.add('outw', _PM_BASE + 4, _SLP_EN | sleep_type << 10)


def power_off(script: Script) -> None:
    """ACPI state S5."""
    _power_management(script, 0)


def suspend(script: Script) -> None:
    """ACPI state S3."""
    _power_management(script, 1)


def reset(script: Script) -> None:
    """By the reset control register."""
    script.add('outb', 0xcf9, 6)


def keyboard_reset(script: Script) -> None:
    """By the keyboard controller."""
    script.add('outb', 0x64, 0xfe)


def panic(script: Script) -> None:
    """Needs -device pvpanic."""
    script.add('outb', 0x505, 1)


def watchdog(script: Script) -> None:
    """Have it bite at once; needs -device ib700."""
    script.add('outb', 0x443, 0xf)


def eject_cpu(script: Script, index: int) -> None:
    """What a guest does last when a vCPU is unplugged."""
    # a write of zero switches the registers to their present layout
    script.add('outb', 0xaf00, 0)
    script.add('outl', 0xaf00, index)
    script.add('outb', 0xaf04, 1 << 3)


def write_sector(script: Script, sector: int) -> None:
    """Write 512 bytes that are never the same to the IDE disk."""
    script.add('increment', value=BUFFERS)
    for register, value in enumerate((1, sector & 0xff, sector >> 8 & 0xff,
                                      sector >> 16, 0xe0, 0x30), 2):
        script.add('outb', _IDE + register, value)
    # not busy, and wants data; then not busy any more
    script.add('await_port', _IDE + 7, 0x08, 0x88)
    script.add('outs', _IDE, BUFFERS, 256)
    script.add('await_port', _IDE + 7, 0, 0x80)
