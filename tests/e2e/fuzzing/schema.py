"""
Wrong arguments, made from what QEMU says of its commands.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import random
from typing import Any

_ODD = (None, True, -1, 0, 1 << 63, 1.5, '', 'disk0', '\u0000', 'x' * 4096,
        [], {}, [{}], {'x': {}}, ['disk0'])
# They end the process, as they should.
_NEVER = {'quit', 'x-exit-preconfig'}


class Schema:
    """The commands of a QEMU, and their members."""

    def __init__(self, answer: list[dict]) -> None:
        entities = {entity['name']: entity for entity in answer}
        self._members = {
            name: [member['name'] for member in
                   entities[entity['arg-type']].get('members', [])]
            for name, entity in entities.items()
            if entity['meta-type'] == 'command' and name not in _NEVER}
        self._required = {
            name: any('default' not in member for member in
                      entities[entities[name]['arg-type']].get('members', []))
            for name in self._members}

    def malformed(self, rng: random.Random) -> tuple[str, Any]:
        """A command with arguments that cannot be right."""
        name = rng.choice(sorted(self._members))
        members = {member: rng.choice(_ODD)
                   for member in self._members[name] if rng.random() < 0.8}
        choice = rng.random()
        if choice < 0.1:
            return name, rng.choice(([], 'x', 1, None))
        if choice < 0.2 and self._required[name]:
            return name, {}
        # This member alone makes it wrong, whatever the others are.
        members['no-such-member'] = rng.choice(_ODD)
        return name, members
