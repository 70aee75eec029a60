"""
The table of faults and what comes of them, for operators.

Each test program that has rows for it leaves them in a file in the build
directory; the document is made from all these files. What a later run of a
program finds must be what the document says, except for the times.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import json
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import paths
from .tap import expect

_HEAD = """\
# Faults, and what comes of them

Generated from a run of the tests by `tests/e2e/faults --table \
docs/failures.md`; do not edit.

For an operator: what HA software sees when a VM is told to quiesce while
something is broken, and what may be done about it then. Each row was measured
on real processes. `VM_QUIESCED` means that the VM may be started elsewhere;
`VM_QUIESCE_FAILED` that it may not, and what it names is in the column
"named". The times are those of one run on one machine, in milliseconds; the
promises behind them are in [system/vm-quiesce.rst](system/vm-quiesce.rst).
"""


@dataclass(frozen=True)
class Row:
    """One fault, and what came of it."""
    section: str
    back_end: str
    fault: str
    outcome: str
    # what VM_QUIESCE_FAILED or VM_QUIESCED names; without numbers that vary
    named: str = ''
    # heading of the column -> milliseconds
    times: dict[str, float] = field(default_factory=dict)

    def key(self) -> tuple[str, ...]:
        """What identifies it."""
        return self.section, _cell(self.back_end), _cell(self.fault)

    def finding(self) -> tuple[str, ...]:
        """What must not differ from run to run."""
        return _cell(self.outcome), _cell(self.named)


def save(program: str, rows: Iterable[Row]) -> None:
    """Leave the rows of a test program for the table."""
    paths.FAULTS.mkdir(parents=True, exist_ok=True)
    version = subprocess.run([paths.QEMU_BIN / paths.SYSTEM, '--version'],
                             capture_output=True, text=True, check=True)
    name = program.replace('/', '-')
    (paths.FAULTS / f'{name}.json').write_text(json.dumps(
        {'program': program, 'version': version.stdout.splitlines()[0],
         'rows': [asdict(row) for row in rows]}, indent=1))


def write(document: Path) -> None:
    """Make the document from what all programs have left."""
    sections: dict[str, list[Row]] = {}
    programs: dict[str, set[str]] = {}
    versions = set()
    for path in sorted(paths.FAULTS.glob('*.json')):
        run = json.loads(path.read_text())
        versions.add(run['version'])
        for row in (Row(**fields) for fields in run['rows']):
            sections.setdefault(row.section, []).append(row)
            programs.setdefault(row.section, set()).add(run['program'])
    lines = [_HEAD, '; '.join(sorted(versions)) + '.']
    for section, rows in sections.items():
        tests = ', '.join(f'`{name}`' for name in sorted(programs[section]))
        lines += ['', f'## {section}', '', f'Test: {tests}', '',
                  *_table(rows)]
    document.write_text('\n'.join(lines) + '\n')


def check(document: Path, rows: Iterable[Row], whole: str = '') -> None:
    """
    Fail if the document says something else than @rows, or has other rows
    that say they are of the program @whole.
    """
    written = _read(document)
    found = {row.key(): row.finding() for row in rows}
    problems = []
    for key, finding in found.items():
        _, *told = written.get(key, [''])
        if told != [*finding]:
            problems.append(f'{" / ".join(key)}: {finding}, but in the '
                            f'document: {told or "nothing"}')
    problems += [f'{" / ".join(key)}: only in the document'
                 for key, (tests, *_) in written.items()
                 if whole and f'`{whole}`' in tests and key not in found]
    expect(not problems, '\n'.join(
        [*problems, 'if that is right, make the document anew: '
         'tests/e2e/faults --table docs/failures.md']))


def _cell(text: str) -> str:
    return text.replace('|', '/').strip()


def _table(rows: list[Row]) -> list[str]:
    headings = list(dict.fromkeys(
        heading for row in rows for heading in row.times))
    lines = [['back end', 'fault', 'outcome', 'named', *headings],
             ['---'] * 4 + ['--:'] * len(headings)]
    for row in rows:
        times = (f'{row.times[heading]:.0f}' if heading in row.times else ''
                 for heading in headings)
        lines.append([*row.key()[1:], *row.finding(), *times])
    return [f'| {" | ".join(line)} |' for line in lines]


def _read(document: Path) -> dict[tuple[str, ...], list[str]]:
    """Key of each row -> its section's tests, and its finding."""
    found = {}
    section = tests = ''
    text = document.read_text() if document.exists() else ''
    for line in text.splitlines():
        if line.startswith('## '):
            section = line[3:]
        elif line.startswith('Test: '):
            tests = line
        elif line.startswith('| ') and not line.startswith('| ---'):
            cells = [cell.strip() for cell in line.strip('|').split('|')]
            found[section, cells[0], cells[1]] = [tests, *cells[2:4]]
    return {key: value for key, value in found.items()
            if key[1:] != ('back end', 'fault')}
