#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Carry a patch series on upstream QEMU; see docs/developing.md."""

import argparse
import sys
from pathlib import Path

from serieslib import (bisect, lint, mails, rebase, source, worktree)
from serieslib.build import tip
from serieslib.git import Failure
from serieslib.project import Project


def _build(project, _args):
    files = project.files()
    base = project.base(files)
    print(tip(project.commits(files, base), base))


def _log(project, _args):
    files = project.files()
    for commit in project.commits(files):
        print(commit.id, commit.name)


COMMANDS = {
    'build': (_build, 'build the commits; print the last one'),
    'log': (_log, 'list the commits and their patches'),
    'tree': (lambda p, a: worktree.make_tree(p), 'make tree'),
    'fold': (lambda p, a: worktree.fold_tree(p), 'make fold'),
    'mails': (lambda p, a: mails.write(p), 'make series'),
    'range-diff': (lambda p, a: mails.range_diff(p, a.argument),
                   'make range-diff'),
    'rebase': (lambda p, a: rebase.start(p, a.argument), 'make rebase TO='),
    'rebase-continue': (lambda p, a: rebase.proceed(p),
                        'make rebase CONTINUE=1'),
    'rebase-abort': (lambda p, a: rebase.abort(p), 'make rebase ABORT=1'),
    'source': (lambda p, a: source.checkout_series(p),
               'check out the series for building it'),
    'upstream-source': (lambda p, a: source.checkout_upstream(p),
                        'check out the unpatched upstream'),
    'tests': (lambda p, a: source.list_tests(p),
              'list the unit tests and qtests that the series brings'),
    'bisect-check': (lambda p, a: bisect.check(p), 'make bisect-check'),
    'lint': (lambda p, a: lint.check(p), 'make lint'),
    'check-clean': (lambda p, a: worktree.check_nothing_lost(p),
                    'fail if `make clean` would lose work'),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--root', default=Path(__file__).parents[1],
                        type=Path, help='the repository that has the series')
    parser.add_argument('command', choices=COMMANDS, metavar='COMMAND',
                        help='; '.join(f'{name}: {text}' for name, (_, text)
                                       in COMMANDS.items()))
    parser.add_argument('argument', nargs='?', default='')
    args = parser.parse_args()
    try:
        COMMANDS[args.command][0](Project(args.root.absolute()), args)
    except Failure as failure:
        sys.exit(f'error: {failure}')
    except KeyboardInterrupt:
        sys.exit('interrupted')


if __name__ == '__main__':
    main()
