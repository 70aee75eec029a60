"""
Watch a migration through QMP: its passes by events, what is in between and
its end by asking now and then.

The end cannot be left to events: whether there is one for it depends on a
migration capability. And neither can the passes, as those before the
connection are only in the history.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import asyncio
import time
from typing import Any, Optional

from qemu.qmp import ExecuteError

from . import record, text
from .connection import Connection, WatchError
from .record import BadRecord, Pass, Record
from .screen import Screen

_POLL_S = 1.0
# The history can be long, and most of the time nothing new is in it.
_HISTORY_POLL_S = 5.0
# How long a migration that has ended may not be in the history
_RECORD_WAIT_S, _RECORD_POLL_S = 5.0, 0.2

_ENDED = ('completed', 'failed', 'cancelled')
# As many passes are kept as QEMU keeps: the first and the last ones.
_FIRST_PASSES, _PASSES = 16, 256

EVENTS = frozenset(('MIGRATION', 'MIGRATION_CONVERGENCE'))

_Key = tuple[str, str, int]
_Info = dict[str, Any]
_Ending = tuple[Any, ...]


def _key(entry: Record) -> _Key:
    # An id may be used again.
    return entry['direction'], entry['id'], entry['start']


def _ending(info: _Info) -> _Ending:
    # The rest may change while nothing runs.
    return tuple(map(info.get, ('status', 'total-time', 'downtime',
                                'setup-time', 'error-desc')))


class _Migration:
    """What has been seen of a migration that runs."""

    def __init__(self, known: Optional[Record],
                 direction: str = 'outgoing') -> None:
        self.key = _key(known) if known else None
        # The answer to query-migrate
        self.info: _Info = {}
        self.record: Record = known or {
            'id': '', 'direction': direction,
            'start': int(time.time() * 1000), 'outcome': 'active',
            'total-time': 0, 'bytes': 0, 'postcopy': False, 'passes': [],
            'passes-dropped': 0}
        self._logged = 0

    @property
    def mode(self) -> Optional[str]:
        """What the capability convergence does."""
        return self.record.get('mode')

    @property
    def last(self) -> Optional[Pass]:
        """The last pass."""
        passes = self.record['passes']
        return passes[-1] if passes else None

    def add(self, data: dict[str, Any]) -> bool:
        """
        Take the data of a MIGRATION_CONVERGENCE; False if it is another
        migration's.
        """
        if self.record['id'] not in ('', data['id']):
            return False
        entry = data['pass']
        if self.last and entry['pass'] <= self.last['pass']:
            # The history may have had it before its event came. If not, this
            # is the next migration, with the same id.
            times = {known['pass']: known['time']
                     for known in self.record['passes']}
            return times.get(entry['pass'], entry['time']) == entry['time']
        self.record.update({'id': data['id'], 'mode': data['mode']})
        passes = self.record['passes']
        passes.append(entry)
        if len(passes) > _PASSES:
            del passes[_FIRST_PASSES]
            self.record['passes-dropped'] += 1
        return True

    def update(self, info: _Info) -> bool:
        """Take an answer to query-migrate; False if it is another's."""
        status = info.get('status', 'none')
        # Not every state has the time.
        begun = status == 'setup' or \
            status not in _ENDED and 'total-time' in info
        if begun and info.get('total-time', 0) < self.info.get('total-time',
                                                               0):
            return False
        self.info = info
        changed = {'total-time': info.get('total-time'),
                   'bytes': info.get('ram', {}).get('transferred'),
                   'downtime': info.get('downtime'),
                   'error': info.get('error-desc'),
                   'outcome': status if status in _ENDED else None,
                   'postcopy': status.startswith('postcopy') or None}
        self.record.update((name, value) for name, value in changed.items()
                           if value is not None)
        return True

    def log(self, screen: Screen) -> None:
        """Write what has not been written yet."""
        for entry in self.record['passes']:
            if entry['pass'] > self._logged:
                screen.log(text.pass_line(entry, self.mode))
                self._logged = entry['pass']


