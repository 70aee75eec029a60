"""
What the runs of all rounds say: a row per load and arm, and the aims.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from middle import Middle

from .arms import ARMS
from .run import Run

OURS = 'convergence'
RING = 'convergence-ring'
Value = Callable[[Run], float | None]

# ms by which two blackouts of the same length differ
_SAME_MS = 5.0
# ms that a prediction may be wrong, and the share of runs in which it is not
_NEAR_MS = 50.0
_NEAR_SHARE = 0.9
_SOON = 1.2


@dataclass(frozen=True)
class Hard:
    """What is wanted of a load with which the default never ends."""
    seconds: float
    mib: float
    lost_s: float
    gap_ms: float


_HARD = {'hot-150': Hard(9, 900, 0.35, 100), 'hot-400': Hard(9, 900, 1.9, 100)}
_SWEEP = {'seconds': 0.5, 'mib': 0.5, 'lost_s': 0.4}
_ORACLE = 1.1
_CALM = 1.03
_NEIGHBOUR = 5.0


def _with_common_speed(runs: list[Run]) -> list[Run]:
    """
    How fast a guest is at most depends on what else the host does at that
    moment: what it has lost is told by the median speed of its round.
    """
    speeds: dict[tuple[str, int], list[float]] = {}
    for run in runs:
        if run.flat_out:
            speeds.setdefault((run.load, run.round), []).append(run.normal)
    return [replace(run, lost_s=run.span_s - run.done / statistics.median(
                speeds[run.load, run.round])) if run.flat_out else run
            for run in runs]


def _more_lost(mine: list[float], base: list[float]) -> float:
    """Per cent, in the time that both took: most is lost in the first pass."""
    both = min(len(mine), len(base))
    return 100 * (statistics.mean(base[:both]) - statistics.mean(mine[:both]))


class Score:
    """Runs, by load and arm."""

    def __init__(self, runs: Iterable[Run], downtime_ms: int) -> None:
        self._limit_ms = downtime_ms
        self._runs: dict[tuple[str, str], dict[int, Run]] = {}
        for run in _with_common_speed(list(runs)):
            self._runs.setdefault((run.load, run.arm), {})[run.round] = run

    def of(self, load: str, arm: str) -> list[Run]:
        """The runs that were no errors."""
        return [run for run in self._runs.get((load, arm), {}).values()
                if run.status != 'error']

    def loads(self) -> list[str]:
        """In the order of their first runs."""
        return list(dict.fromkeys(load for load, _ in self._runs))

    def arms(self, load: str) -> list[str]:
        """Those with runs of this load, in the order of ARMS."""
        return [arm for arm in ARMS if (load, arm) in self._runs]

    def values(self, load: str, arm: str, name: str) -> list[float]:
        """One for each run that has it."""
        values = [getattr(run, name) for run in self.of(load, arm)]
        return [value for value in values if value is not None]

    def pairs(self, load: str, mine: str, base: str,
              name: str) -> list[tuple[float, float]]:
        """
        The values of both in each round that has both, and in which mine has
        not given up.
        """
        first, second = (self._runs.get((load, arm), {})
                         for arm in (mine, base))
        both = [(getattr(first[i], name), getattr(second[i], name))
                for i in first if i in second and first[i].ended
                and second[i].status != 'error']
        return [(a, b) for a, b in both if a is not None and b is not None]

    def ratio(self, load: str, mine: str, base: str,
              name: str) -> Middle | None:
        """
        Of each pair. A base that has no end has at least the value of the
        time that it was given.
        """
        ratios = [a / b for a, b in self.pairs(load, mine, base, name)
                  if b > 0]
        return Middle.of(ratios) if ratios else None

    def converges(self, load: str, arm: str) -> bool:
        """Does every run switch over, in the time that it may take?"""
        runs = self.of(load, arm)
        return bool(runs) and all(run.ended for run in runs) and (
            statistics.median(self.values(load, arm, 'blackout_ms'))
            <= self._limit_ms)

    def oracle(self, load: str) -> str | None:
        """The best of upstream's arms, chosen afterwards."""
        able = [arm for arm in self.arms(load)
                if not ARMS[arm].ours and self.converges(load, arm)]
        return min(able, default=None, key=lambda arm: statistics.median(
            self.values(load, arm, 'seconds')))

    # the table

    def row(self, load: str, arm: str) -> str:
        """Medians."""
        runs = self.of(load, arm)
        errors = len(self._runs[load, arm]) - len(runs)
        ends = [f'{word} {count}' for word in ('completed', 'no end', 'failed')
                if (count := sum(run.status == word for run in runs))]
        if errors:
            ends.append(f'ERROR {errors}')
        cells = [f'{load:10} {arm:16} {", ".join(ends):14}']
        for name, width, digits in (
                ('seconds', 6, 1), ('mib', 6, 0), ('passes', 4, 0),
                ('predicted_downtime_ms', 6, 0), ('downtime_ms', 6, 0),
                ('blackout_ms', 6, 0), ('gap_ms', 6, 0), ('lost_s', 6, 2),
                ('neighbour_lost', 6, 1)):
            values = self.values(load, arm, name)
            cells.append(f'{statistics.median(values):{width}.{digits}f}'
                         if values else ' ' * (width - 1) + '-')
        if arm != OURS:
            for name in ('seconds', 'mib'):
                ratio = self.ratio(load, OURS, arm, name)
                cells.append(f'{str(ratio) if ratio else "-":>17}')
        return ' '.join(cells)

    def table(self) -> list[str]:
        """All rows."""
        return [self.row(load, arm)
                for load in self.loads() for arm in self.arms(load)]

    # the aims

    def aims(self) -> list[str]:
        """Each with what was measured, and met or not."""
        return [*self._ends(), *self._hard(), *self._against_auto_converge(),
                *self._against_oracle(), *self._calm(), *self._neighbour(),
                *self._honest()]

    def _ends(self) -> list[str]:
        """What is said below is only of the runs that have switched over."""
        return [f'{load}: {OURS} has switched over in '
                f'{sum(run.ended for run in runs)} of {len(runs)} runs'
                for load in self.loads()
                if (runs := self.of(load, OURS))
                and not all(run.ended for run in runs)]

    def _hard(self) -> list[str]:
        lines = []
        for load, aim in _HARD.items():
            for name, most in vars(aim).items():
                values = [getattr(run, name) for run in self.of(load, OURS)
                          if run.ended and getattr(run, name) is not None]
                if values:
                    middle = Middle.of(values)
                    lines.append(f'{load}: {name} at most {most:g}: {middle}: '
                                 f'{middle.verdict(most)}')
        return lines

    def _compare(self, load: str, base: str, name: str, most: float,
                 what: str) -> list[str]:
        ratio = self.ratio(load, OURS, base, name)
        if not ratio:
            return []
        verdict = ratio.verdict(most)
        if verdict != 'met' and any(run.status == 'no end'
                                    for run in self.of(load, base)):
            verdict = f'or less, as {base} had no end: not decided'
        return [f'{load}: {name} at most {most:g} of {what}: {ratio}: '
                f'{verdict}']

    def _against_auto_converge(self) -> list[str]:
        return [line for load in ('sweep', 'sweep-1000')
                for name, most in _SWEEP.items()
                for line in self._compare(load, 'auto-converge', name, most,
                                          'that of auto-converge')]

    def _against_oracle(self) -> list[str]:
        lines = []
        for load in self.loads():
            best = self.oracle(load)
            for name in ('seconds', 'mib') if best else ():
                lines += self._compare(load, str(best), name, _ORACLE,
                                       f'the oracle ({best})')
        return lines

    def _calm(self) -> list[str]:
        lines = []
        for load in self.loads():
            if not self.converges(load, 'default'):
                continue
            for name in ('seconds', 'mib'):
                lines += self._compare(load, 'default', name, _CALM,
                                       'the default, which converges')
            longer = [a - b for a, b in self.pairs(load, OURS, 'default',
                                                   'blackout_ms')]
            if longer:
                middle = Middle.of(longer)
                lines.append(f'{load}: blackout not longer than the '
                             f"default's (+{_SAME_MS:g} ms): {middle} ms: "
                             f'{middle.verdict(_SAME_MS)}')
        return lines

    def _neighbour(self) -> list[str]:
        lines = []
        for arm, same in (OURS, 'default'), (RING, 'default-ring'):
            more = [_more_lost(a, b) for a, b in self.pairs(
                'neighbour', arm, same, 'neighbour_series')]
            for values, what in (
                    (self.values('neighbour', arm, 'neighbour_lost'), ''),
                    (more, f' more than with {same}'),
                    (self.values('neighbour', arm, 'neighbour_slowed'),
                     ' more while the guest is slowed down')):
                if values:
                    middle = Middle.of(values)
                    lines.append(
                        f'neighbour, {arm}: loses at most {_NEIGHBOUR:g} %'
                        f'{what}: {middle}: {middle.verdict(_NEIGHBOUR)}')
        return lines

    def _honest(self) -> list[str]:
        """Is what happens what was predicted?"""
        runs = [run for load in self.loads() for arm in (OURS, RING)
                for run in self.of(load, arm)]
        lines = []
        off = [run.predicted_downtime_ms - run.blackout_ms
               for run in runs if run.blackout_ms is not None
               and run.predicted_downtime_ms is not None]
        if off:
            near = sum(abs(error) <= _NEAR_MS for error in off) / len(off)
            lines.append(
                f'blackout within {_NEAR_MS:g} ms of what was predicted in '
                f'{_NEAR_SHARE:.0%} of the runs: {near:.0%} of {len(off)}; '
                f'{min(off):+.0f} to {max(off):+.0f} ms, median '
                f'{statistics.median(off):+.0f} ms: '
                + ('met' if near >= _NEAR_SHARE else 'NOT met'))
        late = [run.seconds / run.predicted_s for run in runs
                if run.predicted_s]
        endless = sum(run.status == 'no end' for run in runs)
        if runs:
            worst = f', at the latest after {max(late):.2f}' if late else ''
            lines.append(
                f'an end within {_SOON:g} of what was predicted after the '
                f'third pass: {len(late)} predictions{worst}; {endless} of '
                f'{len(runs)} runs without an end: '
                + ('met' if not endless and all(x <= _SOON for x in late)
                   else 'NOT met'))
        return lines

    def result(self) -> list[dict]:
        """Of each load: medians of all arms, ratios, and the oracle."""
        return [{'load': load, 'oracle': self.oracle(load), 'arms': {
            arm: {'median': {
                name: statistics.median(values)
                for name in ('seconds', 'mib', 'passes', 'downtime_ms',
                             'blackout_ms', 'gap_ms', 'lost_s',
                             'neighbour_lost')
                if (values := self.values(load, arm, name))},
                  'ratio': {
                name: vars(ratio) for name in ('seconds', 'mib', 'lost_s')
                if (ratio := self.ratio(load, OURS, arm, name))}}
            for arm in self.arms(load)}} for load in self.loads()]


HEADER = (
    'load       arm              how it ended        s    MiB pass predic   '
    'told  black    gap   lost  neigh  ratio of "convergence" to it\n'
    '                                                             '
    '     ms     ms     ms     ms      s      %   seconds           MiB')
