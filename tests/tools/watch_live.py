"""
migration-watch beside a QEMU that migrates.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from harness.tap import expect

from fakeqemu import FakeQemu, a_pass, a_record
from watched import Watched, in_order, watched

WAITING = 'waiting for a migration'


@contextlib.contextmanager
def _qemu(work: Path) -> Iterator[FakeQemu]:
    qemu = FakeQemu(work / 'qmp')
    try:
        yield qemu
    finally:
        qemu.close()


@contextlib.contextmanager
def _both(work: Path, *args: object,
          terminal: bool = False) -> Iterator[tuple[FakeQemu, Watched]]:
    """A QEMU without a migration, and who watches it."""
    with _qemu(work) as qemu, \
            watched(work / 'qmp', *args, terminal=terminal) as watch:
        watch.wait_for(WAITING)
        yield qemu, watch


def _migrate(qemu: FakeQemu, record: dict) -> None:
    """All of a migration."""
    qemu.start(record)
    for entry in record['passes']:
        qemu.end_pass(entry, record.get('mode', 'enforce'))
    qemu.end(record)


def live(work: Path) -> None:
    """One line for each pass as it ends, then the summary."""
    record = a_record('web1-0042', [
        a_pass(1), a_pass(2, decision='throttle', next_throttle=40,
                          reason='the guest is too fast'),
        a_pass(3, throttle=40, next_throttle=40, decision='switch-over',
               reason='only 19997 pages were modified')])
    with _both(work) as (qemu, watch):
        qemu.start(record)
        for entry in record['passes']:
            qemu.end_pass(entry)
            # it does not wait for the end
            watch.wait_for(f'pass {entry["pass"]}: {entry["decision"]}: '
                           f'{entry["reason"]}; ')
        qemu.end(record)
        watch.end(0)
        in_order(watch.out, WAITING, 'migration web1-0042, outgoing',
                 '1.000 s  pass 1: continue: another pass needed: 19999 pages',
                 '99.2 MiB sent in 990 ms', 'bandwidth 100 MiB/s',
                 'dirty rate 78.2 MiB/s', 'throttle 0 %',
                 'switchover in 2.5 s', 'downtime 80 ms',
                 'pass 2: throttle', 'throttle 0 % -> 40 %',
                 'pass 3: switch-over', 'throttle 40 %',
                 'web1-0042: completed after 3.2 s', 'sent in 3 passes',
                 'downtime: 31 ms, predicted 80 ms, limit 300 ms')
        qemu.expect_only_questions()


def terminal_line(work: Path) -> None:
    """A line that is written over, and is gone at the end."""
    with _both(work, terminal=True) as (qemu, watch):
        record = a_record('t', [a_pass(1, next_throttle=20,
                                       decision='throttle', reason='why')])
        qemu.start(record)
        watch.wait_for('[##########----------]  50 %  512 MiB left  100 MiB/s')
        qemu.end_pass(record['passes'][0])
        watch.wait_for('throttle 20 %  switchover in 2.5 s  downtime 80 ms  '
                       'pass 1: throttle: why\x1b[K')
        # 1.5 s after the pass
        qemu.progress(2500, remaining=256 << 20)
        watch.wait_for('[###############-----]  75 %  256 MiB left  100 MiB/s '
                       ' throttle 20 %  switchover in 1.0 s')
        qemu.end(record)
        watch.end(0)
        in_order(watch.out, 'pass 1: throttle: why; ', '\r\x1b[K'
                 't: completed after 1.2 s', 'limit 300 ms\r\n')
        expect(watch.out.endswith('limit 300 ms\r\n'), repr(watch.out[-80:]))


def attach_late(work: Path) -> None:
    """Passes from before are in the history; none is shown twice."""
    record = a_record('late', [a_pass(number) for number in range(1, 6)])
    with _qemu(work) as qemu:
        qemu.start(record)
        for entry in record['passes'][:3]:
            qemu.end_pass(entry)
        with watched(work / 'qmp') as watch:
            watch.wait_for('pass 3: ')
            # in the history already, and its event comes all the same
            qemu.event('MIGRATION_CONVERGENCE', {
                'id': 'late', 'mode': 'enforce', 'pass': record['passes'][2]})
            for entry in record['passes'][3:]:
                qemu.end_pass(entry)
                watch.wait_for(f'pass {entry["pass"]}: ')
            qemu.end(record)
            watch.end(0)
            for number in range(1, 6):
                expect(watch.out.count(f'pass {number}: ') == 1, watch.out)
            expect(WAITING not in watch.out, watch.out)


def last_pass_unheard(work: Path) -> None:
    """What QEMU has recorded is shown, also without an event."""
    record = a_record('r', [a_pass(1), a_pass(2, decision='switch-over')])
    with _both(work) as (qemu, watch):
        qemu.start(record)
        qemu.end_pass(record['passes'][0])
        watch.wait_for('pass 1: ')
        qemu.end(record)
        watch.end(0)
        in_order(watch.out, 'pass 1: ', 'pass 2: switch-over', 'r: completed')


def failed(work: Path) -> None:
    """A failure is status 1, with QEMU's error."""
    with _both(work) as (qemu, watch):
        _migrate(qemu, a_record('f', [a_pass(1)], outcome='failed',
                                error='the link was lost', downtime=None,
                                predicted_downtime=None))
        watch.end(1)
        in_order(watch.out, 'f: failed after 1.2 s',
                 'error: the link was lost')
        expect('downtime:' not in watch.out, watch.out)


