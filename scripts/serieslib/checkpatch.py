# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own checkpatch.pl, from the upstream that the series is on."""

import re
import subprocess
from pathlib import Path

_SUMMARY = re.compile(r'total: (\d+) errors?, (\d+) warnings?')


def run(project, base, mail):
    """Check one mailed patch; return (errors, warnings, report).

    Signed-off-by lines are not asked for: who signs is decided by whoever
    posts a patch, and no tool here adds any.
    """
    script = Path(project.build_dir, 'checkpatch.pl')
    script.write_bytes(project.git.run('cat-file', 'blob',
                                       f'{base}:scripts/checkpatch.pl'))
    done = subprocess.run(
        ['perl', script, '--no-tree', '--no-signoff', '--color=never', mail],
        capture_output=True, text=True, errors='replace', check=False)
    report = done.stdout + done.stderr
    match = _SUMMARY.search(report)
    if not match:
        return 1, 0, report
    return int(match[1]), int(match[2]), report
