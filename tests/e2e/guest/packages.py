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
    """A package cannot be had; the text says what to do about it."""


def cache_dir() -> Path:
    """The directory of this Debian release in the user's cache."""
    base = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    release = platform.freedesktop_os_release()
    codename = release.get('VERSION_CODENAME', release['ID'])
    return Path(base) / 'qemu-failsafe' / f'guest-{codename}'


def _apt(*args: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(args, cwd=cwd, capture_output=True, text=True,
                              check=False)
    except FileNotFoundError:
        raise PackageError(f'{args[0]} is not here: the guest is made of '
                           'Debian packages') from None
    if done.returncode:
        raise PackageError(
            f'"{" ".join(args)}" failed: {done.stderr.strip()}\n'
            'If the package lists are old, "apt-get update" (as root) '
            'makes them new.')
    return done.stdout


def first_dependency(package: str) -> str:
    """What a metapackage like linux-image-cloud-amd64 stands for now."""
    for line in _apt('apt-cache', 'depends', package).splitlines():
        relation, _, name = line.strip().partition(': ')
        if relation == 'Depends':
            return name
    raise PackageError(f'apt does not know {package}: run "apt-get update" '
                       '(as root)')


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
        # apt's unprivileged user cannot write into a private directory
        _apt('apt-get', '-q', '-o', 'APT::Sandbox::User=root',
             'download', package, cwd=work)
        deb, = work.glob('*.deb')
        _apt('dpkg', '-x', str(deb), str(work / 'tree'))
        # in one step, so that an interrupted run leaves no half tree
        (work / 'tree').rename(tree)
    finally:
        shutil.rmtree(work)
    return tree