def cancelled(work: Path) -> None:
    """So is a migration that was cancelled."""
    with _both(work) as (qemu, watch):
        _migrate(qemu, a_record('c', [], outcome='cancelled', downtime=None,
                                predicted_downtime=None))
        watch.end(1)
        in_order(watch.out, 'c: cancelled after')


def gives_up(work: Path) -> None:
    """The decision to abort says why, and what QEMU predicted."""
    last = a_pass(2, decision='abort', reason='340 s at a throttle of 95 %')
    del last['predicted-time'], last['predicted-downtime']
    with _both(work) as (qemu, watch):
        _migrate(qemu, a_record('a', [a_pass(1), last], outcome='failed',
                                error='it does not converge', downtime=None,
                                predicted_downtime=None))
        watch.end(1)
        in_order(watch.out, 'pass 1: continue', 'switchover in 2.5 s',
                 'pass 2: abort: 340 s at a throttle of 95 %',
                 'a: failed', 'error: it does not converge')
        expect(watch.out.count('switchover in') == 1, watch.out)


def observes(work: Path) -> None:
    """Decisions that are not carried out are told apart."""
    with _both(work, terminal=True) as (qemu, watch):
        record = a_record('o', [a_pass(1, decision='throttle',
                                       next_throttle=50, reason='why')],
                          mode='observe')
        qemu.start(record)
        qemu.end_pass(record['passes'][0], 'observe')
        watch.wait_for('pass 1: would throttle: why\x1b[K')
        qemu.end(record)
        watch.end(0)
        in_order(watch.out, 'o, outgoing, convergence: observe',
                 'pass 1: would throttle: why; ', 'o: completed')
        # the one that QEMU uses is shown, and it uses none
        expect('throttle 50 %  ' not in watch.out, watch.out)


def capability_off(work: Path) -> None:
    """There is still a bar, and how it ends."""
    with _qemu(work) as qemu:
        qemu.convergence = False
        with watched(work / 'qmp', terminal=True) as watch:
            watch.wait_for(WAITING)
            record = a_record('', [], mode=None, predicted_downtime=None)
            qemu.start(record)
            qemu.progress(900, 256 << 20, cpu_throttle_percentage=30)
            watch.wait_for('[###############-----]  75 %  256 MiB left  '
                           '100 MiB/s  throttle 30 %  downtime about 300 ms')
            qemu.end(record)
            watch.end(0)
            in_order(watch.out, '"convergence" is off', 'completed after',
                     'downtime: 31 ms, limit 300 ms')


