# SPDX-License-Identifier: GPL-2.0-or-later
"""The runner counts every case, and leaves no process behind."""

import contextlib
import io
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).absolute().parents[2] / 'scripts'))

from serieslib import tap  # noqa: E402 (the path must be set first)


class Runner(unittest.TestCase):

    def run_sh(self, script, timeout=20):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            count = tap.run('x', ['sh', '-c', script], timeout)
        return (count.passed, count.failed, count.skipped), said.getvalue()

    def run_tap(self, *lines, status=0):
        echo = '; '.join(f"echo '{line}'" for line in lines)
        return self.run_sh(f'{echo}; exit {status}')

    def test_counts(self):
        count, said = self.run_tap('# seed 7', '1..3', '# fine', 'ok 1 /a/b',
                                   '# broken', 'not ok 2 /a/c - ERROR:x.c:1',
                                   'ok 3 /a/d # SKIP no device')
        self.assertEqual(count, (1, 1, 1))
        self.assertIn('FAIL x: /a/c', said)
        self.assertIn('seed 7', said)
        self.assertIn('# broken', said)
        self.assertNotIn('# fine', said)
        self.assertIn('SKIP x: /a/d: no device', said)

    def test_skip_of_all(self):
        count, said = self.run_tap('1..0 # SKIP no KVM')
        self.assertEqual(count, (0, 0, 1))
        self.assertIn('no KVM', said)

    def test_exit_status_is_a_failure(self):
        count, said = self.run_tap('ok 1 a', status=3)
        self.assertEqual(count, (1, 1, 0))
        self.assertIn('exit status 3', said)

    def test_fewer_cases_than_announced(self):
        count, said = self.run_tap('1..2', 'ok 1 a')
        self.assertEqual(count, (1, 1, 0))
        self.assertIn('2 cases announced, 1 run', said)

    def test_no_case_is_a_failure(self):
        self.assertEqual(self.run_tap('hello')[0], (0, 1, 0))

    def test_timeout(self):
        begin = time.monotonic()
        count, said = self.run_sh('echo ok 1 a; sleep 60', timeout=1)
        self.assertLess(time.monotonic() - begin, 30)
        self.assertEqual(count, (1, 1, 0))
        self.assertIn('not finished after 1 s', said)

    def test_no_process_is_left(self):
        # The child leaves the session, and says its id on its way.
        count, said = self.run_sh(
            'setsid sleep 61 >/dev/null 2>&1 & echo "ok 1 $!"')
        self.assertEqual(count, (1, 0, 0))
        self.assertNotIn('sleep 61', self.commands())
        self.assertIn('1 passed', said)

    @staticmethod
    def commands():
        found = []
        for entry in Path('/proc').glob('[0-9]*/cmdline'):
            with contextlib.suppress(OSError):
                found.append(entry.read_text().replace('\0', ' ').strip())
        return found