class Watcher:
    """Follows one migration after the other."""

    def __init__(self, connection: Connection, screen: Screen) -> None:
        self._qmp = connection
        self._screen = screen
        # Those that have been reported, or were over before
        self._known: set[_Key] = set()
        # What query-migrate says of the last one
        self._seen: Optional[_Ending] = None
        # The last one that is over
        self._over: Optional[Record] = None
        # An event that belongs to the next one
        self._held: Optional[dict[str, Any]] = None
        self._now: Optional[_Migration] = None

    @property
    def seen(self) -> Optional[Record]:
        """What is known of the migration that runs."""
        return self._now.record if self._now else None

    async def attach(self) -> None:
        """Find out what is over already; to be called first."""
        await self._note_capability()
        history = await self.history() or []
        self._known = {_key(entry) for entry in history
                       if entry['outcome'] != 'active'}
        info = await self._query()
        if info.get('status') in _ENDED:
            self._seen = _ending(info)

    async def _note_capability(self) -> None:
        state = {entry['capability']: entry['state'] for entry
                 in await self._ask('query-migrate-capabilities')}
        if 'convergence' not in state:
            self._screen.log('This QEMU does not report on passes; '
                             'there is only progress to see.')
        elif not state['convergence']:
            self._screen.log('The migration capability "convergence" is off; '
                             'there is only progress to see.')

    async def next(self) -> Record:
        """
        Follow the next migration, or the one that runs, to its end.

        Raises WatchError if the end cannot be learned.
        """
        self._now = migration = await self._begin()
        self._screen.log(text.title(migration.record))
        migration.log(self._screen)
        if migration.record['outcome'] == 'active':
            await self._follow(migration)
            await self._end(migration)
        migration.log(self._screen)
        self._screen.log(text.summary(migration.record))
        self._known.add(_key(migration.record))
        self._over, self._now = migration.record, None
        return migration.record

    async def _begin(self) -> _Migration:
        waits, asked = False, time.monotonic()
        while not self._held:
            info = await self._query()
            status = info.get('status', 'none')
            if status in _ENDED:
                fresh = _ending(info) != self._seen
                self._seen = _ending(info)
            else:
                fresh = status != 'none'
            # Two failures in a row look the same to query-migrate.
            if fresh or time.monotonic() - asked > _HISTORY_POLL_S:
                history = await self.history()
                asked = time.monotonic()
                # It has also what came and went since the last look.
                if unknown := self._unknown(history):
                    return _Migration(unknown[0])
                if fresh and (history is None or status not in _ENDED):
                    break
            if not waits:
                self._screen.log('waiting for a migration')
                waits = True
            await self._next_event(_POLL_S)
        if unknown := self._unknown(await self.history()):
            return _Migration(unknown[0])
        state = await self._ask('query-status')
        return _Migration(None, 'incoming' if state['status'] == 'inmigrate'
                          else 'outgoing')

    async def _follow(self, migration: _Migration) -> None:
        """Until it has ended, or another one runs."""
        asked = float('-inf')
        while True:
            event = await self._next_event(_POLL_S)
            if self._held:
                if not migration.add(self._held['data']):
                    return
                self._held = None
                migration.log(self._screen)
            if not event or event['event'] == 'MIGRATION' \
                    or time.monotonic() - asked >= _POLL_S:
                asked = time.monotonic()
                if not migration.update(await self._query()) or \
                        migration.info.get('status', 'none') in (
                            'none', *_ENDED):
                    return
            self._screen.progress(text.progress(
                migration.info, migration.last, migration.mode))

    async def _next_event(self, timeout: float) -> Optional[dict[str, Any]]:
        """The next event; one on a pass is held, too."""
        if self._held:
            return self._held
        event = await self._qmp.event(timeout)
        if event and event['event'] == 'MIGRATION_CONVERGENCE':
            data = event.get('data')
            try:
                record.check_event(data)
            except BadRecord as err:
                raise WatchError(f'event MIGRATION_CONVERGENCE: {err}') \
                    from err
            # QEMU may have recorded it, and the end, before this was read.
            if not self._over or data['id'] != self._over['id'] \
                    or data['pass'] not in self._over['passes']:
                self._held = event
        return event

    async def _end(self, migration: _Migration) -> None:
        """Learn how a migration has ended."""
        outcome = migration.record['outcome']
        try:
            final = await self._final(migration)
        except WatchError:
            # QEMU may quit as soon as its VM runs elsewhere.
            if outcome == 'active':
                raise
            final = None
        if final:
            # QEMU knows best.
            migration.record = final
        elif outcome == 'active':
            raise WatchError('the migration has ended, but how it did is '
                             'not known')
        if migration.info.get('status') in _ENDED:
            self._seen = _ending(migration.info)

    async def _final(self, migration: _Migration) -> Optional[Record]:
        deadline = time.monotonic() + _RECORD_WAIT_S
        while (history := await self.history()) is not None:
            for entry in history:
                mine = _key(entry) == migration.key if migration.key \
                    else _key(entry) not in self._known
                if mine and entry['outcome'] != 'active':
                    return entry
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(_RECORD_POLL_S)
        return None

    def _unknown(self, history: Optional[list[Record]]) -> list[Record]:
        return [entry for entry in history or []
                if _key(entry) not in self._known]

    async def history(self) -> Optional[list[Record]]:
        """QEMU's records, the oldest first; None if it keeps none."""
        try:
            return record.check_history(
                await self._qmp.execute('query-migration-history'))
        except ExecuteError as err:
            if err.error_class == 'CommandNotFound':
                return None
            raise WatchError(f'query-migration-history: {err}') from err
        except BadRecord as err:
            raise WatchError(f'query-migration-history: {err}') from err

    async def _query(self) -> _Info:
        return await self._ask('query-migrate')

    async def _ask(self, command: str) -> Any:
        try:
            return await self._qmp.execute(command)
        except ExecuteError as err:
            raise WatchError(f'{command}: {err}') from err