def old_qemu(work: Path) -> None:
    """A QEMU that knows neither the capability nor the history."""
    with _qemu(work) as qemu:
        qemu.convergence, qemu.history = None, None
        with watched(work / 'qmp', '--save', work / 'x.json') as watch:
            watch.wait_for(WAITING)
            record = a_record('', [])
            qemu.start(record)
            watch.wait_for('migration, outgoing')
            qemu.end(record)
            watch.end(0)
            in_order(watch.out, 'does not report on passes',
                     'migration: completed after 200 ms', 'downtime: 31 ms')
        saved = json.loads((work / 'x.json').read_text())
        expect(saved['outcome'] == 'completed' and saved['downtime'] == 31,
               saved)


def incoming(work: Path) -> None:
    """On the destination the numbers are what was received."""
    with _both(work) as (qemu, watch):
        record = a_record('d', [], direction='incoming', mode=None,
                          predicted_downtime=None, bytes=200 << 20)
        with qemu.changing():
            qemu.start(record)
            qemu.info = {'status': 'active'}
        watch.wait_for('migration d, incoming')
        qemu.end(record)
        watch.end(0)
        in_order(watch.out, 'd: completed', '200 MiB received')


def incoming_later(work: Path) -> None:
    """A destination that waits for the source has no record yet."""
    with _both(work) as (qemu, watch):
        with qemu.changing():
            qemu.status = 'inmigrate'
            qemu.info = {'status': 'setup'}
        watch.wait_for('migration, incoming')
        record = a_record('d', [], direction='incoming', mode=None)
        qemu.start(record)
        qemu.end(record)
        watch.end(0)
        in_order(watch.out, 'd: completed')


def colo(work: Path) -> None:
    """A state about which query-migrate says nothing is not the end."""
    with _both(work, terminal=True) as (qemu, watch):
        record = a_record('c', [])
        qemu.start(record)
        qemu.progress(5000)
        watch.wait_for('50 %')
        qemu.info = {'status': 'colo'}
        watch.wait_for('\rcolo')
        qemu.end(record)
        watch.end(0)


def plain_progress(work: Path) -> None:
    """Without a terminal a line of progress comes now and then."""
    with _both(work) as (qemu, watch):
        record = a_record('p', [])
        qemu.start(record)
        watch.wait_for('migration p')
        qemu.progress(9000, 256 << 20)
        watch.wait_for('75 %  256 MiB left')
        qemu.end(record)
        watch.end(0)
        lines = watch.out.count('% ')
        expect(lines < 10, f'{lines} lines of progress')


def gone_at_the_end(work: Path) -> None:
    """QEMU may quit as soon as it has said that it is done."""
    with _both(work) as (qemu, watch):
        record = a_record('g', [a_pass(1)])
        qemu.start(record)
        qemu.end_pass(record['passes'][0])
        watch.wait_for('pass 1: ')
        with qemu.changing():
            # in one go: it sees the end, and asks in vain for the record
            qemu.info = {'status': 'completed', 'total-time': 4321,
                         'downtime': 17, 'ram': {'transferred': 7 << 20}}
            qemu.ends_at = 'query-migration-history'
        watch.end(0)
        in_order(watch.out, 'g: completed after 4.3 s, 7.0 MiB sent in 1 pass',
                 'downtime: 17 ms')


def lost(work: Path) -> None:
    """A QEMU that goes away in the middle; what was seen is saved."""
    with _both(work, '--save', work / 'x.json') as (qemu, watch):
        qemu.start(a_record('l', []))
        qemu.end_pass(a_pass(1))
        watch.wait_for('pass 1: ')
        qemu.drop()
        watch.fail('connection was lost', 'QEMU has closed the connection',
                   'how the migration ended is not known')
    saved = json.loads((work / 'x.json').read_text())
    expect(saved['outcome'] == 'active' and len(saved['passes']) == 1, saved)


