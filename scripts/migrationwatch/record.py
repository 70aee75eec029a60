"""
Records of migrations, as QMP's query-migration-history returns them: read,
checked, and chosen from.

A record is kept as the dictionary that it is in QMP. What is not known here
is passed over, so that a newer QEMU may say more.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import json
from typing import Any, NamedTuple, Optional

Record = dict[str, Any]
Pass = dict[str, Any]


class BadRecord(Exception):
    """This is not a record of a migration; the message says why."""


class _Number(NamedTuple):
    """An unsigned number of QAPI's."""
    bits: int = 64

    def check(self, value: Any) -> Optional[str]:
        """What is wrong with a value."""
        # JSON's true is an int to Python
        if isinstance(value, bool) or not isinstance(value, int):
            return 'is not an integer'
        if not 0 <= value < 1 << self.bits:
            return 'is out of range'
        return None


class _Plain(NamedTuple):
    """Another type of JSON."""
    type: type
    name: str

    def check(self, value: Any) -> Optional[str]:
        """What is wrong with a value."""
        if not isinstance(value, self.type):
            return f'is not {self.name}'
        return None


_NUMBER = _Number()
_TEXT = _Plain(str, 'a string')
_FLAG = _Plain(bool, 'true or false')
_LIST = _Plain(list, 'a list')
_OBJECT = _Plain(dict, 'an object')

# What QAPI says of MigrationRecord and MigrationPass; of the former's members
# fewer are demanded, as without query-migration-history they are not known.
_RECORD = {'id': _TEXT, 'direction': _TEXT, 'start': _NUMBER,
           'outcome': _TEXT, 'total-time': _NUMBER, 'bytes': _NUMBER,
           'passes': _LIST}
_RECORD_OPTIONAL = {
    'error': _TEXT, 'downtime': _NUMBER, 'predicted-downtime': _NUMBER,
    'postcopy': _FLAG, 'mode': _TEXT, 'downtime-limit': _NUMBER,
    'max-bandwidth': _NUMBER, 'time-limit': _NUMBER, 'fallback': _TEXT,
    'max-slowdown': _NUMBER, 'passes-dropped': _NUMBER}
_PASS = {'pass': _Number(32), 'page-size': _Number(32),
         'throttle': _Number(8), 'next-throttle': _Number(8),
         'decision': _TEXT, 'reason': _TEXT}
_PASS.update(dict.fromkeys((
    'time', 'duration', 'sync-time', 'bytes-sent', 'pages-sent',
    'pages-dirtied', 'pages-withheld', 'pages-remaining', 'dirty-rate',
    'bandwidth', 'bandwidth-low', 'switchover-bandwidth', 'downtime-fixed',
    'downtime-copy'), _NUMBER))
_PASS_OPTIONAL = dict.fromkeys((
    'pages-remaining-last', 'predicted-time', 'predicted-downtime'), _NUMBER)


def _members(what: str, value: Any, needed: dict[str, Any],
             optional: dict[str, Any]) -> None:
    if problem := _OBJECT.check(value):
        raise BadRecord(f'{what} {problem}')
    for name, kind in (needed | optional).items():
        if name in value:
            if problem := kind.check(value[name]):
                raise BadRecord(f'{what}: "{name}" {problem}')
        elif name in needed:
            raise BadRecord(f'{what} has no "{name}"')


def check_pass(value: Any, what: str = 'the pass') -> Pass:
    """The value, if it is a MigrationPass; else raise BadRecord."""
    _members(what, value, _PASS, _PASS_OPTIONAL)
    return value


def check_event(value: Any) -> None:
    """Raise BadRecord unless this is the data of MIGRATION_CONVERGENCE."""
    _members('its data', value, {'id': _TEXT, 'mode': _TEXT, 'pass': _OBJECT},
             {})
    check_pass(value['pass'])


def check(value: Any, what: str = 'the record') -> Record:
    """The value, if it is a MigrationRecord; else raise BadRecord."""
    _members(what, value, _RECORD, _RECORD_OPTIONAL)
    before = None
    for number, entry in enumerate(value['passes'], 1):
        where = f'{what}, entry {number} of "passes"'
        check_pass(entry, where)
        if before and (entry['pass'] <= before['pass']
                       or entry['time'] < before['time']):
            raise BadRecord(f'{where} is not after the one before')
        before = entry
    return value


def check_history(value: Any) -> list[Record]:
    """The value, if it is a list of MigrationRecord; else BadRecord."""
    if problem := _LIST.check(value):
        raise BadRecord(f'the history {problem}')
    return [check(entry, f'record {number}')
            for number, entry in enumerate(value, 1)]


def _no_constant(name: str) -> None:
    # Python reads them, but they are not JSON
    raise ValueError(f'{name} is not a number')


def load(path: str) -> list[Record]:
    """
    The records in a file of JSON: a reply of query-migration-history, the
    list in it, or a single record.

    Raises BadRecord, with the path in its message.
    """
    try:
        with open(path, encoding='utf-8') as file:
            value = json.load(file, parse_constant=_no_constant)
    except OSError as err:
        raise BadRecord(f'{path}: {err.strerror}') from err
    except RecursionError as err:
        raise BadRecord(f'{path}: nested too deeply') from err
    except ValueError as err:
        raise BadRecord(f'{path} is not JSON: {err}') from err
    try:
        return _records(value)
    except BadRecord as err:
        raise BadRecord(f'{path}: {err}') from err


def _records(value: Any) -> list[Record]:
    if isinstance(value, dict):
        error = value.get('error')
        if isinstance(error, dict):
            raise BadRecord('this is an error reply: '
                            + str(error.get('desc', error)))
        # a member "return" makes it a reply; else it is a single record
        value = value.get('return', [value])
    return check_history(value)


def save(record: Record, path: str) -> None:
    """Write a record to a file that load() reads."""
    with open(path, 'w', encoding='utf-8') as file:
        json.dump(record, file, indent=2)
        file.write('\n')


def choose(records: list[Record], name: Optional[str]) -> Record:
    """The last record, or the last one with this id."""
    found = [record for record in records if name in (None, record['id'])]
    if found:
        return found[-1]
    if not records:
        raise BadRecord('no migration is recorded')
    known = ', '.join(dict.fromkeys(record['id'] for record in records))
    raise BadRecord(f'no migration "{name}" is recorded, only: {known}')
