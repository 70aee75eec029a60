# SPDX-License-Identifier: GPL-2.0-or-later
"""The series as it is carried: the files of a checkout or of a revision.

A snapshot maps the path of every file that makes up the series (the pin,
the series file, the hook patches, the overlay files) to its mode and
content.  Building and folding are functions of snapshots, so that "fold of
build gives back the same bytes" can be said, and tested, as an equality.
"""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from .git import Git, Failure

PIN = 'patches/upstream.mk'
PATCHES = 'patches/qemu/'
SERIES = PATCHES + 'series'
COVER = PATCHES + 'cover-letter'

# What belongs to this project and is never laid over QEMU's tree, besides
# everything at top level, everything hidden, and docs/*.md.
PROJECT_DIRS = ('patches/', 'scripts/', 'build/', 'tests/series/',
                'tests/e2e/', 'tests/bench/', 'tests/demo/',
                'tests/libvirt/', 'tests/tools/')
# QEMU has scripts, too: of those below scripts/, these go there.
SERIES_SCRIPTS = ('scripts/migration-watch', 'scripts/migrationwatch/')
LEFTOVERS = ('~', '.swp', '.orig', '.rej', '.pyc')


class File(NamedTuple):
    mode: str
    data: bytes

    @property
    def blob(self):
        """The id of the content as a git blob."""
        head = b'blob %d\0' % len(self.data)
        return hashlib.sha1(head + self.data).hexdigest()


def is_overlay_path(path):
    """Whether a file at @path would be laid over QEMU's tree."""
    if '/' not in path or path.startswith('.') or '/.' in path:
        return False
    if path.startswith('docs/') and path.count('/') == 1:
        return not path.endswith('.md')
    return (path.startswith(SERIES_SCRIPTS)
            or not path.startswith(PROJECT_DIRS))


def _is_carried(path):
    if path.endswith(LEFTOVERS):
        return False
    return (path == PIN or path.startswith(PATCHES) or is_overlay_path(path))


def _walk(root):
    for top, dirs, names in os.walk(root):
        here = Path(top).relative_to(root).as_posix()
        prefix = '' if here == '.' else here + '/'
        dirs[:] = [d for d in dirs
                   if not d.startswith('.') and d != '__pycache__'
                   and prefix + d != 'build']
        yield from (prefix + name for name in names)


def from_checkout(root):
    """Read the series from the working files of this repository."""
    files = {}
    for path in filter(_is_carried, _walk(root)):
        full = Path(root, path)
        mode = '100755' if os.access(full, os.X_OK) else '100644'
        files[path] = File(mode, full.read_bytes())
    return files


def from_revision(root, rev):
    """Read the series from revision @rev of this repository."""
    git = Git(cwd=root)
    if not git.resolve(rev):
        raise Failure(f'{rev}: no such revision of this repository')
    files = {}
    for entry in git.text('ls-tree', '-r', '-z', rev).split('\0'):
        meta, _, path = entry.partition('\t')
        if path and _is_carried(path):
            mode, _, blob = meta.split()
            files[path] = File(mode, git.run('cat-file', 'blob', blob))
    return files


def digest(files):
    """One value that changes with any file of the snapshot."""
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(f'{path}\0{files[path].mode}\0{files[path].blob}\n'
                     .encode())
    return total.hexdigest()


def write(root, old, new):
    """Change the working files from snapshot @old to snapshot @new."""
    for path in sorted(new):
        if old.get(path) != new[path]:
            full = Path(root, path)
            full.parent.mkdir(parents=True, exist_ok=True)
            full.write_bytes(new[path].data)
            full.chmod(0o755 if new[path].mode == '100755' else 0o644)
    for path in sorted(old.keys() - new.keys()):
        full = Path(root, path)
        full.unlink()
        if is_overlay_path(path):
            _remove_empty(full.parent, Path(root))


def _remove_empty(directory, root):
    while directory != root and not any(directory.iterdir()):
        directory.rmdir()
        directory = directory.parent
