"""
What the benchmarks tell of many samples.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import statistics
from dataclasses import dataclass


@dataclass
class Middle:
    """Where the middle of some samples is."""
    median: float
    quartiles: tuple[float, float]
    # 95 % confidence in the median, from the order of the samples alone
    low: float
    high: float

    @classmethod
    def of(cls, samples: list[float]) -> 'Middle':
        """Of these samples; one is enough."""
        low, median, high = (
            statistics.quantiles(samples, n=4, method='inclusive')
            if len(samples) > 1 else samples * 3)
        count = len(samples)
        rank = max(int(count / 2 - 0.98 * count ** 0.5), 0)
        ordered = sorted(samples)
        return cls(median, (low, high), ordered[rank], ordered[-1 - rank])

    def verdict(self, aim: float) -> str:
        """Is it at most that?"""
        if self.high <= aim:
            return 'met'
        return 'NOT met' if self.low > aim else 'not decided by this run'

    def __str__(self) -> str:
        return f'{self.median:5.2f} ({self.low:.2f}-{self.high:.2f})'
