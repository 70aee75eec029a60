"""
How the demo speaks.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import sys

BOLD, RED, GREEN, DIM = '1', '31', '32', '2'


def paint(text: str, colour: str) -> str:
    """The text in a colour, if stdout shows colours."""
    if not sys.stdout.isatty() or os.environ.get('NO_COLOR'):
        return text
    return f'\033[{colour}m{text}\033[0m'


def say(text: str = '') -> None:
    """A line of the story."""
    print(text, flush=True)


def headline(text: str) -> None:
    """The title of a part of the story."""
    say()
    say(paint(text, BOLD))


def stamp(event: dict) -> float:
    """When QEMU sent an event, in seconds since the epoch."""
    when = event['timestamp']
    return when['seconds'] + when['microseconds'] / 1e6


class Timeline:
    """What happened when, in milliseconds from the first entry."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, str, str]] = []

    def add(self, when: float, who: str, what: str) -> None:
        """Entries may come in any order."""
        self._entries.append((when, who, what))

    def tell(self) -> None:
        """Print it."""
        self._entries.sort()
        start = self._entries[0][0]
        for when, who, what in self._entries:
            say(f'  {(when - start) * 1000:8.1f} ms  {who:5}  {what}')
