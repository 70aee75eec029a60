"""
migration-watch with records: of a QEMU's history, and from files.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import json
from pathlib import Path

from harness.tap import expect

from fakeqemu import FakeQemu, a_pass, a_record
from watched import in_order, watched, write

_RECORDS = [
    a_record('old', [a_pass(1), a_pass(2)], outcome='failed', error='once',
             downtime=None),
    a_record('new', [a_pass(1)], start=1_760_000_100_000)]


def _said(status: int, *args: object) -> str:
    """What it prints, and ends with this status."""
    with watched(*args) as watch:
        error = watch.end(status)
        return watch.out if status == 0 else error


def history(work: Path) -> None:
    """All that QEMU remembers, the oldest first; then it ends."""
    qemu = FakeQemu(work / 'qmp')
    with contextlib.closing(qemu):
        out = _said(0, work / 'qmp', '--history')
        expect(out == 'no migration is recorded\n', out)
        qemu.history = _RECORDS
        out = _said(0, work / 'qmp', '--history')
        in_order(out, 'migration old', 'pass 1', 'pass 2', 'old: failed',
                 'error: once', 'migration new', 'pass 1', 'new: completed')
        out = _said(0, work / 'qmp', '--history', '--id', 'old')
        in_order(out, 'old: failed')
        expect('new' not in out, out)
        with watched(work / 'qmp', '--history', '--id', 'x') as watch:
            watch.fail('no migration "x" is recorded, only: old, new')
        qemu.expect_only_questions()
        qemu.history = None
        with watched(work / 'qmp', '--history') as watch:
            watch.fail('this QEMU keeps no history')
        qemu.history = [{'id': 'x'}]
        with watched(work / 'qmp', '--history') as watch:
            watch.fail('query-migration-history', 'record 1',
                       'has no "direction"')


def saved(work: Path) -> None:
    """What --save writes, --from reads; it is the record as QEMU has it."""
    qemu = FakeQemu(work / 'qmp')
    with contextlib.closing(qemu):
        qemu.history = _RECORDS
        for name, record in (('old', _RECORDS[0]), ('new', _RECORDS[1])):
            path = work / name
            _said(0, work / 'qmp', '--history', '--id', name, '--save', path)
            expect(json.loads(path.read_text()) == record, path.read_text())
            expect(_said(0, '--from', path) == _said(
                0, work / 'qmp', '--history', '--id', name), name)
        # without --id the last one
        _said(0, work / 'qmp', '--history', '--save', work / 'last')
        expect(json.loads((work / 'last').read_text()) == _RECORDS[1], 'last')


def forms(work: Path) -> None:
    """A reply, the list in it and a single record are all understood."""
    reply = write(work / 'reply', json.dumps({'return': _RECORDS, 'id': 1}))
    plain = write(work / 'list', json.dumps(_RECORDS))
    single = write(work / 'single', json.dumps(_RECORDS[1]))
    out = _said(0, '--from', reply)
    in_order(out, 'old: failed', 'new: completed')
    expect(_said(0, '--from', plain) == out, 'the list')
    expect(_said(0, '--from', single) == _said(0, '--from', reply, '--id',
                                               'new'), 'the record')


def newer_qemu(work: Path) -> None:
    """Members, decisions and modes that are not known are no error."""
    record = a_record('n', [a_pass(1, decision='ponder', entropy=3)],
                      mode='dream', mood={'good': True})
    out = _said(0, '--from', write(work / 'x', json.dumps(record)))
    in_order(out, 'convergence: dream', 'pass 1: ponder')


def passes_dropped(work: Path) -> None:
    """It says where passes are missing."""
    record = a_record('d', [a_pass(16), a_pass(161)], passes_dropped=159)
    out = _said(0, '--from', write(work / 'x', json.dumps(record)))
    in_order(out, '(15 passes were not kept)', 'pass 16',
             '(144 passes were not kept)', 'pass 161', 'in 161 passes')


def _with(**changes: object) -> str:
    return json.dumps({**a_record('x', [a_pass(1)]), **changes})


def _pass_with(**changes: object) -> str:
    return json.dumps(a_record('x', [a_pass(1, **changes)]))


def _pass_without(name: str) -> str:
    entry = a_pass(1)
    del entry[name]
    return json.dumps(a_record('x', [entry]))


# content of the file; words of the error
_BAD = [
    (b'', 'is not JSON'), (b'\xff\xfe', 'is not JSON'), (b'{', 'is not JSON'),
    (b'[' * 100_000, 'nested too deeply'),
    ('[NaN]', 'is not JSON: NaN'), ('3', 'the history is not a list'),
    ('"x"', 'the history is not a list'),
    ('{"return": {}}', 'the history is not a list'),
    ('{"error": {"class": "CommandNotFound", "desc": "unknown"}}',
     'this is an error reply: unknown'),
    ('[1]', 'record 1 is not an object'), ('{}', 'record 1 has no "id"'),
    ('[{}, {}]', 'record 1 has no "id"'),
    (_with(passes=None), '"passes" is not a list'),
    (_with(passes={}), '"passes" is not a list'),
    (_with(passes=[1]), 'entry 1 of "passes" is not an object'),
    (_with(id=7), '"id" is not a string'),
    (_with(postcopy='yes'), '"postcopy" is not true or false'),
    (_with(bytes=1.5), '"bytes" is not an integer'),
    (_with(bytes=-1), '"bytes" is out of range'),
    (_with(bytes=1 << 64), '"bytes" is out of range'),
    (_with(error={'desc': 'x'}), 'this is an error reply: x'),
    (_with(downtime='31'), '"downtime" is not an integer'),
    (_pass_with(time=True), '"time" is not an integer'),
    (_pass_with(throttle=256), '"throttle" is out of range'),
    (_pass_with(reason=None), '"reason" is not a string'),
    (_pass_with(predicted_time='never'), '"predicted-time" is not an'),
    (_pass_without('dirty-rate'), 'has no "dirty-rate"'),
    (json.dumps(a_record('x', [a_pass(2), a_pass(1)])),
     'entry 2 of "passes" is not after the one before'),
    (json.dumps(a_record('x', [a_pass(1), a_pass(2, time=1)])),
     'entry 2 of "passes" is not after the one before')]


def bad_files(work: Path) -> None:
    """One line that names the file and what is wrong; no file is written."""
    for number, (content, words) in enumerate(_BAD):
        path = write(work / f'bad-{number}', content)
        with watched('--from', path, '--save', work / 'out') as watch:
            watch.fail(str(path), words)
            expect(not watch.out, watch.out)
        expect(not (work / 'out').exists(), f'{words}: written')
    for path, words in ((work / 'none', 'No such file'),
                        (work, 'Is a directory')):
        with watched('--from', path) as watch:
            watch.fail(str(path), words)
    empty = write(work / 'empty', '{"return": []}')
    expect(_said(0, '--from', empty) == 'no migration is recorded\n', 'empty')
    with watched('--from', empty, '--save', work / 'out') as watch:
        watch.fail('no migration is recorded')


def hostile(work: Path) -> None:
    """Nothing in a record gets at the terminal."""
    evil = 'a\x1b]0;x\x07\r\n\x9b2J\u202eb'
    record = a_record(evil, [a_pass(1, reason=evil, decision=evil)],
                      outcome='failed', error=evil, mode=evil,
                      direction=evil)
    out = _said(0, '--from', write(work / 'x', json.dumps(record)))
    # title, pass, summary, error, downtime: and not one more
    expect(len(out.splitlines()) == 5 and '\u202e' not in out, repr(out))
    with watched('--from', work / 'x', '--id', '\x1b[2J') as watch:
        watch.fail('no migration')


def any_locale(work: Path) -> None:
    """Characters that the locale does not have are no error."""
    record = a_record('x', [a_pass(1, reason='größer')])
    path = write(work / 'x', json.dumps(record))
    with watched('--from', path, LC_ALL='C', PYTHONUTF8='0',
                 PYTHONCOERCECLOCALE='0', PYTHONIOENCODING='ascii') as watch:
        watch.end(0)
        in_order(watch.out, r'gr\xf6\xdfer')


# Arguments, and words of the error
_WRONG = [
    ([], 'one of SOCKET and --from'),
    (['s', '--from', 'f'], 'one of SOCKET and --from'),
    (['--from', 'f', '--history'], 'need SOCKET'),
    (['--from', 'f', '--follow'], 'need SOCKET'),
    (['s', '--follow', '--history'], 'exclude each other'),
    (['s', '--id', 'x'], '--id needs'),
    (['s', '--plot', 'x.pdf'], 'must end in .svg or .png'),
    (['s', '--bogus'], 'unrecognized')]


def usage(work: Path) -> None:
    """Wrong usage is status 2, before anything is done."""
    del work
    for args, words in _WRONG:
        expect(words in _said(2, *args), f'{args}: {words}')
    in_order(_said(0, '--help'), 'SOCKET', 'exit status')


def cannot_write(work: Path) -> None:
    """Known before a migration is waited for; and at the end."""
    with watched(work / 'none', '--save', work / 'no/x.json') as watch:
        watch.fail('no/x.json', 'cannot write')
    path = write(work / 'x', json.dumps(_RECORDS))
    with watched('--from', path, '--save', '/dev/full') as watch:
        watch.fail('/dev/full', 'No space left')
    (work / 'dir').mkdir()
    with watched('--from', path, '--save', work / 'dir') as watch:
        watch.fail('dir', 'Is a directory')


CASES = [
    ('history', history), ('saved record', saved),
    ('forms of a history', forms), ('newer QEMU', newer_qemu),
    ('passes dropped', passes_dropped), ('bad files', bad_files),
    ('control characters', hostile), ('any locale', any_locale),
    ('wrong usage', usage), ('cannot write', cannot_write)]
