# SPDX-License-Identifier: GPL-2.0-or-later
"""Prove that every commit of the series builds and passes its own tests.

What was proven is remembered in the download cache, by commit, compiler and
configuration, so that a commit is built once on a machine.
"""

import hashlib
import os
import subprocess

from . import qemu, source, tap
from .git import Failure


def check(project):
    """`make bisect-check`: one case per commit."""
    commits = project.commits(project.files())
    project.unlock()
    total = tap.Count()
    for number, commit in enumerate(commits, 1):
        print(f'[{number}/{len(commits)}] {commit.name}', flush=True)
        good = _known(project, commit) or _prove(project, commit)
        total.add(tap.Count(passed=good, failed=not good))
    record = project.build_dir / 'check' / 'bisect'
    record.parent.mkdir(exist_ok=True)
    record.write_text(f'{total}\n')
    print(f'bisect: {total}')
    if total.failed or not total.total:
        raise Failure('not every commit stands on its own' if total.failed
                      else 'the series is empty')


def _record(project, commit):
    compiler = subprocess.run(['gcc', '--version'], capture_output=True,
                              check=False).stdout
    key = hashlib.sha256(compiler + qemu.SCRIPT.read_bytes())
    key.update(os.environ.get('CONFIGURE_ARGS', '').encode())
    return project.cache / 'proven' / f'{commit.id}-{key.hexdigest()[:16]}'


def _known(project, commit):
    if not _record(project, commit).exists():
        return False
    print('  proven before on this machine')
    return True


def _prove(project, commit):
    top = project.build_dir / 'bisect'
    source.checkout(project, commit.id, top / 'src')
    log = top / 'build.log'
    with open(log, 'wb') as output:
        built = qemu.compile_source(top / 'src', top / 'qemu', ['all'],
                                    stdout=output, stderr=output)
    if built.returncode:
        tail = log.read_text(errors='replace').splitlines()[-30:]
        print('  FAIL does not build:\n' + '\n'.join(tail))
        return False
    changed = project.git.lines('diff-tree', '-r', '--name-only',
                                '--no-commit-id', '--diff-filter=d',
                                commit.id)
    for test in source.tests_of(changed):
        if qemu.run_test(top / 'qemu', test).failed:
            return False
    record = _record(project, commit)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.touch()
    return True
