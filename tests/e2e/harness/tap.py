"""
A list of test cases run one after the other, reported in TAP.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import signal
import time
import traceback
from collections.abc import Callable, Iterator


class Failure(Exception):
    """What was promised is not so."""


class TimeLimit(Failure):
    """The case takes too long."""


class Skip(Exception):
    """The case cannot be run here, for this reason."""


def expect(promise: object, message: object) -> None:
    """Fail the case unless the promise is kept."""
    if not promise:
        raise Failure(message)


def note(text: object) -> None:
    """A diagnostic line."""
    for line in str(text).splitlines():
        print(f'#   {line}', flush=True)


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise in the main thread when the block takes too long."""
    def expired(_signal: int, _frame: object) -> None:
        raise TimeLimit(f'not done after {seconds} s')

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(cases: list[tuple[str, Callable[[], None]]], limit: int) -> int:
    """Run the cases, each for at most @limit seconds; the exit status."""
    print(f'1..{len(cases)}', flush=True)
    failed = 0
    for i, (name, case) in enumerate(cases, 1):
        start = time.monotonic()
        try:
            with time_limit(limit):
                case()
            verdict, suffix = 'ok', ''
        except Skip as reason:
            verdict, suffix = 'ok', f' # SKIP {reason}'
        except Failure as failure:
            verdict, suffix = 'not ok', ''
            note(failure)
        except Exception:       # pylint: disable=broad-except
            verdict, suffix = 'not ok', ''
            note(traceback.format_exc(limit=5, chain=False))
        failed += verdict != 'ok'
        print(f'{verdict} {i} - {name}{suffix}', flush=True)
        note(f'{time.monotonic() - start:.1f} s')
    return 1 if failed else 0
