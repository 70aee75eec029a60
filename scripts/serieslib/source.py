# SPDX-License-Identifier: GPL-2.0-or-later
"""Source trees to compile: generated, and only ever changed file by file.

They are plain directories without .git, so that QEMU's build treats them as
a release, and differ from the commits in what a source package without
vendored parts needs.  A file is rewritten only when its content changed, so
that ninja rebuilds no more than needed.
"""

import re

from . import patchfile, seriesfile
from .build import tip
from .git import Git

_TEST = re.compile(r'tests/(unit/test-[^/]+|qtest/[^/]+-test)\.c$')


def checkout_series(project):
    """Bring build/src to the series as it is now."""
    files = project.files()
    base = project.base(files)
    checkout(project, tip(project.commits(files, base), base),
             project.build_dir / 'src')


def checkout_upstream(project):
    """Bring build/upstream/src to the unpatched pin."""
    checkout(project, project.base(project.files()),
             project.build_dir / 'upstream' / 'src')


def checkout(project, commit, directory):
    """Make the files of @directory those of @commit."""
    tree = _adapted(project.git, commit)
    directory.mkdir(parents=True, exist_ok=True)
    index = directory.with_name(directory.name + '.index')
    git = Git(project.git_dir, work_tree=directory, index=index,
              cwd=directory)
    # Exits non-zero when files differ, which is what read-tree mends.
    git.attempt('update-index', '-q', '--refresh')
    git.run('read-tree', '--reset', '-u', tree)


def _adapted(git, commit):
    """The tree of @commit, without what its source cannot build."""
    edits = {}
    if not _has(git, commit, 'python/wheels/'):
        # Only QEMU's functional tests use it; configure insists on it.
        edits['pythondeps.toml'] = (rb'^pycotap = .*\n', b'')
    if not _has(git, commit, 'pc-bios/edk2-x86_64-code.fd.bz2'):
        edits['meson.build'] = (rb'(unpack_edk2_blobs =) bzip2\.found\(\)',
                                rb'\1 false')
    entries = []
    for line in git.lines('ls-tree', commit):
        meta, name = line.split('\t')
        mode, kind, blob = meta.split()
        if name in edits:
            old = git.run('cat-file', 'blob', blob)
            new = re.sub(*edits[name], old, flags=re.M)
            blob = git.text('hash-object', '-w', '--stdin', stdin=new)
        # Two thirds of all files are sources of firmware, never built here.
        if name != 'roms':
            entries.append(f'{mode} {kind} {blob}\t{name}\n')
    return git.text('mktree', stdin=''.join(entries).encode())


def _has(git, commit, path):
    listed = git.lines('ls-tree', '--name-only', commit, path)
    return any(not name.endswith('README') for name in listed)


def tests_of(paths):
    """The test programs (as ninja targets) among changed files."""
    return sorted(path[:-len('.c')] for path in set(paths)
                  if _TEST.match(path))


def list_tests(project):
    """Print the test programs that the series brings or changes."""
    files = project.files()
    paths = []
    for entry in seriesfile.parse(files)[0]:
        data = files[entry.path].data
        paths += entry.overlay
        paths += [change.path for change in
                  patchfile.changes(entry.path, data)]
    print('\n'.join(tests_of(paths)))
