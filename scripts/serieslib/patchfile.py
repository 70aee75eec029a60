# SPDX-License-Identifier: GPL-2.0-or-later
"""One hook patch: a mail header, a message, and a diff with full blob ids."""

import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from .git import Git, Failure

ABSENT = '0' * 40
# The form in which patches are kept: nothing in it depends on the commit id,
# the git version or the other patches, so an unchanged one has no diff.
EXPORT = ('--zero-commit', '--full-index', '--no-signature', '--no-stat',
          '--no-renames', '--no-numbered')

_INDEX = re.compile(rb'index ([0-9a-f]{40})\.\.([0-9a-f]{40})')
_HUNK = re.compile(rb'@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@')


class Change(NamedTuple):
    """What a patch does to one file; an absent side is ABSENT."""
    path: str
    before: str
    after: str


class Meta(NamedTuple):
    author: str
    email: str
    date: str
    message: str


def changes(name, data):
    """List the files that the patch changes, from its "index" lines."""
    found = []
    path = None
    for line in _header_lines(data):
        if line.startswith(b'diff --git '):
            path = _diff_path(name, line)
            found.append(Change(path, '', ''))
        elif path and (match := _INDEX.match(line)):
            found[-1] = Change(path, match[1].decode(), match[2].decode())
    for change in found:
        if not change.before:
            raise Failure(f'{name}: {change.path} has no line "index" with '
                          'full blob ids (git format-patch --full-index)')
    return found


def _diff_path(name, line):
    # "diff --git a/PATH b/PATH": both paths are the same, for there are no
    # renames, so the middle of the line is known even with spaces in PATH.
    rest = line[len(b'diff --git '):]
    size = (len(rest) - 5) // 2
    path = rest[2:2 + size]
    if rest != b'a/' + path + b' b/' + path:
        raise Failure(f'{name}: cannot read the line {line.decode()!r}; '
                      'renames are not carried (--no-renames)')
    return path.decode()


def _header_lines(data):
    """The lines of the patch that are not the content of a hunk."""
    old = new = 0
    for line in data.split(b'\n'):
        if old > 0 or new > 0:
            old -= line[:1] in (b' ', b'-', b'')
            new -= line[:1] in (b' ', b'+', b'')
            continue
        if match := _HUNK.match(line):
            old, new = (int(count or 1) for count in match.groups())
        yield line


def added_lines(data):
    """Count the lines that the patch adds, for each file."""
    counts = {}
    path = None
    for line in data.split(b'\n'):
        if line.startswith(b'diff --git '):
            path = line.split(b' b/')[-1].decode()
            counts[path] = 0
        elif path and line.startswith(b'+') and not line.startswith(b'+++ '):
            counts[path] += 1
    return counts


def meta(name, data):
    """Author, date and message, as `git am` would read them."""
    with tempfile.TemporaryDirectory() as scratch:
        body, diff = Path(scratch, 'body'), Path(scratch, 'diff')
        out = Git().text('mailinfo', '-b', '--no-scissors',
                         '--encoding=UTF-8', body, diff, stdin=data)
        text = body.read_bytes().decode()
    head = dict(line.split(': ', 1) for line in out.splitlines()
                if ': ' in line)
    for key in ('Author', 'Email', 'Date', 'Subject'):
        if key not in head:
            raise Failure(f'{name}: the mail header lacks '
                          f'{"From" if key in ("Author", "Email") else key}')
    return Meta(head['Author'], head['Email'], head['Date'],
                message(head['Subject'], text))


def message(subject, body):
    """A commit message in the one form that survives being mailed."""
    body = body.strip('\n')
    return subject + '\n' + (f'\n{body}\n' if body else '')


def export(git, commit, paths):
    """The patch of @commit for @paths only; a bare message without any."""
    if paths:
        return git.run('format-patch', '-1', '--stdout', *EXPORT, commit,
                       '--', *(f':(literal){path}' for path in paths))
    # A commit that only brings overlay files: export an empty twin of it.
    show = git.text('show', '-s', '--format=%an%n%ae%n%ad%n%B',
                    '--date=raw', commit).split('\n')
    env = dict(zip(('GIT_AUTHOR_NAME', 'GIT_AUTHOR_EMAIL',
                    'GIT_AUTHOR_DATE'), show))
    twin = git.text('commit-tree', '-p', f'{commit}^', f'{commit}^^{{tree}}',
                    stdin='\n'.join(show[3:]).encode(), env=env)
    return git.run('format-patch', '-1', '--stdout', '--always', *EXPORT,
                   twin)
