# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of the series and of this repository that need no compiler."""

import itertools
import re
from fnmatch import fnmatchcase
from pathlib import Path

from . import checkpatch, mails, patchfile, seriesfile
from .build import tip
from .fold import fold
from .git import Git, Failure
from .snapshot import is_overlay_path

# Lines added to one upstream file: what stays is the price of every rebase.
# Above the aim it is marked; above the limit it is logic that belongs into a
# file of the series.
HOOK_AIM = 15
HOOK_LIMIT = 20
# Tables and documents that grow by an entry as long as it needs to be.
LISTS = ('*.hx', '*.rst', '*.json', '*/meson.build', 'MAINTAINERS')


def check(project):
    """`make lint`: all checks; every problem is printed."""
    files = project.files()
    base = project.base(files)
    commits = project.commits(files, base)
    checks = [_canonical(project, files, base, commits), _licences(files),
              _hooks(project, files, base), _maintainers(project.root),
              _machine_paths(project.root)]
    if commits:
        checks.append(_checkpatch(project, files))
    problems = 0
    for problem in itertools.chain(*checks):
        print(f'lint: {problem}', flush=True)
        problems += 1
    if problems:
        raise Failure(f'{problems} problems')
    print(f'lint: {len(commits)} patches, no problem')


def _canonical(project, files, base, commits):
    again = fold(project.git, base, tip(commits, base), files, commits)
    for path in sorted(again.keys() | files.keys()):
        if again.get(path) != files.get(path):
            yield (f'{path}: not in the form that `make fold` writes '
                   '(edit in `make tree`, then `make fold`)')


def _licences(files):
    for path, file in files.items():
        if is_overlay_path(path) and path.endswith(('.c', '.h', '.py', '.sh')):
            if b'SPDX-License-Identifier: ' not in file.data:
                yield f'{path}: no line SPDX-License-Identifier'


def _hooks(project, files, base):
    """Print the lines added to each upstream file; object to too many."""
    counts = {}
    for entry in seriesfile.parse(files)[0]:
        added = patchfile.added_lines(files[entry.path].data)
        for path, count in added.items():
            counts[path] = counts.get(path, 0) + count
    upstream = set(project.git.lines('ls-tree', '-r', '--name-only', base))
    hooks = {path: counts[path] for path in sorted(counts)
             if path in upstream}
    for path, count in hooks.items():
        much = f'  (more than {HOOK_AIM})' if count > HOOK_AIM else ''
        print(f'{count:6} {path}{much}')
    print(f'{sum(hooks.values()):6} hook lines in {len(hooks)} upstream '
          'files')
    for path, count in hooks.items():
        is_list = any(fnmatchcase(path, pattern) for pattern in LISTS)
        if count > HOOK_LIMIT and not is_list:
            yield (f'{path}: {count} hook lines, more than {HOOK_LIMIT}: '
                   'move logic into a file of the series')


def _maintainers(root):
    """Every tracked file has a maintainer."""
    text = Path(root, 'MAINTAINERS').read_text()
    patterns = re.findall(r'^F: *(\S+)', text, re.M)
    for path in Git(cwd=root).lines('ls-files'):
        if not any(_covers(pattern, path) for pattern in patterns):
            yield f'{path}: no F: line of MAINTAINERS covers it'


def _covers(pattern, path):
    # As get_maintainer.pl: a slash at the end stands for all below it.
    if pattern.endswith('/'):
        return path.startswith(pattern)
    return (fnmatchcase(path, pattern)
            and path.count('/') == pattern.count('/'))


def _machine_paths(root):
    """No file names a path that exists only on the author's machine."""
    private = {str(Path(root).resolve()), str(Path.home())} - {'/', '/root'}
    private = [path.encode() for path in private]
    private_pattern = re.compile(rb'(?<![\w.$}])/(?:home|root|work)/\w')
    for path in Git(cwd=root).lines('ls-files'):
        full = Path(root, path)
        if not full.is_file():
            continue
        for number, line in enumerate(full.read_bytes().split(b'\n'), 1):
            if any(one in line for one in private) or \
                    private_pattern.search(line):
                yield f'{path}:{number}: names a path of one machine'


def _checkpatch(project, files):
    base, paths = mails.export(project, files,
                               project.build_dir / 'lint-mails')
    for mail in paths[1:]:
        errors, warnings, report = checkpatch.run(project, base, mail)
        if errors:
            yield f'{mail.name}: checkpatch:\n{report}'
        elif warnings:
            # A matter of judgement; `make series` writes the full report.
            print(f'{mail.name}: {warnings} warnings of checkpatch')
