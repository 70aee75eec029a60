"""
The plots of migration-watch.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import importlib.util
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from harness.tap import Skip, expect

from fakeqemu import FakeQemu, a_pass, a_record
from watched import in_order, watched, write


def _needs_matplotlib() -> None:
    if not importlib.util.find_spec('matplotlib'):
        raise Skip('python3-matplotlib is not installed')


def _a_record(name: str = 'web1') -> dict[str, Any]:
    return a_record(name, [
        a_pass(1), a_pass(2, decision='throttle', next_throttle=60),
        a_pass(3, decision='withhold', throttle=60, pages_withheld=100),
        a_pass(4, decision='polish', pages_remaining=200),
        a_pass(5, decision='switch-over', pages_remaining=0)])


def _plot(work: Path, record: dict[str, Any], *names: str,
          **environment: str) -> None:
    path = write(work / 'record.json', json.dumps(record))
    args = [arg for name in names for arg in ('--plot', work / name)]
    with watched('--from', path, *args, **environment) as watch:
        watch.end(0)


def _elements(path: Path, name: str) -> Iterator[ElementTree.Element]:
    """Of an SVG file, which must be well-formed."""
    return ElementTree.parse(path).getroot().iter(
        f'{{http://www.w3.org/2000/svg}}{name}')


def _texts(path: Path) -> list[str]:
    """The words in an SVG file."""
    return [''.join(element.itertext()).strip()
            for element in _elements(path, 'text')]


def svg(work: Path) -> None:
    """Axes with units, all curves and all decisions have their names."""
    _needs_matplotlib()
    _plot(work, _a_record(), 'x.svg')
    texts = _texts(work / 'x.svg')
    for text in ('time since the start of the migration (s)', 'rate (MiB/s)',
                 'throttle of the vCPUs (%)', 'remaining at the end of a pass',
                 'dirty rate', 'bandwidth', 'bandwidth, lower bound',
                 'max-bandwidth', 'remaining', 'of these withheld',
                 'fits in the downtime limit', 'continue', 'throttle',
                 'withhold', 'polish', 'switch-over', '1 MiB',
                 'downtime: 31 ms, predicted 80 ms, limit 300 ms'):
        expect(text in texts, f'"{text}" is not in {texts}')
    expect('abort' not in texts, 'a decision that was not taken')
    expect(any(text.startswith('web1: completed after 5.2 s')
               for text in texts), texts)


def png(work: Path) -> None:
    """A picture of a size that is fit for reading."""
    _needs_matplotlib()
    _plot(work, _a_record(), 'x.PNG', 'x.svg')
    data = (work / 'x.PNG').read_bytes()
    expect(data.startswith(b'\x89PNG\r\n\x1a\n'), data[:8])
    width, height = struct.unpack('>II', data[16:24])
    expect(width >= 1000 and height >= 800, (width, height))
    expect((work / 'x.svg').exists(), 'only one of two plots')


def same_again(work: Path) -> None:
    """The same record is the same file, whoever draws it and when."""
    _needs_matplotlib()
    names = ('x.svg', 'x.png')
    _plot(work, _a_record(), *names, PYTHONHASHSEED='1')
    first = [(work / name).read_bytes() for name in names]
    style = work / 'style'
    style.mkdir()
    write(style / 'matplotlibrc', 'axes.facecolor: red\nfont.size: 20\n')
    _plot(work, _a_record(), *names, PYTHONHASHSEED='2', TZ='Asia/Tokyo',
          SOURCE_DATE_EPOCH='1', MPLCONFIGDIR=str(style))
    expect([(work / name).read_bytes() for name in names] == first,
           'they differ')


def odd_records(work: Path) -> None:
    """One pass, nothing but zeros, passes dropped, names of any kind."""
    _needs_matplotlib()
    zeros = dict.fromkeys(('duration', 'dirty_rate', 'bandwidth', 'time',
                           'bandwidth_low', 'switchover_bandwidth',
                           'pages_remaining', 'pages_sent'), 0)
    odd = [a_record('one', [a_pass(1)]),
           a_record('zeros', [a_pass(1, **zeros)], total_time=0,
                    max_bandwidth=0, downtime_limit=0),
           a_record('least', [a_pass(1)], downtime_limit=None,
                    max_bandwidth=None, downtime=None,
                    predicted_downtime=None, passes_dropped=None, mode=None),
           a_record('huge', [a_pass(1, dirty_rate=(1 << 64) - 1,
                                    pages_remaining=(1 << 64) - 1)]),
           a_record('$x_{$ <&> \x1b', [a_pass(1, decision='$\\frac{')],
                    error='$\\bogus{$ ' + 'long ' * 100),
           a_record('_hidden', [a_pass(1, decision='_d')])]
    for record in odd:
        _plot(work, record, 'x.svg', 'x.png')
        expect(_texts(work / 'x.svg'), record['id'])


def passes_dropped(work: Path) -> None:
    """Where passes are missing no curve goes on."""
    _needs_matplotlib()
    _plot(work, a_record('gap', [
        a_pass(15), a_pass(16), a_pass(161), a_pass(162)]), 'x.svg')
    expect('144 passes not kept' in _texts(work / 'x.svg'), 'not said')
    # bandwidth, and what remains
    lines = [path.get('d', '') for path in _elements(work / 'x.svg', 'path')
             if 'stroke: #0072b2' in path.get('style', '')]
    expect([line.count('M') for line in lines].count(2) == 2, lines)


def no_pass(work: Path) -> None:
    """Nothing to draw is an error that says so."""
    _needs_matplotlib()
    path = write(work / 'x.json', json.dumps(a_record('x', [])))
    with watched('--from', path, '--plot', work / 'x.svg') as watch:
        watch.fail('x.svg is not written', 'no pass is recorded', 'x')
    expect(not (work / 'x.svg').exists(), 'it is written')


def after_a_migration(work: Path) -> None:
    """Both files are there when it ends, of what QEMU has recorded."""
    _needs_matplotlib()
    qemu = FakeQemu(work / 'qmp')
    try:
        with watched(work / 'qmp', '--plot', work / 'x.svg', '--plot',
                     work / 'x.png', '--save', work / 'x.json',
                     '--follow') as watch:
            watch.wait_for('waiting')
            # nothing to draw is no reason to end, with --follow
            record = a_record('refused', [], outcome='failed', downtime=None)
            qemu.start(record)
            qemu.end(record)
            watch.wait_for('x.svg is not written')
            record = _a_record('live')
            record['start'] += 1
            qemu.start(record)
            qemu.end(record)
            watch.wait_for('live: completed')
            qemu.wait_for('query-migrate', 2)
            qemu.drop()
            watch.end(0)
    finally:
        qemu.close()
    in_order(' '.join(_texts(work / 'x.svg')), 'live: completed')
    expect((work / 'x.png').stat().st_size > 10_000, 'PNG')
    expect(json.loads((work / 'x.json').read_text()) == record, 'JSON')


def no_matplotlib(work: Path) -> None:
    """Said before anything else, and only if a plot is asked for."""
    fake = work / 'matplotlib'
    fake.mkdir()
    write(fake / '__init__.py', 'raise ImportError("not today")')
    path = write(work / 'x.json', json.dumps(_a_record()))
    with watched('--from', path, '--plot', work / 'x.svg',
                 PYTHONPATH=str(work)) as watch:
        watch.fail('--plot needs', 'matplotlib', 'not today')
        expect(not watch.out, watch.out)
    with watched('--from', path, PYTHONPATH=str(work)) as watch:
        watch.end(0)


CASES = [
    ('SVG', svg), ('PNG', png), ('the same plot again', same_again),
    ('plots of odd records', odd_records),
    ('plot with passes dropped', passes_dropped), ('nothing to plot', no_pass),
    ('plots after a migration', after_a_migration),
    ('without matplotlib', no_matplotlib)]
