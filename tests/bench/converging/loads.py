"""
The loads: what the guest does to its memory while it is migrated.

SPDX-License-Identifier: GPL-2.0-or-later
"""

from harness.worker import Kind, Load, Phase


def _hot(rate: int) -> Load:
    """90 % of the writes to 64 MiB, the others anywhere."""
    return Load((Phase(Kind.SCATTER, rate),))


LOADS = {
    'idle': Load((Phase(Kind.IDLE),)),
    'hot-20': _hot(20),
    'hot-80': _hot(80),
    'hot-150': _hot(150),
    'hot-400': _hot(400),
    # every word of all pages, one after the other, without a pause
    'sweep': Load((Phase(Kind.SWEEP),)),
    'sweep-1000': Load((Phase(Kind.SWEEP, 1000),)),
    # half of the accesses are writes
    'zipf': Load((Phase(Kind.ZIPF, 800),)),
    # calm, then busy elsewhere, and calm again
    'phase': Load((Phase(Kind.SCATTER, 20, until=3),
                   Phase(Kind.SCATTER, 400, hot_first=128, until=8),
                   Phase(Kind.SCATTER, 80, hot_first=256))),
    'neighbour': Load((Phase(Kind.SCATTER, 400),), neighbour=True),
}
# those that say most in the time that they take
DEFAULT = [name for name in LOADS if name != 'sweep-1000']
