"""
A process of a test that is stopped, continued and ended at will.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .tap import Failure

# No promise is about it: how long something may take that always ends
PATIENCE = 30


def until(done: Callable[[], bool], what: str,
          patience: float = PATIENCE) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + patience
    while not done():
        if time.monotonic() > deadline:
            raise Failure(f'{what}: waited for in vain ({patience} s)')
        time.sleep(0.005)


class Process:
    """
    Runs in the background, with its output in a log. The kernel kills it when
    the thread ends that has made it.
    """

    def __init__(self, argv: Sequence[object], log: Path,
                 pass_fds: Sequence[int] = ()) -> None:
        self.name = Path(str(argv[0])).name
        self._log = log
        with open(log, 'ab') as output:
            # pylint: disable=consider-using-with
            self._popen = subprocess.Popen(
                ['setpriv', '--pdeathsig', 'KILL', *map(str, argv)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                pass_fds=pass_fds)
        self.pid = self._popen.pid

    def __enter__(self) -> 'Process':
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def output(self) -> str:
        """What it has said up to now."""
        return self._log.read_text(errors='replace').strip()

    def status(self) -> int | None:
        """The exit status; None while it runs."""
        return self._popen.poll()

    def await_file(self, path: Path) -> None:
        """Wait until the process has made a file or socket."""
        def made() -> bool:
            if self.status() is not None:
                raise Failure(f'{self.name} has ended: {self.output()}')
            return path.exists()
        until(made, f'{self.name} makes {path.name}')

    def freeze(self) -> None:
        """Stop it; returns when all its threads stand still."""
        self.signal(signal.SIGSTOP)
        until(lambda: all(state == 'T' for state in self.tasks('State')),
              f'{self.name} stops')

    def thaw(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        self._popen.send_signal(number)

    def cpu_seconds(self) -> float:
        """The CPU time that its first thread has had."""
        return _sched(self.pid)[0]

    def wait(self, patience: float) -> float | None:
        """When it has ended (time.perf_counter()); None if it has not."""
        try:
            self._popen.wait(patience)
        except subprocess.TimeoutExpired:
            return None
        return time.perf_counter()

    def end(self) -> None:
        """End it, however it is."""
        if self.status() is not None:
            return
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        if self.wait(5) is None:
            self.signal(signal.SIGKILL)
            if self.wait(5) is None:
                raise Failure(f'{self.name} cannot be killed')

    def tasks(self, key: str) -> list[str]:
        """First words in /proc/PID/task/*/status; '' where there are none."""
        values = []
        for task in Path(f'/proc/{self.pid}/task').glob('*/status'):
            try:
                lines = task.read_text().splitlines()
            except OSError:
                continue
            fields = dict(line.split(':', 1) for line in lines)
            values.append(' '.join(fields.get(key, '').split()[:1]))
        return values

    def runs_no_code(self) -> bool:
        """
        Is every thread about to vanish without leaving the kernel again? It
        has given its memory back, or has SIGKILL pending.
        """
        kill = 1 << (signal.SIGKILL - 1)
        return all(not memory or (pending and int(pending, 16) & kill)
                   for memory, pending in zip(self.tasks('VmSize'),
                                              self.tasks('SigPnd')))


def denied_seconds(process: int) -> float:
    """
    For how long the threads of a process, taken together, were ready to run
    and did not get a CPU.
    """
    return sum(_sched(int(task.name))[1]
               for task in Path(f'/proc/{process}/task').glob('*'))


def denied_here() -> float:
    """The same for this thread."""
    return _sched(threading.get_native_id())[1]


def _sched(task: int) -> tuple[float, float]:
    """Time on a CPU, and in the queue for one."""
    try:
        words = Path(f'/proc/{task}/schedstat').read_text().split()
    except OSError:
        return 0.0, 0.0
    return int(words[0]) / 1e9, int(words[1]) / 1e9
