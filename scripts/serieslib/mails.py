# SPDX-License-Identifier: GPL-2.0-or-later
"""The series as numbered mails, and compared with an earlier state.

Nothing is sent and no Signed-off-by is added: whether and how a patch is
posted is its owner's decision.
"""

import shutil
import sys

from . import checkpatch, pin, snapshot, upstream
from .build import build, tip
from .git import Failure
from .snapshot import COVER


def export(project, files, directory):
    """Write the mails into @directory; return (base, paths in order)."""
    base = project.base(files)
    last = tip(project.commits(files, base), base)
    if last == base:
        raise Failure('the series is empty')
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    args = ['format-patch', '--quiet', '--zero-commit', '--no-signature',
            '--full-index', '--no-renames', '--cover-letter',
            f'--base={base}', '--cover-from-description=subject',
            '-o', directory, f'{base}..{last}']
    # git takes the text of the cover letter from the branch description.
    project.git.run('branch', '--force', 'mails', last)
    cover = files[COVER].data.decode() if COVER in files else ''
    project.git.run('config', 'branch.mails.description', cover)
    args[-1] = f'{base}..mails'
    project.git.run(*args, env=_sender(project, last))
    return base, sorted(directory.glob('*.patch'))


def _sender(project, commit):
    """The cover letter comes from the author of the last patch."""
    show = project.git.lines('show', '-s', '--format=%an%n%ae%n%aD', commit)
    return dict(zip(('GIT_COMMITTER_NAME', 'GIT_COMMITTER_EMAIL',
                     'GIT_COMMITTER_DATE'), show))


def write(project):
    """`make series`: the mails and a checkpatch report."""
    directory = project.build_dir / 'mails'
    files = project.files()
    base, mails = export(project, files, directory)
    reports = []
    for mail in mails[1:]:
        errors, warnings, report = checkpatch.run(project, base, mail)
        reports.append(f'{mail.name}: {errors} errors, {warnings} warnings\n'
                       + (report if errors or warnings else ''))
        print(reports[-1].splitlines()[0])
    (directory / 'checkpatch.txt').write_text('\n'.join(reports))
    version = pin.read(files)['QEMU_VERSION']
    print(f'{directory}: cover letter and {len(mails) - 1} mails on QEMU '
          f'{version}, checkpatch.txt; nothing was sent')
    if upstream.is_import(project.git, base):
        print('the base-commit is an import that only these tools know: to '
              'post the mails, make them with QEMU_SRC= a git checkout')


def range_diff(project, rev):
    """`make range-diff REV=rev`: the series at @rev against now."""
    if not rev:
        raise Failure('say against which revision: make range-diff REV=...')
    now, then = project.files(), snapshot.from_revision(project.root, rev)
    ranges = []
    for files in (then, now):
        base = project.base(files)
        ranges.append(f'{base}..{tip(build(project.git, files, base), base)}')
    color = 'always' if sys.stdout.isatty() else 'never'
    print(project.git.text('range-diff', f'--color={color}', *ranges))
