# SPDX-License-Identifier: GPL-2.0-or-later
"""A small upstream, and a project with a series on it, to try the tools on."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

TOP = Path(__file__).absolute().parents[2]
VERSION = '1.0.0'
PIN = f'''# The pin of a test
QEMU_VERSION := {VERSION}
QEMU_TAG := v{VERSION}
QEMU_DEBIAN_VERSION :=
QEMU_DEBIAN_SUITE := sid
QEMU_TARBALL :=
QEMU_SHA256 :=
'''
# Environment that makes commits of git independent of who runs the tests.
IDENT = {'GIT_AUTHOR_NAME': 'A U Thor', 'GIT_AUTHOR_EMAIL': 'a@example.org',
         'GIT_COMMITTER_NAME': 'C O Mitter',
         'GIT_COMMITTER_EMAIL': 'c@example.org',
         'GIT_CONFIG_GLOBAL': '/dev/null', 'GIT_CONFIG_NOSYSTEM': '1'}


def numbered(name, count=40):
    """A file of @count different lines."""
    return ''.join(f'{name} line {n}\n' for n in range(1, count + 1))


def git(where, *args, stdin=None, **env):
    """Run git as a user would; return its output."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith('GIT_')}
    done = subprocess.run(['git', *map(str, args)], cwd=where, input=stdin,
                          env={**clean, **IDENT, **env}, text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, f'git {args}: {done.stderr}'
    return done.stdout.strip()


class SeriesTest(unittest.TestCase):
    """A test with an upstream directory and a project of its own."""

    def setUp(self):
        self.top = Path(tempfile.mkdtemp(prefix='series-'))
        self.addCleanup(shutil.rmtree, self.top)
        self.upstream = self.top / 'upstream'
        self.write(self.upstream, {
            'VERSION': VERSION + '\n',
            'block/io.c': numbered('io'),
            'net/net.c': numbered('net'),
            'meson.build': numbered('meson', 10),
            'scripts/checkpatch.pl':
                'print "total: 0 errors, 0 warnings, 1 lines checked\\n";\n',
            '.gitignore': '*.patch\n',
            'docs/a.patch': 'an upstream file that git would ignore\n'})
        self.project = self.top / 'project'
        self.write(self.project, {'patches/upstream.mk': PIN,
                                  'patches/qemu/series': ''})
        self.tree = self.project / 'build' / 'tree'
        self.date = 1700000000

    @staticmethod
    def write(root, files):
        for path, text in files.items():
            full = Path(root, path)
            full.parent.mkdir(parents=True, exist_ok=True)
            full.write_text(text)

    def tool(self, command, argument='', source=None, fails=False, **env):
        """Run one command of the series tool; return what it says."""
        environ = dict(os.environ, PYTHONDONTWRITEBYTECODE='1',
                       TREE='', QEMU_SRC=str(
                           self.upstream if source is None else source),
                       SERIES_CACHE=str(self.top / 'cache'), **env)
        done = subprocess.run(
            [sys.executable, TOP / 'scripts/series.py', '--root',
             self.project, command, argument],
            env=environ, text=True, capture_output=True, check=False)
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode != 0, fails, said)
        self.assertNotIn('Traceback', said)
        return said

    def commit(self, subject, files, body='', **env):
        """Commit @files (None: remove) in the worktree."""
        for path, text in files.items():
            if text is None:
                git(self.tree, 'rm', '-q', path)
            else:
                self.write(self.tree, {path: text})
        self.date += 60
        git(self.tree, 'add', '-A')
        git(self.tree, 'commit', '-q', '-m', f'{subject}\n\n{body}',
            GIT_AUTHOR_DATE=f'{self.date} +0200', **env)

    def change(self, path, line, text):
        """The text of a worktree file with one line inserted."""
        lines = (self.tree / path).read_text().splitlines(keepends=True)
        lines.insert(line, text + '\n')
        return ''.join(lines)

    def make_series(self):
        """A series of three: hook + overlay, hook, overlay alone."""
        self.tool('tree')
        self.commit('block: call the new code', {
            'block/io.c': self.change('block/io.c', 20, 'call();'),
            'system/new.c': 'new code\n',
            'include/system/new.h': 'new header\n'}, 'Why it is called.')
        self.commit('net: one more line', {
            'net/net.c': self.change('net/net.c', 10, 'more();')})
        self.commit('docs: say it', {'docs/system/new.rst': 'Title\n'},
                    'Ünïcode, and\n\na second paragraph.')
        self.tool('fold')

    def edit(self, path, pattern, replacement):
        """Edit a file of the project by a regular expression."""
        full = self.project / path
        old = full.read_text()
        new = re.sub(pattern, replacement, old, flags=re.M)
        self.assertNotEqual(old, new)
        full.write_text(new)

    def files(self):
        """Every file of the project outside build/, with its content."""
        return {path.relative_to(self.project).as_posix(): path.read_bytes()
                for path in self.project.rglob('*') if path.is_file()
                and self.project / 'build' not in path.parents}

    def tip(self):
        return self.tool('build').strip()

    def tarball(self, name='upstream.tar.xz'):
        path = self.top / name
        with tarfile.open(path, 'w:xz') as tar:
            tar.add(self.upstream, f'qemu-{VERSION}')
        return path

    def upstream_git(self, tag=None):
        """Make the upstream a git checkout, with what is in it now."""
        if not (self.upstream / '.git').exists():
            git(self.upstream, 'init', '-q')
        git(self.upstream, 'add', '-A', '-f')
        git(self.upstream, 'commit', '-q', '--allow-empty', '-m', 'upstream')
        if tag:
            git(self.upstream, 'tag', tag)
        return git(self.upstream, 'rev-parse', 'HEAD')
