# SPDX-License-Identifier: GPL-2.0-or-later
"""patches/qemu/series: the order of the patches and what each one brings.

    # A section heading; comment lines serve as status board
    name-of-a-patch.patch
      system/an-overlay-file.c
      include/system/an-overlay-file.h

Comments and empty lines belong to the patch below them and stay with it.
"""

from dataclasses import dataclass, field

from .git import Failure
from .snapshot import COVER, PATCHES, SERIES, File, is_overlay_path


@dataclass
class Entry:
    """One patch: the lines above it, its name, its overlay files."""
    name: str
    lead: list = field(default_factory=list)
    overlay: list = field(default_factory=list)

    @property
    def path(self):
        return PATCHES + self.name


def parse(files):
    """Read the entries, and the lines after the last one, of a snapshot."""
    if SERIES not in files:
        raise Failure(f'{SERIES}: missing')
    entries, lead = [], []
    text = files[SERIES].data.decode(errors='replace')
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        where = f'{SERIES}:{number}'
        if not word or word.startswith('#'):
            lead.append(line)
        elif not line[0].isspace():
            entries.append(Entry(_patch_name(where, word), lead))
            lead = []
        elif not entries or lead:
            raise Failure(f'{where}: {word} does not follow a patch')
        else:
            entries[-1].overlay.append(_overlay_path(where, word))
    return entries, lead


def _patch_name(where, word):
    if '/' in word or not word.endswith('.patch'):
        raise Failure(f'{where}: {word} is not the name of a patch (*.patch)')
    return word


def _overlay_path(where, word):
    if not is_overlay_path(word):
        raise Failure(f'{where}: {word} is not a path for an overlay file')
    return word


def format_file(entries, tail):
    """The one spelling of a series file."""
    lines = []
    for entry in entries:
        lines += entry.lead + [entry.name]
        lines += ['  ' + path for path in sorted(entry.overlay)]
    text = ''.join(line + '\n' for line in lines + tail)
    return File('100644', text.encode())


def check(files, entries):
    """Every patch and overlay file is listed once and exists."""
    listed = [entry.path for entry in entries]
    for entry in entries:
        listed += entry.overlay
    problems = []
    for path in sorted(set(listed)):
        if listed.count(path) > 1:
            problems.append(f'{path}: listed {listed.count(path)} times')
        if path not in files:
            problems.append(f'{path}: listed but missing')
    for path in sorted(files.keys() - set(listed)):
        if path not in (SERIES, COVER) and \
                (path.startswith(PATCHES) or is_overlay_path(path)):
            problems.append(f'{path}: present but not listed')
    if problems:
        raise Failure(f'{SERIES} does not match the files:\n  '
                      + '\n  '.join(problems))
