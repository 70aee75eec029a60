"""
What answers migration-watch in the tests: a QMP server without a QEMU, whose
migrations are what a test says, and the records that it keeps of them.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import copy
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.tap import Failure, expect

PATIENCE = 60

_GREETING = {'QMP': {'version': {'qemu': {'micro': 2, 'minor': 2, 'major': 10},
                                 'package': ''}, 'capabilities': ['oob']}}
_PAGE = 4096


def a_pass(number: int, **changes: Any) -> dict[str, Any]:
    """A plausible MigrationPass; names have _ for -."""
    entry = {
        'pass': number, 'time': 1000 * number, 'duration': 990,
        'sync-time': 800, 'bytes-sent': 104_000_000, 'pages-sent': 25_000,
        'pages-dirtied': 20_000 - number, 'pages-withheld': 0,
        'pages-remaining': 20_000 - number, 'page-size': _PAGE,
        'dirty-rate': 82_000_000, 'bandwidth': 104_857_600,
        'bandwidth-low': 100_000_000, 'switchover-bandwidth': 100_000_000,
        'downtime-fixed': 12, 'downtime-copy': 800, 'predicted-time': 2500,
        'predicted-downtime': 80, 'throttle': 0, 'next-throttle': 0,
        'decision': 'continue',
        'reason': f'another pass needed: {20_000 - number} pages modified'}
    entry.update({name.replace('_', '-'): value
                  for name, value in changes.items()})
    return entry


def a_record(name: str, passes: list[dict[str, Any]],
             **changes: Any) -> dict[str, Any]:
    """A plausible MigrationRecord of a completed migration."""
    entry = {
        'id': name, 'direction': 'outgoing', 'start': 1_760_000_000_000,
        'outcome': 'completed', 'total-time': 1000 * len(passes) + 200,
        'bytes': 104_000_000 * len(passes), 'downtime': 31,
        'predicted-downtime': 80, 'postcopy': False, 'mode': 'enforce',
        'downtime-limit': 300, 'max-bandwidth': 104_857_600,
        'time-limit': 100_000, 'fallback': 'abort', 'max-slowdown': 95,
        'passes': passes, 'passes-dropped': 0}
    entry.update({key.replace('_', '-'): value
                  for key, value in changes.items()})
    return {key: value for key, value in entry.items() if value is not None}


def _requests(client: socket.socket) -> Iterator[dict[str, Any]]:
    """What a client sends: JSON, with nothing in between."""
    decoder, rest = json.JSONDecoder(), ''
    while data := client.recv(65536):
        rest += data.decode()
        while rest:
            try:
                request, end = decoder.raw_decode(rest)
            except ValueError:
                # not all of it
                break
            rest = rest[end:].lstrip()
            yield request


class FakeQemu:
    """
    A QMP server for one client at a time, as QEMU's. A test changes what it
    says, under the lock of changing().
    """

    def __init__(self, address: Path | tuple[str, int]) -> None:
        self.info: dict[str, Any] = {}
        self.status = 'running'
        # None: a QEMU that does not know the command
        self.history: list[dict[str, Any]] | None = []
        self.convergence: bool | None = True
        # What is sent instead of a greeting
        self.greeting: bytes | None = None
        # It answers nothing any more.
        self.mute = False
        # It hangs up when this command comes.
        self.ends_at = ''
        # Names of all commands that were sent
        self.commands: list[str] = []
        self._lock = threading.RLock()
        self._client: socket.socket | None = None
        self._negotiated = threading.Event()
        if isinstance(address, tuple):
            self._server = socket.create_server(address)
        else:
            self._server = socket.socket(socket.AF_UNIX)
            self._server.bind(str(address))
            self._server.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Of a TCP server."""
        return self._server.getsockname()[1]

    def close(self) -> None:
        """QEMU is gone."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.drop()
        self._thread.join(PATIENCE)

    def drop(self) -> None:
        """End the connection of the client."""
        if self._client:
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """What is changed in here is seen by a client all at once."""
        with self._lock:
            yield

    # What happens in QEMU

    def start(self, record: dict[str, Any]) -> None:
        """A migration begins: it becomes the last one of the history."""
        with self._lock:
            if self.history is not None:
                self.history.append({**copy.deepcopy(record), 'passes': [],
                                     'outcome': 'active', 'total-time': 1})
                for name in ('downtime', 'error', 'predicted-downtime'):
                    self.history[-1].pop(name, None)
            self.progress(1)

    def progress(self, total_time: int, remaining: int = 512 << 20,
                 **more: Any) -> None:
        """query-migrate has other numbers now."""
        with self._lock:
            self.info = {'status': 'active', 'total-time': total_time,
                         'expected-downtime': 300, 'setup-time': 2,
                         'ram': {'total': 1 << 30, 'remaining': remaining,
                                 'transferred': 512 << 20, 'mbps': 838.8608},
                         **{name.replace('_', '-'): value
                            for name, value in more.items()}}

    def end_pass(self, entry: dict[str, Any], mode: str = 'enforce') -> None:
        """A pass ends: it is in the history, and sent."""
        with self._lock:
            assert self.history
            now = self.history[-1]
            now['passes'].append(entry)
            self.progress(entry['time'])
            self.event('MIGRATION_CONVERGENCE',
                       {'id': now['id'], 'mode': mode, 'pass': entry})

    def end(self, record: dict[str, Any]) -> None:
        """The migration that runs ends as this record says."""
        with self._lock:
            if self.history is not None:
                self.history[-1] = record
            self.info = {'status': record['outcome']}
            if record['outcome'] == 'completed':
                self.info |= {'total-time': record['total-time'],
                              'downtime': record['downtime'],
                              'ram': {'total': 1 << 30, 'remaining': 0,
                                      'transferred': record['bytes']}}
            elif 'error' in record:
                self.info['error-desc'] = record['error']

    def event(self, name: str, data: dict[str, Any]) -> None:
        """Send an event, if there is somebody to hear it."""
        if self._negotiated.is_set():
            self._send({'event': name, 'data': data, 'timestamp': {
                'seconds': int(time.time()), 'microseconds': 0}})

    def wait_for(self, command: str, times: int = 1) -> None:
        """Until the client has sent this command so many times more."""
        wanted = self.commands.count(command) + times
        deadline = time.monotonic() + PATIENCE
        while self.commands.count(command) < wanted:
            if time.monotonic() > deadline:
                raise Failure(f'{command} has not come')
            time.sleep(0.01)

    def expect_only_questions(self) -> None:
        """Fail if the client has sent what could change anything."""
        other = {name for name in self.commands
                 if not name.startswith('query-')} - {'qmp_capabilities'}
        expect(not other, f'also sent: {other}')

    # The server

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                self._client = client
                self._talk(client)
            self._negotiated.clear()
            self._client = None

    def _talk(self, client: socket.socket) -> None:
        if self.greeting is None:
            self._send(_GREETING)
        else:
            client.sendall(self.greeting)
        for request in _requests(client):
            self.commands.append(request['execute'])
            if self.mute:
                continue
            with self._lock:
                if self.ends_at == request['execute']:
                    return
                answer = self._answer(request['execute'])
                if 'id' in request:
                    answer['id'] = request['id']
                self._send(answer)
                if request['execute'] == 'qmp_capabilities':
                    self._negotiated.set()

    def _send(self, message: dict[str, Any]) -> None:
        self.send(json.dumps(message).encode() + b'\n')

    def send(self, data: bytes) -> None:
        """Send just this, whatever it is."""
        with self._lock:
            if self._client:
                # as QEMU, which does not care whether anybody listens
                with contextlib.suppress(OSError):
                    self._client.sendall(data)

    def _answer(self, command: str) -> dict[str, Any]:
        if command == 'qmp_capabilities':
            return {'return': {}}
        if command == 'query-status':
            return {'return': {'status': self.status}}
        if command == 'query-migrate':
            return {'return': self.info}
        if command == 'query-migrate-capabilities':
            known = [{'capability': 'xbzrle', 'state': False}]
            if self.convergence is not None:
                known.append({'capability': 'convergence',
                              'state': self.convergence})
            return {'return': known}
        if command == 'query-migration-history' and self.history is not None:
            return {'return': self.history}
        return {'error': {'class': 'CommandNotFound',
                          'desc': f'The command {command} has not been found'}}