def lost_idle(work: Path) -> None:
    """The same while there is nothing to see."""
    with _both(work) as (qemu, watch):
        qemu.drop()
        watch.fail('connection was lost', 'QEMU has closed the connection')


def garbled(work: Path) -> None:
    """What is no JSON ends the connection, and nothing else."""
    with _both(work) as (qemu, watch):
        qemu.send(b'{"event": \n')
        watch.fail('connection was lost', 'this is not QMP')


def bad_event(work: Path) -> None:
    """An event that is not as QAPI says."""
    with _both(work) as (qemu, watch):
        entry = a_pass(1)
        del entry['bandwidth']
        qemu.event('MIGRATION_CONVERGENCE',
                   {'id': 'b', 'mode': 'enforce', 'pass': entry})
        watch.fail('MIGRATION_CONVERGENCE', 'has no "bandwidth"')


def no_answer(work: Path) -> None:
    """A QEMU that hangs is waited for; one line says so."""
    with _both(work) as (qemu, watch):
        qemu.mute = True
        watch.wait_for('QEMU has not answered for 5 s')
        qemu.drop()
        watch.fail('connection was lost')


def interrupted(work: Path) -> None:
    """Ctrl-C leaves the migration alone, and saves what was seen."""
    for number in (signal.SIGINT, signal.SIGTERM):
        place = work / number.name
        place.mkdir()
        with _both(place, '--save', place / 'x.json') as (qemu, watch):
            qemu.start(a_record('i', []))
            qemu.end_pass(a_pass(1))
            watch.wait_for('pass 1: ')
            watch.interrupt(number)
            watch.end(130)
            in_order(watch.out, 'interrupted; nothing in QEMU has changed')
            qemu.expect_only_questions()
        expect((place / 'x.json').exists(), 'nothing is saved')


def two_in_a_row(work: Path) -> None:
    """A second migration with the same id is not taken for the first."""
    first = a_record('twice', [a_pass(1), a_pass(2)], outcome='failed',
                     error='first', downtime=None)
    second = a_record('twice', [a_pass(1, time=700), a_pass(2, time=900)],
                      start=first['start'] + 5000)
    with _both(work, '--follow') as (qemu, watch):
        qemu.start(first)
        for entry in first['passes']:
            qemu.end_pass(entry)
        watch.wait_for('pass 2: ')
        with qemu.changing():
            # too quick for query-migrate
            qemu.end(first)
            qemu.start(second)
            for entry in second['passes']:
                qemu.end_pass(entry)
        watch.wait_for('0.900 s  pass 2')
        qemu.end(second)
        watch.wait_for('twice: completed')
        watch.wait_for(WAITING)
        qemu.drop()
        watch.end(0)
        in_order(watch.out, '1.000 s  pass 1', '2.000 s  pass 2',
                 'twice: failed', 'error: first', 'migration twice',
                 '0.700 s  pass 1', '0.900 s  pass 2', 'twice: completed')
        expect(watch.out.count('  pass ') == 4, watch.out)


def event_after_the_end(work: Path) -> None:
    """A pass that is recorded when its event comes is no new migration."""
    record = a_record('e', [a_pass(1)])
    with _both(work, '--follow') as (qemu, watch):
        qemu.start(record)
        watch.wait_for('migration e')
        qemu.end(record)
        watch.wait_for('e: completed')
        qemu.event('MIGRATION_CONVERGENCE', {
            'id': 'e', 'mode': 'enforce', 'pass': record['passes'][0]})
        qemu.wait_for('query-migrate', 2)
        qemu.drop()
        watch.end(0)
        expect(watch.out.count('migration e') == 1
               and watch.out.count('pass 1') == 1, watch.out)


