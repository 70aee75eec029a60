# SPDX-License-Identifier: GPL-2.0-or-later
"""Bring an upstream QEMU into the series repository as a base commit.

A git checkout gives its own commit.  A directory or a tarball gives a
commit that depends on nothing but its files, so that every machine gets the
same ids from the same source.
"""

import hashlib
import lzma
import os
import re
import stat
import subprocess
import tarfile
import zlib
from pathlib import Path
from typing import NamedTuple

from .git import Git, Failure

_IMPORT = 'refs/series/import'
# Who imports are attributed to, and when: fixed, for the ids' sake.
_IDENT = b'QEMU <qemu-devel@nongnu.org> 0 +0000'


class Source(NamedTuple):
    kind: str           # 'git', 'directory' or 'tarball'
    path: Path
    fingerprint: str    # changes when the source does
    commit: str = ''    # of a git source

    def describe(self):
        return f'{self.kind} {self.path}'


def examine(path, tag):
    """Tell what kind of source is at @path, without reading all of it."""
    path = Path(path).expanduser().absolute()
    if path.is_file():
        info = path.stat()
        return Source('tarball', path, f'{info.st_size} {info.st_mtime_ns}')
    if not path.is_dir():
        raise Failure(f'{path}: no such git checkout, directory or tarball')
    if _is_repository(path):
        git = Git(cwd=path)
        commit = git.resolve(f'refs/tags/{tag}') if tag else None
        commit = commit or git.resolve('HEAD')
        if not commit:
            raise Failure(f'{path}: a git repository without a commit')
        return Source('git', path, commit, commit)
    return Source('directory', path, _fingerprint(path))


def _is_repository(path):
    if (path / '.git').exists():
        return True
    return (path / 'HEAD').is_file() and (path / 'objects').is_dir()


def _fingerprint(directory):
    total = hashlib.sha256()
    for path, info in sorted(_files(directory)):
        total.update(f'{path} {info.st_size} {info.st_mtime_ns}\n'
                     .encode(errors='surrogateescape'))
    return total.hexdigest()


def _files(directory):
    for top, dirs, names in os.walk(directory):
        links = [d for d in dirs if os.path.islink(os.path.join(top, d))]
        for name in names + links:
            full = os.path.join(top, name)
            yield os.path.relpath(full, directory), os.lstat(full)


def sha256(path):
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def import_source(git, source):
    """Store @source in the repository @git; return its commit."""
    if source.kind == 'git':
        git.run('fetch', '--quiet', '--no-tags', '--depth=1', source.path,
                f'+{source.commit}:{_IMPORT}')
        return source.commit
    contents = (_read_tarball if source.kind == 'tarball'
                else _read_directory)(source.path)
    return _fast_import(git, contents)


def _read_directory(directory):
    for path, info in sorted(_files(directory)):
        full = os.path.join(directory, path)
        if stat.S_ISLNK(info.st_mode):
            yield path, '120000', os.fsencode(os.readlink(full))
        elif stat.S_ISREG(info.st_mode):
            mode = '100755' if info.st_mode & 0o100 else '100644'
            yield path, mode, Path(full).read_bytes()


def _read_tarball(path):
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                # All of a release tarball is below one directory.
                name = re.sub(r'^(\./)?[^/]+/?', '', member.name)
                if not name:
                    continue
                if member.issym():
                    yield name, '120000', os.fsencode(member.linkname)
                elif member.isreg() or member.islnk():
                    mode = '100755' if member.mode & 0o100 else '100644'
                    yield name, mode, tar.extractfile(member).read()
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError,
            OSError) as error:
        raise Failure(f'{path}: not a readable tarball: {error}') from error


def _fast_import(git, contents):
    with subprocess.Popen(
            ['git', 'fast-import', '--quiet', '--force', '--done'],
            stdin=subprocess.PIPE, stderr=subprocess.PIPE,
            env=git.env) as feed:
        write = feed.stdin.write
        write(b'commit %s\ncommitter %s\ndata 15\nUpstream import\ndeleteall\n'
              % (_IMPORT.encode(), _IDENT))
        for path, mode, data in contents:
            write(b'M %s inline %s\ndata %d\n'
                  % (mode.encode(), os.fsencode(path), len(data)))
            write(data + b'\n')
        write(b'done\n')
        feed.stdin.close()
        message = feed.stderr.read().decode(errors='replace')
    if feed.returncode:
        raise Failure(f'git fast-import: {message.strip()}')
    return git.resolve(_IMPORT)


def is_import(git, commit):
    """Whether @commit was made from files, and is unknown to upstream."""
    ident = git.text('show', '-s', '--format=%an <%ae>', commit)
    return _IDENT.startswith(ident.encode())


def version(git, commit):
    """What QEMU's VERSION file says in @commit, or None."""
    done = git.attempt('cat-file', 'blob', f'{commit}:VERSION')
    return done.stdout.decode(errors='replace').strip() or None
