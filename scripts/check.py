#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the tiers of tests that are named, and count every case.

Each tier leaves its count in build/check/; --total adds those up.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from serieslib import qemu, tap

ROOT = Path(__file__).absolute().parents[1]
BUILD = ROOT / 'build'
RECORDS = BUILD / 'check'
# Upstream tests that walk over every command and device, also over ours.
NEIGHBOURS = ('tests/qtest/qmp-cmd-test', 'tests/qtest/qmp-test',
              'tests/qtest/test-hmp', 'tests/qtest/pvpanic-test')
TIERS = ('series', 'unit', 'qtest', 'e2e', 'libvirt')
# Seconds that the one program of a script tier may take.
SCRIPT_TIMEOUT = {'series': 600, 'e2e': 2400, 'libvirt': 900}


def series_tests():
    """The test programs that the series brings or changes."""
    out = subprocess.run([ROOT / 'scripts/series.py', 'tests'], check=True,
                         capture_output=True, text=True).stdout
    return out.split()


def programs(tier):
    """The test programs of a tier of compiled tests."""
    brought = [test for test in series_tests() if f'/{tier}/' in test]
    if tier == 'qtest':
        brought += [test for test in NEIGHBOURS if test not in brought]
    return brought


def run_compiled(tier, verbose):
    count = tap.Count()
    tests = programs(tier)
    if not tests:
        print(f'  the series brings no {tier} test')
    elif qemu.compile_source(BUILD / 'src', BUILD / 'qemu',
                             tests).returncode:
        print('  FAIL the tests do not build')
        return tap.Count(failed=1)
    for test in tests:
        count.add(qemu.run_test(BUILD / 'qemu', test, verbose))
    return count


def run_script(tier, verbose):
    script = ROOT / 'tests' / tier / 'run'
    if not script.exists():
        return None
    return tap.run(tier, [script], SCRIPT_TIMEOUT[tier], verbose, cwd=ROOT)


def run_tier(tier, verbose):
    """Run one tier; return whether all is well."""
    print(f'== {tier}', flush=True)
    run = run_compiled if tier in ('unit', 'qtest') else run_script
    count = run(tier, verbose)
    if count is None:
        print(f'{tier}: there are no such tests')
        return tier == 'libvirt'
    RECORDS.mkdir(parents=True, exist_ok=True)
    (RECORDS / tier).write_text(f'{count}\n')
    print(f'{tier}: {count}', flush=True)
    return count.total > 0 and not count.failed


def total():
    """Add up what all tiers have left in the build directory."""
    count = tap.Count()
    for record in sorted(RECORDS.glob('*')):
        count.add(tap.Count(*map(int, re.findall(r'\d+',
                                                 record.read_text()))))
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--verbose', action='store_true',
                        help='also print the cases that pass')
    parser.add_argument('--total', action='store_true',
                        help='only print the sum of the tiers run before')
    parser.add_argument('tier', nargs='*', choices=[*TIERS, []],
                        help=f'which of {", ".join(TIERS)}; default: all')
    args = parser.parse_args()
    good = True
    if not args.total:
        for record in RECORDS.glob('*'):
            record.unlink()
        good = all([run_tier(tier, args.verbose)
                    for tier in args.tier or TIERS])
    print(total())
    sys.exit(not good)


if __name__ == '__main__':
    main()
