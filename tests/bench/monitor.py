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

    def __init__(self) -> None:
        self._sock, self._qemu_end = socket.socketpair()
        os.set_inheritable(self._qemu_end.fileno(), True)
        self._rest = b''

    def args(self) -> list[str]:
        """The part of QEMU's command line."""
        return ['-chardev',
                f'socket,id=bench,fd={self._qemu_end.fileno()}',
                '-mon', 'chardev=bench,mode=control']

    def connect(self, patience: float) -> None:
        """Once QEMU runs: shake hands."""
        self._qemu_end.close()
        self._sock.settimeout(patience)
        self._line()
        self.execute('qmp_capabilities')

    def close(self) -> None:
        """End the connection."""
        self._qemu_end.close()
        self._sock.close()

    def _line(self) -> bytes:
        while b'\n' not in self._rest:
            data = self._sock.recv(65536)
            if not data:
                raise EOFError('QEMU has ended')
            self._rest += data
        line, self._rest = self._rest.split(b'\n', 1)
        return line

    def send(self, command: str, **arguments: object) -> None:
        """Send a command; do not wait for its answer."""
        self._sock.sendall(json.dumps(
            {'execute': command, 'arguments': arguments}).encode())

    def answer(self) -> dict:
        """The answer to the oldest command; events before it are dropped."""
        while True:
            message = json.loads(self._line())
            if 'error' in message:
                raise RuntimeError(message['error']['desc'])
            if 'return' in message:
                return message['return']

    def event(self, *names: str) -> tuple[float, dict]:
        """When the next event of these names came, and the event."""
        while True:
            line = self._line()
            now = time.perf_counter()
            message = json.loads(line)
            if message.get('event') in names:
                return now, message

    def execute(self, command: str, **arguments: object) -> dict:
        """Send a command and wait for its answer."""
        self.send(command, **arguments)
        return self.answer()
