"""
migration-watch as the tests run it.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from harness import paths
from harness.tap import Failure, expect

from fakeqemu import PATIENCE

TOOL = paths.QEMU_PYTHON.parent / 'scripts' / 'migration-watch'

_CONTROL = re.compile(r'[\x00-\x09\x0b-\x1f\x7f-\x9f]')


class Watched:
    """A migration-watch that runs."""

    def __init__(self, *args: object, terminal: bool = False,
                 **environment: str) -> None:
        self.out = ''
        self.terminal = terminal
        command = [sys.executable, str(TOOL), *map(str, args)]
        environ = {**os.environ, 'COLUMNS': '240', 'TERM': 'xterm',
                   **environment}
        if terminal:
            self._fd, writer = pty.openpty()
        else:
            self._fd, writer = os.pipe()
        # the kernel ends it if the test cannot any more
        self._process = subprocess.Popen(
            ['setpriv', '--pdeathsig', 'KILL', *command],
            stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE,
            env=environ)
        os.close(writer)

    def wait_for(self, text: str) -> None:
        """Until it has printed this."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.out:
            expect(time.monotonic() < deadline and self._read(),
                   f'it has not said "{text}":\n{self.out}')

    def _read(self) -> bool:
        if not select.select([self._fd], [], [], 1)[0]:
            return True
        # a terminal whose other side is closed gives EIO
        data = b''
        with contextlib.suppress(OSError):
            data = os.read(self._fd, 65536)
        self.out += data.decode()
        return bool(data)

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """As Ctrl-C does."""
        self._process.send_signal(number)

    def stop_reading(self) -> None:
        """As head does when it has enough."""
        os.close(self._fd)
        self._fd = os.open(os.devnull, os.O_RDONLY)

    def end(self, status: int) -> str:
        """It ends with this exit status; what it has said on stderr."""
        deadline = time.monotonic() + PATIENCE
        while self._read():
            expect(time.monotonic() < deadline, f'it goes on:\n{self.out}')
        try:
            _, err = self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired as expired:
            raise Failure('it does not end') from expired
        error = err.decode()
        expect(self._process.returncode == status,
               f'exit status {self._process.returncode}, not {status}\n'
               f'{self.out}\n{error}')
        expect('Traceback' not in error and 'Exception' not in error, error)
        control = set() if self.terminal else set(_CONTROL.findall(self.out))
        expect(not control, f'control characters {control}: {self.out!r}')
        return error

    def fail(self, *words: str) -> None:
        """It ends with status 2 and one line that has these words."""
        error = self.end(2)
        line, rest = error.split('\n', 1)
        expect(line.startswith('migration-watch: ') and not rest,
               f'not one line: {error}')
        for word in words:
            expect(word in line, f'"{word}" is not in: {line}')

    def close(self) -> None:
        """End it in any case."""
        self._process.kill()
        self._process.communicate()
        os.close(self._fd)


@contextlib.contextmanager
def watched(*args: object, terminal: bool = False,
            **environment: str) -> Iterator[Watched]:
    """Run it for as long as the block lasts."""
    paths.require(TOOL)
    process = Watched(*args, terminal=terminal, **environment)
    try:
        yield process
    finally:
        process.close()


def in_order(text: str, *words: str) -> None:
    """Fail unless the words are in the text, in this order."""
    at = 0
    for word in words:
        found = text.find(word, at)
        expect(found >= 0, f'"{word}" is not there, or not in order:\n{text}')
        at = found + len(word)


def write(path: Path, content: str | bytes) -> Path:
    """Write a file."""
    path.write_bytes(content if isinstance(content, bytes)
                     else content.encode())
    return path
