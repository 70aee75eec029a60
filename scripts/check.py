#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the tiers of tests that are named, and count every case.

Each tier leaves its count in build/check/; --total adds those up.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from serieslib import qemu, sanitizers, tap

ROOT = Path(__file__).absolute().parents[1]
BUILD = ROOT / 'build'
RECORDS = BUILD / 'check'
# Upstream tests that walk over every command and device, also over ours.
NEIGHBOURS = ('tests/qtest/qmp-cmd-test', 'tests/qtest/qmp-test',
              'tests/qtest/test-hmp', 'tests/qtest/pvpanic-test')
TIERS = ('series', 'unit', 'qtest', 'tools', 'e2e', 'faults', 'soak', 'fuzz',
         'libvirt')


class Script(NamedTuple):
    """The one program of a tier, and the seconds that it may take."""
    program: str
    timeout: int
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = {}


SCRIPTS = {
    'series': Script('tests/series/run', 600),
    'tools': Script('tests/tools/run', 1500),
    'e2e': Script('tests/e2e/run', 2400),
    'faults': Script('tests/e2e/faults', 1200),
    'soak': Script('tests/e2e/soak', 600),
    'fuzz': Script('tests/e2e/fuzz', 600),
    'libvirt': Script('tests/libvirt/run', 900),
}
# Nightly: up to an hour together, of which soak and fuzz have 21 minutes.  QEMU
# has sanitizers there, but for the soak, which is about moments that they would
# make rare, and for a guest in a guest, which would not get far with them.
SANITIZED = BUILD / 'asan'
FULL = ('asan-unit', 'asan-qtest', 'asan-fuzz', 'long-soak', 'nested')
SCRIPTS['asan-fuzz'] = Script(
    'tests/e2e/fuzz', 900, ('--steps', '20000', '--seconds', '480'),
    {'QEMU_BIN': str(SANITIZED / 'bin')})
SCRIPTS['long-soak'] = Script(
    'tests/e2e/soak', 1200, ('--rounds', '1000', '--seconds', '780'))
SCRIPTS['nested'] = Script('tests/e2e/nested', 1500)
UNPATCHED = BUILD / 'upstream/bin/qemu-system-x86_64'
# It ends QEMU while threads hang: what they hold looks leaked.
LEAVES_THREADS = 'tests/qtest/vm-quiesce-hang-test'


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
    sanitized, _, kind = tier.rpartition('-')
    build = SANITIZED / 'qemu' if sanitized else BUILD / 'qemu'
    count = tap.Count()
    # Upstream's tests leak: nothing to learn of the series from that.
    tests = [test for test in programs(kind)
             if not sanitized or test in series_tests()]
    if not tests:
        print(f'  the series brings no {kind} test')
    elif not sanitized and qemu.compile_source(BUILD / 'src', build,
                                               tests).returncode:
        print('  FAIL the tests do not build')
        return tap.Count(failed=1)
    for test in tests:
        count.add(qemu.run_test(build, test, verbose,
                                unpatched_environment() |
                                (sanitized_environment(test) if sanitized
                                 else perturbed_environment())))
    return count


def unpatched_environment():
    """For tests that compare with upstream, where `make upstream` was run."""
    if not UNPATCHED.exists():
        return {}
    return {'QTEST_QEMU_BINARY_UNPATCHED': str(UNPATCHED)}


def perturbed_environment():
    """New memory is not zero by chance, as in `meson test`."""
    return {'MALLOC_PERTURB_': os.environ.get('MALLOC_PERTURB_', '165')}


def sanitized_environment(test):
    """For a test program, and the QEMU that it starts."""
    options = dict(sanitizers.ENVIRONMENT)
    if test == LEAVES_THREADS:
        options['ASAN_OPTIONS'] += ':detect_leaks=0'
    # Upstream's tools leak; they are not what is tested.
    tools = BUILD / 'qemu'
    return {**options, 'QTEST_QEMU_IMG': str(tools / 'qemu-img'),
            'QTEST_QEMU_STORAGE_DAEMON_BINARY':
                str(tools / 'storage-daemon/qemu-storage-daemon')}


def run_script(tier, verbose):
    script = SCRIPTS[tier]
    if not (ROOT / script.program).exists():
        return None
    return tap.run(tier, [ROOT / script.program, *script.arguments],
                   script.timeout, verbose, cwd=ROOT,
                   env={**os.environ, **script.environment})


def run_tier(tier, verbose):
    """Run one tier; return whether all is well."""
    print(f'== {tier}', flush=True)
    run = run_script if tier in SCRIPTS else run_compiled
    count = run(tier, verbose)
    if count is None:
        print(f'{tier}: there are no such tests')
        return False
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
    parser.add_argument('--full', action='store_true',
                        help=f'run the long tiers: {", ".join(FULL)}')
    parser.add_argument('tier', nargs='*', choices=[*TIERS, []],
                        help=f'which of {", ".join(TIERS)}; default: all')
    args = parser.parse_args()
    good = True
    if not args.total:
        for record in RECORDS.glob('*'):
            record.unlink()
        good = all([run_tier(tier, args.verbose)
                    for tier in (FULL if args.full
                                 else args.tier or TIERS)])
    print(total())
    sys.exit(not good)


if __name__ == '__main__':
    main()
