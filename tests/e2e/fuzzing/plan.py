"""
The sequence of steps of one episode. It follows from the seed alone, never
from what QEMU answers or how long that takes.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .commands import TABLE, TOKEN, Maker
from .schema import Schema

_MALFORMED = 0.06
# A guest that boots writes nothing.
_RESET = 0.04
_DEADLINES = (None, None, 1, 2, 10, 100, 5000)


@dataclass
class Send:
    """Send a command, and do not wait for the reply."""
    monitor: int
    command: str
    arguments: Any


@dataclass
class Pause:
    """Let this time pass."""
    seconds: float


class Settle:
    """Wait for all replies, and look at the VM if it is quiesced."""


Step = Send | Pause | Settle


class _Plan:
    """Makes the steps."""

    def __init__(self, rng: random.Random, schema: Schema,
                 work: Path) -> None:
        self._rng = rng
        self._schema = schema
        self._make = Maker(rng, work)
        self._weights = [weight for weight, *_ in TABLE]

    def _send(self, command: str, **arguments: Any) -> Send:
        return Send(self._rng.randrange(2), command, arguments)

    def _any(self) -> Send:
        if self._rng.random() < _MALFORMED:
            return Send(self._rng.randrange(2),
                        *self._schema.malformed(self._rng))
        (_, name, arguments), = self._rng.choices(TABLE, self._weights)
        return self._send(name, **arguments(self._make))

    def _some(self, most: int) -> Iterator[Step]:
        rng = self._rng
        for _ in range(rng.randrange(most)):
            yield self._any()
            if rng.random() < 0.4:
                yield Pause(rng.choice((0, 0.002, 0.01, 0.05)))
            elif rng.random() < 0.1:
                yield Settle()

    def _quiesce(self) -> Send:
        deadline = self._rng.choice(_DEADLINES)
        if self._rng.random() < 0.15:
            return self._send('human-monitor-command', **{
                'command-line': f'quiesce fuzz {deadline or 5000}'})
        return self._send('vm-quiesce', reason='fuzz', **(
            {'deadline-ms': deadline} if deadline else {}))

    def _prepare(self) -> Iterator[Step]:
        """Nodes without which most block commands would be refused."""
        for number in self._rng.sample(range(4), self._rng.randrange(4)):
            yield self._send('blockdev-add', **self._make.plain_node(number))
        yield Settle()

    def round(self) -> Iterator[Step]:
        """Once into the quiesced state, and out of it."""
        rng = self._rng
        yield Pause(rng.choice((0, 0.05, 0.2, 0.3)))
        yield from self._prepare()
        yield from self._some(14)
        yield self._quiesce()
        if rng.random() < 0.6:
            yield Settle()
            yield Pause(rng.choice((0, 0.02, 0.1)))
        yield from self._some(12)
        if rng.random() < 0.8:
            yield Settle()
        yield self._send('vm-unquiesce', token=TOKEN)
        if rng.random() < _RESET:
            yield Settle()
            # a VM that was shut down needs it before `cont`
            yield self._send('system_reset')
        yield self._send('cont')


def episode(rng: random.Random, schema: Schema, work: Path,
            commands: int) -> Iterator[Step]:
    """Steps, with about this number of commands among them."""
    plan = _Plan(rng, schema, work)
    sent = 0
    while sent < commands:
        for step in plan.round():
            sent += isinstance(step, Send)
            yield step
    yield Settle()
