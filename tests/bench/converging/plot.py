"""
A picture of one load: how fast the guest was while it was migrated with each
arm, and what that took. SVG, without a library.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import statistics
from collections.abc import Iterable
from html import escape

from .run import Run
from .score import Score

_WIDTH, _LEFT, _TOP = 960, 60, 40
_LINES_HEIGHT, _BARS_HEIGHT = 240, 150
_STEP_S = 0.1
_COLOURS = ('#7f7f7f', '#1f77b4', '#17becf', '#9467bd', '#8c564b', '#bcbd22',
            '#e377c2', '#d62728', '#ff7f0e')
_BARS = (('seconds', 's'), ('mib', 'MiB'), ('lost_s', 'guest-seconds lost'),
         ('gap_ms', 'longest gap, ms'))


def _text(x: float, y: float, text: str, anchor: str = 'start',
          colour: str = '#000') -> str:
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
            f'fill="{colour}">{escape(text)}</text>')


def _line(points: Iterable[tuple[float, float]], colour: str,
          width: float = 1.5) -> str:
    path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in points)
    return (f'<polyline points="{path}" fill="none" stroke="{colour}" '
            f'stroke-width="{width}"/>')


def _typical(runs: list[Run]) -> Run | None:
    """The run that took the median time."""
    ordered = sorted(runs, key=lambda run: run.seconds)
    return ordered[len(ordered) // 2] if ordered else None


def _speeds(score: Score, load: str, arms: list[str]) -> list[str]:
    """MiB per second that the guest works on, by time."""
    runs = {arm: run for arm in arms
            if (run := _typical(score.of(load, arm))) and run.series}
    if not runs:
        return []
    longest = max(len(run.series) for run in runs.values()) * _STEP_S
    most = max(max(run.series) for run in runs.values()) * 1.05
    across = (_WIDTH - 2 * _LEFT) / longest
    up = _LINES_HEIGHT / most
    bottom = _TOP + _LINES_HEIGHT
    out = [_line([(_LEFT, _TOP), (_LEFT, bottom),
                  (_WIDTH - _LEFT, bottom)], '#000', 1),
           _text(_LEFT - 5, _TOP + 10, f'{most:.0f}', 'end'),
           _text(_LEFT - 5, bottom, '0', 'end'),
           _text(_WIDTH - _LEFT, bottom + 15, f'{longest:.0f} s', 'end')]
    for arm, run in runs.items():
        out.append(_line([(_LEFT + (i + 0.5) * _STEP_S * across,
                           bottom - value * up)
                          for i, value in enumerate(run.series)],
                         _COLOURS[arms.index(arm)]))
    return out


def _bars(score: Score, load: str, arms: list[str]) -> list[str]:
    """The medians."""
    out = []
    wide = (_WIDTH - 2 * _LEFT) / len(_BARS)
    bottom = _TOP + _LINES_HEIGHT + 60 + _BARS_HEIGHT
    for number, (name, title) in enumerate(_BARS):
        left = _LEFT + number * wide
        values = {arm: max(statistics.median(samples), 0) for arm in arms
                  if (samples := score.values(load, arm, name))}
        out.append(_text(left, bottom - _BARS_HEIGHT - 8, title))
        most = max(values.values(), default=0) or 1
        bar = (wide - 20) / len(arms)
        for arm, value in values.items():
            x = left + arms.index(arm) * bar
            height = value / most * (_BARS_HEIGHT - 15)
            out.append(f'<rect x="{x:.1f}" y="{bottom - height:.1f}" '
                       f'width="{bar - 2:.1f}" height="{height:.1f}" '
                       f'fill="{_COLOURS[arms.index(arm)]}"/>')
            out.append(_text(x, bottom - height - 2,
                             f'{value:.0f}' if value >= 10
                             else f'{value:.1f}'))
    return out


def draw(load: str, score: Score) -> str:
    """The picture."""
    arms = score.arms(load)
    legend_top = _TOP + _LINES_HEIGHT + _BARS_HEIGHT + 85
    height = legend_top + 15 * len(arms)
    parts = [_text(_LEFT, 20, f'{load}: MiB/s that the guest works on, from '
                   'the start of the migration'),
             *_speeds(score, load, arms), *_bars(score, load, arms)]
    for i, arm in enumerate(arms):
        y = legend_top + 15 * i
        parts.append(f'<rect x="{_LEFT}" y="{y - 9}" width="10" height="10" '
                     f'fill="{_COLOURS[i]}"/>')
        parts.append(_text(_LEFT + 16, y, arm))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" '
            f'height="{height}" font-family="sans-serif" font-size="11">\n'
            '<rect width="100%" height="100%" fill="#fff"/>\n'
            + '\n'.join(parts) + '\n</svg>\n')
