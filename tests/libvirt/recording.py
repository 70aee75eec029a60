"""
What was recorded: QMP commands of libvirt, and how it had started QEMU.

`commands.jsonl` has a command per line, in the order in which they were sent,
each with the occasion ("when"); `arguments` has an argument of QEMU per line.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
_COMMANDS = HERE / 'commands.jsonl'
_ARGUMENTS = HERE / 'arguments'

# stands for the directory where sockets and images are
WORK = '@WORK@'

Sections = dict[str, list[dict]]


def save(version: str, sections: Sections, arguments: list[str]) -> None:
    """Replace what was recorded before."""
    lines = [{'libvirtd': version}]
    lines += [{'when': when, **command}
              for when, commands in sections.items() for command in commands]
    _COMMANDS.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    _ARGUMENTS.write_text(''.join(line + '\n' for line in arguments))


def load(work: Path) -> tuple[str, Sections, list[str]]:
    """The version of libvirtd, the commands, and QEMU's arguments."""
    def lines(path: Path) -> list[str]:
        return path.read_text().replace(WORK, str(work)).splitlines()

    first, *commands = map(json.loads, lines(_COMMANDS))
    sections: Sections = {}
    for command in commands:
        sections.setdefault(command.pop('when'), []).append(command)
    return first['libvirtd'], sections, lines(_ARGUMENTS)
