# SPDX-License-Identifier: GPL-2.0-or-later
"""From a snapshot of the series to commits on upstream.

The commits depend on the snapshot and the base alone: same ids every time.
Nothing is applied with an offset or fuzz, for each patch states the blob
that it expects of every file, and the one that it makes of it.
"""

import json
import tempfile
from pathlib import Path
from typing import NamedTuple

from . import patchfile, seriesfile, snapshot
from .git import Git, Failure
from .patchfile import ABSENT


class Commit(NamedTuple):
    name: str
    id: str


def build(git, files, base):
    """Return the commits of the series, oldest first."""
    record = Path(git.env['GIT_DIR'], 'built.json')
    key = f'{snapshot.digest(files)} {base}'
    commits = _recorded(git, record, key)
    if commits is None:
        commits = _build(git, files, base)
        record.write_text(json.dumps([key, commits]))
    return commits


def _recorded(git, record, key):
    try:
        known, commits = json.loads(record.read_text())
    except (OSError, ValueError):
        return None
    commits = [Commit(*commit) for commit in commits]
    if known != key or (commits and not git.resolve(commits[-1].id)):
        return None
    return commits


def _build(git, files, base):
    entries, _ = seriesfile.parse(files)
    seriesfile.check(files, entries)
    hooks = {entry.name: patchfile.changes(entry.path, files[entry.path].data)
             for entry in entries}
    check_blobs(git, files, base)
    _store_blobs(git, [files[p] for e in entries for p in e.overlay])
    commits = []
    with tempfile.TemporaryDirectory() as scratch:
        index = Git(git.env['GIT_DIR'], index=Path(scratch, 'index'))
        index.run('read-tree', base)
        parent = base
        for entry in entries:
            parent = _commit(index, files, entry, hooks[entry.name], parent)
            commits.append(Commit(entry.name, parent))
    return commits


def check_blobs(git, files, base):
    """Every file is in the state that each patch was made against."""
    entries, _ = seriesfile.parse(files)
    hooks = [(entry, patchfile.changes(entry.path, files[entry.path].data))
             for entry in entries]
    paths = {change.path for _, changes in hooks for change in changes}
    paths.update(path for entry in entries for path in entry.overlay)
    now = _upstream_blobs(git, base, paths)
    untouched = dict(now)
    problems = []
    for entry, changes in hooks:
        for change in changes:
            found = now.get(change.path, ABSENT)
            if found != change.before:
                problems.append(_mismatch(
                    entry, change, found,
                    found == untouched.get(change.path, ABSENT)))
            now[change.path] = change.after
        for path in entry.overlay:
            if now.get(path, ABSENT) != ABSENT:
                problems.append(f'{path}: brought by {entry.path}, but '
                                'it already exists')
            now[path] = files[path].blob
    if problems:
        raise Failure('the series does not fit this upstream:\n  '
                      + '\n  '.join(problems))


def _upstream_blobs(git, base, paths):
    found = {}
    # One file name per argument; split to stay below the system's limit.
    wanted = sorted(paths)
    for start in range(0, len(wanted), 500):
        for line in git.lines('ls-tree', '--full-tree', base, '--',
                              *wanted[start:start + 500]):
            meta, path = line.split('\t')
            found[path] = meta.split()[2]
    return found


def _mismatch(entry, change, found, is_upstream):
    if change.before == ABSENT:
        return f'{change.path}: created by {entry.path}, but it exists'
    who = 'upstream' if is_upstream else 'the series so far'
    has = f'has blob {found}' if found != ABSENT else 'has no such file'
    return (f'{change.path}: {entry.path} was made against blob '
            f'{change.before}, but {who} {has}')


def _store_blobs(git, contents):
    stream = b''.join(b'blob\ndata %d\n%s\n' % (len(file.data), file.data)
                      for file in contents)
    git.run('fast-import', '--quiet', '--done', stdin=stream + b'done\n')


def _commit(git, files, entry, hooks, parent):
    """Lay one patch over the index, and commit it on @parent."""
    data = files[entry.path].data
    if not hooks and not entry.overlay:
        raise Failure(f'{entry.path}: changes no file and brings none')
    if hooks:
        _apply(git, entry, data)
    git.run('update-index', '--add', '--index-info', stdin=''.join(
        f'{files[path].mode} {files[path].blob}\t{path}\n'
        for path in entry.overlay).encode())
    _check_result(git, entry, hooks)
    meta = patchfile.meta(entry.path, data)
    env = {}
    for role in ('AUTHOR', 'COMMITTER'):
        env.update({f'GIT_{role}_NAME': meta.author,
                    f'GIT_{role}_EMAIL': meta.email,
                    f'GIT_{role}_DATE': meta.date})
    return git.text('commit-tree', '-p', parent, git.text('write-tree'),
                    stdin=meta.message.encode(), env=env)


def _apply(git, entry, data):
    done = git.attempt('apply', '--cached', '--verbose',
                       '--whitespace=nowarn', '-', stdin=data)
    said = done.stderr.decode(errors='replace')
    shifted = [line for line in said.splitlines() if '(offset ' in line]
    if done.returncode or shifted:
        errors = [line for line in said.splitlines()
                  if line.startswith('error: ')]
        detail = '\n  '.join(shifted or errors or [said.strip()])
        raise Failure(f'{entry.path} does not apply exactly:\n  {detail}')


def _check_result(git, entry, hooks):
    if not hooks:
        return
    listed = git.lines('ls-files', '--stage', '--',
                       *(change.path for change in hooks))
    now = {line.split('\t')[1]: line.split()[1] for line in listed}
    for change in hooks:
        if now.get(change.path, ABSENT) != change.after:
            raise Failure(
                f'{entry.path}: the result for {change.path} is not what '
                'its "index" line says: the patch was edited by hand '
                '(edit in `make tree`, then `make fold`)')


def tip(commits, base):
    """The last commit of the series, or the base of an empty one."""
    return commits[-1].id if commits else base

