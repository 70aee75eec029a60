"""
A QMP client for measuring: one blocking socket, nothing between an answer and
the clock. (qemu.qmp hands each message from task to task, which takes about as
long as what is measured here.)

SPDX-License-Identifier: GPL-2.0-or-later
"""

import json
import os
import socket
import time


class Monitor:
    """One more QMP monitor of a QEMU that is to be launched."""

    def __init__(self, name: str = 'bench') -> None:
        self._name = name
        self._sock, self._qemu_end = socket.socketpair()
        os.set_inheritable(self._qemu_end.fileno(), True)
        self._rest = b''
        # all that came, with the time (of time.perf_counter()) of arrival
        self.events: list[tuple[float, dict]] = []

    def args(self) -> list[str]:
        """The part of QEMU's command line."""
        return ['-chardev',
                f'socket,id={self._name},fd={self.qemu_fd()}',
                '-mon', f'chardev={self._name},mode=control']

    def qemu_fd(self) -> int:
        """The file descriptor that QEMU must inherit."""
        return self._qemu_end.fileno()

    def connect(self, patience: float) -> None:
        """Once QEMU runs: shake hands."""
        self._qemu_end.close()
        self._sock.settimeout(patience)
        self._message()
        self.execute('qmp_capabilities')

    def close(self) -> None:
        """End the connection."""
        self._qemu_end.close()
        self._sock.close()

    def _message(self) -> dict:
        while b'\n' not in self._rest:
            data = self._sock.recv(65536)
            if not data:
                raise EOFError('QEMU has ended')
            self._rest += data
        now = time.perf_counter()
        line, self._rest = self._rest.split(b'\n', 1)
        message = json.loads(line)
        if 'event' in message:
            self.events.append((now, message))
        return message

    def send(self, command: str, **arguments: object) -> None:
        """Send a command; do not wait for its answer."""
        self._sock.sendall(json.dumps(
            {'execute': command, 'arguments': arguments}).encode())

    def answer(self) -> dict:
        """The answer to the oldest command; events are only remembered."""
        while True:
            message = self._message()
            if 'error' in message:
                raise RuntimeError(message['error']['desc'])
            if 'return' in message:
                return message['return']

    def event(self, *names: str,
              start: int | None = None) -> tuple[float, dict]:
        """
        When the next event of these names comes, and the event; with @start,
        one that has come, too, if it is the start-th event or a later one.
        """
        seen = len(self.events) if start is None else start
        while True:
            for now, message in self.events[seen:]:
                if message['event'] in names:
                    return now, message
            seen = len(self.events)
            self._message()

    def execute(self, command: str, **arguments: object) -> dict:
        """Send a command and wait for its answer."""
        self.send(command, **arguments)
        return self.answer()

    def hmp(self, line: str) -> str:
        """What the human monitor says to a line."""
        answer = self.execute('human-monitor-command',
                              **{'command-line': line})
        return str(answer).strip()
