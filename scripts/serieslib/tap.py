# SPDX-License-Identifier: GPL-2.0-or-later
"""Run programs that print TAP, count every case, leave no process behind."""

import ctypes
import os
import re
import select
import signal
import subprocess
import time
from dataclasses import dataclass

_RESULT = re.compile(r'^(not )?ok\b(?: +\d+)?(?:[ -]+)?(.*?)'
                     r'(?: *# *SKIP\b:? *(.*))?$', re.I)
_PLAN = re.compile(r'^1\.\.(\d+)(?: *# *SKIP\S* *(.*))?$', re.I)
_PR_SET_CHILD_SUBREAPER = 36
# Of a failed case; a fuzz case prints the stacks of a QEMU that hangs.
_MAX_LINES = 200


@dataclass
class Count:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    @property
    def total(self):
        return self.passed + self.failed + self.skipped

    def __str__(self):
        return (f'{self.passed} passed, {self.failed} failed, '
                f'{self.skipped} skipped')


def run(name, command, timeout, verbose=False, **popen):
    """Run one test program and print what a reader needs; return a Count."""
    _adopt_orphans()
    begin = time.monotonic()
    reader = _Reader(name, verbose)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          **popen) as program:
        try:
            for line in _lines(program.stdout, begin + timeout):
                reader.line(line)
        except TimeoutError:
            program.kill()
            reader.failure(f'not finished after {timeout} s')
    _end_orphans()
    reader.finish(program.returncode)
    print(f'  {name}: {reader.count} ({time.monotonic() - begin:.1f} s)',
          flush=True)
    return reader.count


def _lines(pipe, deadline):
    """The lines of @pipe, until its end or a TimeoutError."""
    rest = b''
    while True:
        left = max(0, deadline - time.monotonic())
        if not select.select([pipe], [], [], left)[0]:
            raise TimeoutError
        data = os.read(pipe.fileno(), 65536)
        *lines, rest = (rest + data).split(b'\n')
        if not data and rest:
            lines.append(rest)
        yield from (line.decode(errors='replace') for line in lines)
        if not data:
            return


class _Reader:
    def __init__(self, name, verbose):
        self.name = name
        self.verbose = verbose
        self.count = Count()
        self.planned = None
        # What was printed since the last result
        self.lines = []

    def line(self, line):
        self.lines = self.lines[1 - _MAX_LINES:] + [line]
        if line.startswith('# seed'):
            print(f'  {self.name}: {line[2:]}', flush=True)
        if match := _PLAN.match(line):
            self.planned = int(match[1])
            if match[2] is not None and not self.planned:
                self._skip('all', match[2])
                self.planned = None
        elif match := _RESULT.match(line):
            self._result(*match.groups())
            self.lines = []

    def _result(self, bad, case, reason):
        if reason is not None:
            self._skip(case, reason)
        elif bad:
            self.failure(case)
        else:
            self.count.passed += 1
            if self.verbose:
                print(f'  pass {self.name}: {case}', flush=True)

    def _skip(self, case, reason):
        self.count.skipped += 1
        print(f'  SKIP {self.name}: {case}: {reason or "no reason given"}',
              flush=True)

    def finish(self, status):
        """Object to what the results alone do not tell."""
        total = self.count.total
        if self.count.failed:
            return
        if status:
            self.failure(f'exit status {status}')
        elif self.planned not in (None, total):
            self.failure(f'{self.planned} cases announced, {total} run')
        elif not total:
            self.failure('no test case was run')

    def failure(self, case):
        self.count.failed += 1
        print(f'  FAIL {self.name}: {case}', flush=True)
        print(''.join(f'    | {line}\n' for line in self.lines), end='',
              flush=True)


def _adopt_orphans():
    """Processes whose parent dies become our children, to be ended."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_orphans():
    # Ending one may hand us its own children.
    while children := _children():
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _children():
    mine = set()
    for entry in os.listdir('/proc'):
        try:
            with open(f'/proc/{entry}/stat', encoding='utf-8') as file:
                # The name may hold spaces; the fields after it do not.
                parent = file.read().rpartition(')')[2].split()[1]
        except (OSError, ValueError):
            continue
        if entry.isdigit() and int(parent) == os.getpid():
            mine.add(int(entry))
    return mine