def only_the_first(work: Path) -> None:
    """Without --follow it ends with the migration that it has watched."""
    first = a_record('one', [a_pass(1)], outcome='failed', downtime=None)
    second = a_record('two', [a_pass(1)])
    with _both(work) as (qemu, watch):
        qemu.start(first)
        qemu.end_pass(first['passes'][0])
        watch.wait_for('pass 1: ')
        with qemu.changing():
            qemu.end(first)
            qemu.start(second)
            qemu.end_pass(second['passes'][0])
        watch.end(1)
        in_order(watch.out, 'one: failed')
        expect('two' not in watch.out, watch.out)


def same_failure_again(work: Path) -> None:
    """A failure as the last one, between two looks, is not missed."""
    with _qemu(work) as qemu:
        before = a_record('', [], outcome='failed', error='refused',
                          downtime=None, predicted_downtime=None)
        qemu.history = [before]
        qemu.info = {'status': 'failed', 'error-desc': 'refused'}
        with watched(work / 'qmp') as watch:
            watch.wait_for(WAITING)
            with qemu.changing():
                qemu.history.append({**before, 'start': before['start'] + 1})
            watch.end(1)
            expect(watch.out.count('failed after') == 1, watch.out)


def tcp(work: Path) -> None:
    """HOST:PORT, and nobody there any more."""
    del work
    qemu = FakeQemu(('127.0.0.1', 0))
    address = f'127.0.0.1:{qemu.port}'
    with contextlib.closing(qemu), watched(address) as watch:
        watch.wait_for(WAITING)
        _migrate(qemu, a_record('t', [a_pass(1)]))
        watch.end(0)
    with watched(address) as watch:
        watch.fail(address, 'refused')


def not_there(work: Path) -> None:
    """No such socket; a file that is none; one without a listener."""
    with watched(work / 'none') as watch:
        watch.fail('none', 'No such file')
    (work / 'file').touch()
    with watched(work / 'file') as watch:
        watch.fail('file', 'refused')
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as stale:
        stale.bind(str(work / 'stale'))
    with watched(work / 'stale') as watch:
        watch.fail('stale', 'refused')


def monitor_in_use(work: Path) -> None:
    """QEMU does not greet a second client."""
    with _both(work) as (_, first):
        with watched(work / 'qmp') as second:
            second.fail('Is another client using this monitor?')
        first.interrupt()
        first.end(130)


def human_monitor(work: Path) -> None:
    """The other protocol; and one who hangs up."""
    with _qemu(work) as qemu:
        for greeting, words in (
                (b'QEMU 10.2.2 monitor - type \'help\'\r\n(qemu) ',
                 'this is not QMP'),
                (b'{"hello": 1}\n', 'this is not QMP')):
            qemu.greeting = greeting
            with watched(work / 'qmp') as watch:
                watch.fail('qmp', words)


def reader_ends(work: Path) -> None:
    """As with "| head"."""
    with _both(work) as (qemu, watch):
        watch.stop_reading()
        _migrate(qemu, a_record('h', [a_pass(1)]))
        watch.end(2)


CASES = [
    ('live', live), ('line on a terminal', terminal_line),
    ('attached late', attach_late),
    ('last pass only in the history', last_pass_unheard),
    ('failed', failed), ('cancelled', cancelled), ('abort', gives_up),
    ('observe', observes), ('capability off', capability_off),
    ('QEMU without the capability', old_qemu), ('incoming', incoming),
    ('incoming, no record yet', incoming_later), ('COLO', colo),
    ('event after the end', event_after_the_end),
    ('progress without a terminal', plain_progress),
    ('QEMU quits at the end', gone_at_the_end),
    ('connection lost', lost), ('connection lost while waiting', lost_idle),
    ('no JSON', garbled), ('bad event', bad_event),
    ('QEMU hangs', no_answer), ('interrupted', interrupted),
    ('two in a row', two_in_a_row), ('two without --follow', only_the_first),
    ('the same failure again', same_failure_again), ('TCP', tcp),
    ('socket not there', not_there), ('monitor in use', monitor_in_use),
    ('not QMP', human_monitor), ('reader ends', reader_ends)]
