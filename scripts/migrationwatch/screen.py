"""
Where migration-watch writes: a log, and below it, on a terminal, one line that
is written over and over.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import shutil
import time
from typing import TextIO

# Without a terminal the progress is a line of the log now and then, unless
# there are others.
_PLAIN_INTERVAL_S = 10


class Screen:
    """The log, and the line below it."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty() and os.environ.get('TERM') != 'dumb'
        self._shown = ''
        self._last = time.monotonic()

    def log(self, text: str) -> None:
        """Lines that stay."""
        self._erase()
        print(text, file=self._out, flush=True)
        self._last = time.monotonic()

    def progress(self, text: str) -> None:
        """The line that is written over by the next one."""
        if self._terminal:
            width = shutil.get_terminal_size().columns
            # a full line would wrap on some terminals
            text = text[:width - 1]
            if text != self._shown:
                print(f'\r{text}\x1b[K', end='', file=self._out, flush=True)
                self._shown = text
        elif time.monotonic() - self._last >= _PLAIN_INTERVAL_S:
            self.log(text)

    def close(self) -> None:
        """Leave nothing but the log."""
        self._erase()

    def _erase(self) -> None:
        if self._shown:
            print('\r\x1b[K', end='', file=self._out, flush=True)
            self._shown = ''
