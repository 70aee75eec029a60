# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things are, and which upstream the series stands on."""

import fcntl
import json
import os
import subprocess
import tempfile
from pathlib import Path

from . import pin, snapshot, upstream
from .build import build, check_blobs
from .git import Git, Failure


class Project:
    """This repository, and the repository of commits that it builds."""

    def __init__(self, root, environ=os.environ):
        self.root = Path(root)
        self.build_dir = self.root / 'build'
        self.tree = Path(environ.get('TREE') or self.build_dir / 'tree')
        self.tree = self.tree.expanduser().absolute()
        home = environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
        self.cache = Path(environ.get('SERIES_CACHE')
                          or Path(home, 'qemu-failsafe'))
        self.source = environ.get('QEMU_SRC') or None
        self.git_dir = self.build_dir / 'series.git'
        self.git = Git(self.git_dir)
        self._open()

    def _open(self):
        self.build_dir.mkdir(exist_ok=True)
        # Two tools at once on one repository: the second one waits.
        self._lock = open(self.build_dir / 'series.lock', 'w',
                          encoding='utf-8')
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        if not self.git_dir.exists():
            self.git.run('init', '--quiet', '--bare', '--template=',
                         '--initial-branch=series', self.git_dir)

    def unlock(self):
        """Let other tools work on the repository from here on."""
        self._lock.close()

    def files(self):
        """The series as it is in the checkout now."""
        return snapshot.from_checkout(self.root)

    def commits(self, files, base=None):
        """The commits that @files build."""
        return build(self.git, files, base or self.base(files))

    def base(self, files, source=None):
        """The upstream commit that @files are made against.

        Without a source the upstream that was imported last serves on.
        """
        values = pin.read(files)
        version = values['QEMU_VERSION']
        known = self._bases().get(version)
        if known and not self.git.resolve(known['commit']):
            known = None
        source = source or self.source
        if not source and known:
            return known['commit']
        found = upstream.examine(source or self._fetch(values),
                                 values['QEMU_TAG'])
        if known and known['source'] == _identity(found):
            return known['commit']
        self._check_digest(found, values)
        commit = upstream.import_source(self.git, found)
        self._check_version(found, commit, version)
        check_blobs(self.git, files, commit)
        self.record_base(version, found, commit)
        return commit

    def record_base(self, version, source, commit):
        """Remember an upstream, also against git's pruning."""
        bases = self._bases()
        bases[version] = {'commit': commit, 'source': _identity(source)}
        self.git.run('update-ref', f'refs/bases/{version}', commit)
        (self.git_dir / 'bases.json').write_text(json.dumps(bases, indent=1))

    def _bases(self):
        try:
            return json.loads((self.git_dir / 'bases.json').read_text())
        except FileNotFoundError:
            return {}

    @staticmethod
    def _check_digest(source, values):
        if source.kind == 'tarball' and \
                source.path.name == values['QEMU_TARBALL']:
            digest = upstream.sha256(source.path)
            if digest != values['QEMU_SHA256']:
                raise Failure(f'{source.path}: SHA-256 is {digest}, but '
                              f'{values["QEMU_SHA256"]} is pinned')

    def _check_version(self, source, commit, version):
        found = upstream.version(self.git, commit)
        if found != version:
            says = f'says {found}' if found else 'is missing'
            raise Failure(f'{source.describe()}: its file VERSION {says}, '
                          f'but the series is pinned to QEMU {version}')

    def _fetch(self, values):
        """The pinned tarball, from the download cache or from Debian."""
        tarball = self.cache / values['QEMU_TARBALL']
        if values['QEMU_TARBALL'] and tarball.exists():
            return tarball
        version = values['QEMU_DEBIAN_VERSION']
        if not version:
            raise Failure('no Debian source package is pinned: name a git '
                          'checkout, directory or tarball with QEMU_SRC=')
        print(f'fetching the Debian source package qemu {version}',
              flush=True)
        self.cache.mkdir(parents=True, exist_ok=True)
        script = Path(__file__).parents[1] / 'apt-private.sh'
        with tempfile.TemporaryDirectory(dir=self.cache) as scratch:
            done = subprocess.run(
                [script, 'source', values['QEMU_DEBIAN_SUITE'],
                 f'qemu={version}'], cwd=scratch, check=False)
            fetched = Path(scratch, values['QEMU_TARBALL'])
            if done.returncode or not fetched.exists():
                raise Failure(f'could not fetch qemu {version} with apt; '
                              'QEMU_SRC= names another source')
            fetched.rename(tarball)
        return tarball


def _identity(source):
    return [source.kind, str(source.path), source.fingerprint]
