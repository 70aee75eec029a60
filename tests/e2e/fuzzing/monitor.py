"""
A QMP connection on which commands are sent without waiting for their replies.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import itertools
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.tap import Failure, expect

# QEMU stops reading when it has eight requests of a monitor.
MAX_OPEN = 6


@dataclass
class Request:
    """A command that was sent."""
    command: str
    arguments: Any
    sent: float


class Monitor:
    """One of the monitors; every reply must be to an open request."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.connect(str(path))
        self._rest = b''
        self._ids = itertools.count()
        self.open: dict[int, Request] = {}
        self.send('qmp_capabilities', {})

    def fileno(self) -> int:
        """For select()."""
        return self._sock.fileno()

    def close(self) -> None:
        """End the connection."""
        self._sock.close()

    def send(self, command: str, arguments: Any) -> Request:
        """Send a command."""
        number = next(self._ids)
        request = Request(command, arguments, time.monotonic())
        self.open[number] = request
        message = json.dumps({'execute': command, 'arguments': arguments,
                              'id': number})
        try:
            self._sock.sendall(message.encode() + b'\n')
        except OSError as err:
            raise Failure(f'the monitor is gone: {err}') from err
        return request

    def receive(self) -> tuple[list[dict], list[tuple[Request, dict]]]:
        """Events and replies that have come; call it when readable."""
        try:
            data = self._sock.recv(1 << 20)
        except OSError:
            data = b''
        if not data:
            raise Failure('the monitor is gone')
        *lines, self._rest = (self._rest + data).split(b'\n')
        events, replies = [], []
        for line in lines:
            message = json.loads(line)
            if 'event' in message:
                events.append(message)
            elif 'QMP' not in message:
                request = self.open.pop(message.get('id'), None)
                expect(request, f'a reply that nobody waits for: {message}')
                replies.append((request, message))
        return events, replies

    def waiting_for(self) -> float:
        """The age of the oldest open request."""
        if not self.open:
            return 0
        return time.monotonic() - min(request.sent
                                      for request in self.open.values())
