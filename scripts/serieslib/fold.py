# SPDX-License-Identifier: GPL-2.0-or-later
"""From commits on upstream back to a snapshot of the series.

A file that is new in the series and touched by exactly one commit becomes
an overlay file of that commit.  Everything else stays a hunk in a patch:
changes to upstream files, and new files that grow commit by commit, are
links, or lie where this project keeps files of its own.
"""

import re
from typing import NamedTuple

from . import patchfile, seriesfile
from .build import build
from .git import Failure
from .patchfile import ABSENT
from .seriesfile import Entry
from .snapshot import COVER, PIN, SERIES, File, is_overlay_path


class Raw(NamedTuple):
    """One file of one commit, as `git diff-tree --raw` tells it."""
    path: str
    mode: str
    before: str
    after: str


def fold(git, base, tip, old, old_commits):
    """Return the snapshot that builds @tip on @base.

    @old and @old_commits, the series as it was, give the names of the
    patches, the comments, and everything that is no patch.
    """
    ids = _linear(git, base, tip)
    touched = {commit: _touched(git, commit) for commit in ids}
    overlay = _overlay_paths(touched)
    entries, tail = seriesfile.parse(old)
    _check_whole(git, touched, entries)
    names = _Names(git, old_commits)
    result = {path: old[path] for path in (PIN, COVER) if path in old}
    folded = []
    for commit in ids:
        entry = Entry(names.name(commit))
        entry.overlay = [raw.path for raw in touched[commit]
                         if raw.path in overlay]
        hooks = [raw.path for raw in touched[commit]
                 if raw.path not in overlay]
        result[entry.path] = File('100644',
                                  patchfile.export(git, commit, hooks))
        for raw in touched[commit]:
            if raw.path in overlay:
                result[raw.path] = File(
                    raw.mode, git.run('cat-file', 'blob', raw.after))
        folded.append(entry)
    tail = _keep_comments(entries, folded, tail)
    result[SERIES] = seriesfile.format_file(folded, tail)
    _verify(git, base, ids, result)
    return result


def _linear(git, base, tip):
    if git.attempt('merge-base', '--is-ancestor', base, tip).returncode:
        raise Failure('the tree is not based on the pinned upstream '
                      f'(commit {base}); rebase it onto that first')
    ids = []
    for line in git.lines('rev-list', '--reverse', '--parents',
                          f'{base}..{tip}'):
        commit, *parents = line.split()
        if len(parents) != 1:
            raise Failure(f'commit {commit} is a merge: a series is a line')
        ids.append(commit)
    return ids


def _touched(git, commit):
    found = []
    out = git.text('diff-tree', '-r', '-z', '--raw', '--no-renames',
                   '--no-commit-id', '--no-abbrev', commit)
    fields = out.split('\0')
    for meta, path in zip(fields[::2], fields[1::2]):
        _, mode, before, after, _ = meta.split()
        found.append(Raw(path, mode, before, after))
    return found


def _overlay_paths(touched):
    every = [raw for raws in touched.values() for raw in raws]
    count = {}
    for raw in every:
        count[raw.path] = count.get(raw.path, 0) + 1
    return {raw.path for raw in every
            if raw.before == ABSENT and count[raw.path] == 1
            and raw.mode in ('100644', '100755')
            and is_overlay_path(raw.path)}


def _check_whole(git, touched, old_entries):
    """An overlay file that a second commit edits is most likely a slip."""
    for path in (path for entry in old_entries for path in entry.overlay):
        by = [commit for commit, raws in touched.items()
              if path in (raw.path for raw in raws)]
        if len(by) > 1:
            commits = git.text('show', '-s', '--format=  %h %s', *by)
            raise Failure(
                f'{path}: an overlay file is brought whole by one commit, '
                f'but these touch it:\n{commits}\nSquash them '
                '(git commit --fixup, git rebase -i --autosquash)')


class _Names:
    """Give a commit the name that its patch has had so far.

    A patch is known by its subject, or, when that was reworded, by its
    author date, which amending and rebasing keep.
    """

    def __init__(self, git, old_commits):
        self.git = git
        self.known = {}
        for commit in old_commits:
            for key in self._keys(commit.id):
                self.known.setdefault(key, []).append(commit.name)
        self.taken = set()

    def _keys(self, commit):
        return self.git.text('show', '-s', '--format=%s%n%at %ae',
                             commit).split('\n')

    def name(self, commit):
        for key in self._keys(commit):
            candidates = self.known.get(key, [])
            if len(candidates) == 1 and candidates[0] not in self.taken:
                return self._take(candidates[0])
        return self._take(self._invent(commit))

    def _invent(self, commit):
        # The names of old patches are not given to new ones.
        reserved = self.taken.union(*self.known.values())
        subject = self.git.text('show', '-s', '--format=%s', commit)
        slug = re.sub('[^a-z0-9]+', '-', subject.lower()).strip('-')
        slug = slug[:60].rstrip('-') or 'patch'
        name, number = f'{slug}.patch', 1
        while name in reserved:
            number += 1
            name = f'{slug}-{number}.patch'
        return name

    def _take(self, name):
        self.taken.add(name)
        return name


def _keep_comments(old, new, tail):
    """Comments stay above their patch; a dropped one leaves them below."""
    leads = {entry.name: entry for entry in new}
    pending = []
    for entry in old:
        pending += entry.lead
        if entry.name in leads:
            leads[entry.name].lead = pending
            pending = []
    return pending + tail


def _verify(git, base, ids, result):
    """What was folded builds what it was folded from."""
    commits = build(git, result, base)
    for commit, built in zip(ids, commits, strict=True):
        want, got = (git.text('show', '-s', '--format=%T%n%an%n%ae%n%ad%n%B',
                              '--date=raw', one).rstrip()
                     for one in (commit, built.id))
        if want != got:
            subject = git.text('show', '-s', '--format=%s', commit)
            raise Failure(
                f'commit {commit[:12]} ("{subject}") does not survive being '
                'kept as a patch: its message must be plain text, with a '
                'subject of one line, and no line that looks like a mail '
                'header, a separator or a diff')
