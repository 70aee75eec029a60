"""
Plot a migration: rates, what remains, and the throttle over time. Needs
matplotlib.

The same record gives the same file, byte by byte, with the same version of
matplotlib.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import textwrap
from typing import Any, Callable

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from .record import BadRecord, Pass, Record
from .text import printable, size, summary

# Okabe and Ito's colours, which colour-blind people can tell apart
_BLUE, _SKY, _GREEN = '#0072B2', '#56B4E9', '#009E73'
_ORANGE, _VERMILION, _PURPLE = '#E69F00', '#D55E00', '#CC79A7'
_BLACK, _GREY = '#000000', '#808080'

# Decisions differ in shape, too.
_MARKS = {'continue': ('.', _BLUE), 'throttle': ('v', _ORANGE),
          'polish': ('D', _GREEN), 'withhold': ('s', _PURPLE),
          'switch-over': ('*', _BLACK), 'postcopy': ('P', _BLACK),
          'abort': ('X', _VERMILION)}
_OTHER_MARK = ('h', _GREY)

_STYLE = {
    'axes.grid': True, 'axes.spines.right': False, 'axes.spines.top': False,
    'axes.titlesize': 'medium', 'font.size': 9.0, 'grid.alpha': 0.3,
    'legend.fontsize': 'small', 'legend.framealpha': 0.85,
    'lines.linewidth': 1.6, 'savefig.dpi': 120,
    # text stays text, and ids are no random numbers
    'svg.fonttype': 'none', 'svg.hashsalt': 'migration-watch'}
_MIB = 1024 * 1024

# breaks a line
_NAN = float('nan')

# Times, in seconds, and values
_Curve = tuple[list[float], list[float]]


def draw(record: Record, path: str) -> None:
    """
    Plot a record into a file, SVG or PNG by its name.

    Raises BadRecord if there is nothing to plot, OSError if the file cannot
    be written.
    """
    if not record['passes']:
        name = printable(record['id'])
        raise BadRecord(f'{path} is not written: no pass is recorded of '
                        f'migration {name} (was the capability "convergence" '
                        'on?)')
    kind = path.rpartition('.')[2].lower()
    # Neither a user's style nor the time may show.
    metadata: dict[str, Any] = {'Date': None, 'Creator': None} \
        if kind == 'svg' else {'Software': None}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        _figure(record).savefig(path, format=kind, metadata=metadata)


def _figure(record: Record) -> Figure:
    figure = Figure(figsize=(10, 8), layout='constrained')
    rates, remaining, throttle = figure.subplots(
        3, 1, sharex=True, gridspec_kw={'height_ratios': (3, 4, 2)})
    title = '\n'.join(line for paragraph in summary(record).splitlines()
                      for line in textwrap.wrap(paragraph, 100))
    figure.suptitle(title, fontsize='medium', parse_math=False)
    _rates(rates, record)
    _remaining(remaining, record)
    _throttle(throttle, record)
    for axes in (rates, remaining, throttle):
        _moments(axes, record)
    end = max(record['total-time'], record['passes'][-1]['time'])
    throttle.set_xlim(0, end / 1000 * 1.02 or 1)
    throttle.set_xlabel('time since the start of the migration (s)')
    return figure


def _holes(record: Record) -> list[tuple[Pass, Pass]]:
    """The passes before and after those that were not kept."""
    passes = record['passes']
    return [(before, after) for before, after in zip(passes, passes[1:])
            if after['pass'] > before['pass'] + 1]


def _curve(record: Record, value: Callable[[Pass], float],
           whole: bool) -> _Curve:
    """
    A value at the end of each pass, or one that holds for the @whole of it;
    with a break where passes are missing.
    """
    after_hole = {after['pass'] for _, after in _holes(record)}
    points = []
    for entry in record['passes']:
        if entry['pass'] in after_hole:
            points.append((_NAN, _NAN))
        if whole:
            begin = max(0, entry['time'] - entry['duration'])
            points.append((begin / 1000, value(entry)))
        points.append((entry['time'] / 1000, value(entry)))
    return [x for x, _ in points], [y for _, y in points]


def _rates(axes: Axes, record: Record) -> None:
    def mib(member: str) -> _Curve:
        return _curve(record, lambda entry: entry[member] / _MIB, True)

    axes.plot(*mib('dirty-rate'), color=_VERMILION, label='dirty rate')
    axes.plot(*mib('bandwidth'), color=_BLUE, label='bandwidth')
    axes.plot(*mib('bandwidth-low'), color=_SKY, linestyle='--',
              label='bandwidth, lower bound')
    if record.get('max-bandwidth'):
        axes.axhline(record['max-bandwidth'] / _MIB, color=_GREY,
                     linestyle=':', label='max-bandwidth')
    axes.set_ylim(bottom=0)
    axes.set_ylabel('rate (MiB/s)')
    _legend(axes)


def _remaining(axes: Axes, record: Record) -> None:
    def pages(member: str) -> _Curve:
        return _curve(record, lambda entry:
                      entry[member] * entry['page-size'], False)

    times, values = pages('pages-remaining')
    first = record['passes'][0]
    if first['pass'] == 1:
        # All that it had to send
        times.insert(0, max(0, first['time'] - first['duration']) / 1000)
        values.insert(0, first['pages-sent'] * first['page-size'])
    axes.plot(times, values, color=_BLUE, label='remaining')
    if any(entry['pages-withheld'] for entry in record['passes']):
        axes.plot(*pages('pages-withheld'), color=_PURPLE, linestyle='-.',
                  label='of these withheld')
    if limit := record.get('downtime-limit'):
        axes.plot(*_curve(record, lambda entry: entry['switchover-bandwidth']
                          * max(0, limit - entry['downtime-fixed']) / 1000,
                          False),
                  color=_GREEN, linestyle='--',
                  label='fits in the downtime limit')
    marked = dict.fromkeys(entry['decision'] for entry in record['passes'])
    for decision in marked:
        points = [entry for entry in record['passes']
                  if entry['decision'] == decision]
        shape, colour = _MARKS.get(decision, _OTHER_MARK)
        axes.plot([entry['time'] / 1000 for entry in points],
                  [entry['pages-remaining'] * entry['page-size']
                   for entry in points],
                  linestyle='', marker=shape, color=colour, markersize=7,
                  label=decision if decision in _MARKS else 'other decision')
    # Each pass may leave a fraction of the one before, or nothing at all.
    axes.set_yscale('symlog', base=4, linthresh=_MIB, linscale=0.5)
    axes.yaxis.set_major_formatter(FuncFormatter(
        lambda y, _: size(y).replace('.0 ', ' ')))
    axes.set_ylim(bottom=0)
    axes.set_ylabel('remaining at the end of a pass')
    _legend(axes)


def _throttle(axes: Axes, record: Record) -> None:
    times, values = _curve(record, lambda entry: entry['throttle'], True)
    axes.plot(times, values, color=_ORANGE)
    axes.fill_between(times, values, color=_ORANGE, alpha=0.25, linewidth=0)
    axes.set_ylim(0, 100)
    axes.set_ylabel('throttle of the vCPUs (%)')


def _moments(axes: Axes, record: Record) -> None:
    """Where the decision becomes another one, and where passes are missing."""
    passes = record['passes']
    for before, entry in zip(passes, passes[1:]):
        if entry['decision'] != before['decision']:
            axes.axvline(entry['time'] / 1000, color=_GREY, linewidth=0.8,
                         alpha=0.6, zorder=0)
    for before, after in _holes(record):
        begin, end = before['time'], after['time'] - after['duration']
        if end > begin:
            axes.axvspan(begin / 1000, end / 1000, facecolor='none',
                         edgecolor=_GREY, alpha=0.3, hatch='//', zorder=0)
            number = after['pass'] - before['pass'] - 1
            axes.annotate(f'{number} passes not kept',
                          ((begin + end) / 2000, 0.5),
                          xycoords=('data', 'axes fraction'), ha='center')


def _legend(axes: Axes) -> None:
    axes.legend(loc='upper left', bbox_to_anchor=(1, 1), borderaxespad=0.3)
