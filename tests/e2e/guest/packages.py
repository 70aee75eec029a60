"""
Debian packages, downloaded and unpacked but not installed.

They come from the user's own apt sources and need no root. Each package is
kept unpacked in a cache directory outside the build directory; one that is
there is used as it is, without asking the network.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path


class PackageError(Exception):
    """A package cannot be had; the text says why."""


def cache_dir() -> Path:
    """The directory of this Debian release in the user's cache."""
    cache = os.environ.get('SERIES_CACHE') or os.path.join(
        os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'),
        'qemu-failsafe')
    release = platform.freedesktop_os_release()
    codename = release.get('VERSION_CODENAME', release['ID'])
    return Path(cache) / f'guest-{codename}'


def _run(tool: str, *args: str,
         cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    apt = cache_dir() / 'apt'
    # apt's unprivileged user cannot write into a private directory
    options = ['-o', 'APT::Sandbox::User=root']
    if apt.is_dir():
        options += ['-o', f'Dir::State::lists={apt}/lists',
                    '-o', f'Dir::Cache={apt}/cache']
    try:
        return subprocess.run([tool, *options, *args], cwd=cwd, check=False,
                              capture_output=True, text=True)
    except FileNotFoundError:
        raise PackageError(f'{tool} is not here: the guest is made of Debian '
                           'packages') from None


def _apt(*args: str, cwd: Path | None = None) -> str:
    """Run apt-get or apt-cache; its output."""
    done = _run(*args, cwd=cwd)
    if done.returncode:
        # The system's package lists may be missing or old; making them new
        # needs root, so lists of our own are fetched. A source that is not
        # Debian's may fail here: what counts is the second try.
        for part in 'lists', 'cache/archives':
            (cache_dir() / 'apt' / part / 'partial').mkdir(parents=True,
                                                           exist_ok=True)
        _run('apt-get', '-q', 'update')
        done = _run(*args, cwd=cwd)
    if done.returncode:
        raise PackageError(f'"{" ".join(args)}" failed: {done.stderr.strip()}')
    return done.stdout


def first_dependency(package: str) -> str:
    """What a metapackage like linux-image-cloud-amd64 stands for now."""
    for line in _apt('apt-cache', 'depends', package).splitlines():
        relation, _, name = line.strip().partition(': ')
        if relation == 'Depends':
            return name
    raise PackageError(f'{package} depends on nothing')


def unpacked(name: str, package: str | None = None,
             meta: bool = False) -> Path:
    """
    The unpacked tree of @package (default: @name), cached as @name.
    With @meta it is the package that this metapackage depends on.
    """
    tree = cache_dir() / name
    if tree.is_dir():
        return tree
    package = package or name
    if meta:
        package = first_dependency(package)
    tree.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f'{name}.', dir=tree.parent))
    try:
        _apt('apt-get', '-q', 'download', package, cwd=work)
        deb, = work.glob('*.deb')
        subprocess.run(['dpkg', '-x', deb, work / 'tree'], check=True)
        # in one step, so that an interrupted run leaves no half tree
        (work / 'tree').rename(tree)
    finally:
        shutil.rmtree(work)
    return tree
