"""
migration-watch and a real QEMU.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from harness.machine import Machine
from harness.tap import expect

from watched import in_order, watched, write

_MEMORY_MIB = 32
# bytes per second: never to be done, and done in a few seconds
_SLOW, _FAST = 1 << 20, 16 << 20


@contextlib.contextmanager
def _machine(work: Path) -> Iterator[Machine]:
    """A VM with one more monitor."""
    machine = Machine(work, 'watched')
    # Pages of zeros would be sent in no time.
    memory = write(work / 'ram', b'content ' * (_MEMORY_MIB << 17))
    machine.add_args(
        '-S', '-machine', 'q35,memory-backend=ram', '-m', str(_MEMORY_MIB),
        '-object', f'memory-backend-file,id=ram,share=on,mem-path={memory},'
        f'size={_MEMORY_MIB}M', '-nodefaults', '-display', 'none',
        '-qmp', f'unix:{work}/qmp,server=on,wait=off')
    with machine:
        machine.launch()
        yield machine


def _migrate(machine: Machine, bandwidth: int) -> None:
    machine.cmd('migrate-set-parameters', **{'max-bandwidth': bandwidth})
    machine.cmd('migrate', uri='exec:cat >/dev/null')


def _capability(machine: Machine, state: bool) -> None:
    machine.cmd('migrate-set-capabilities', capabilities=[
        {'capability': 'convergence', 'state': state}])


def plain(work: Path) -> None:
    """Without the capability: two migrations, cancelled and completed."""
    with _machine(work) as machine:
        _capability(machine, False)
        with watched(work / 'qmp', '--follow', terminal=True) as watch:
            watch.wait_for('waiting for a migration')
            _migrate(machine, _SLOW)
            watch.wait_for('MiB left')
            machine.cmd('migrate_cancel')
            watch.wait_for('cancelled after')
            _migrate(machine, _FAST)
            watch.wait_for('completed after')
            machine.shutdown()
            watch.end(0)
            in_order(watch.out, 'cancelled after', 'completed after',
                     'downtime: ')


def converging(work: Path) -> None:
    """With it: passes as they end, and the record of the migration."""
    with _machine(work) as machine:
        _capability(machine, True)
        with watched(work / 'qmp', '--save', work / 'x.json') as watch:
            watch.wait_for('waiting for a migration')
            _migrate(machine, _FAST)
            watch.end(0)
            in_order(watch.out, 'outgoing, convergence: enforce', 'pass 1: ',
                     'switch-over: ', 'completed after', 'downtime: ')
        history = machine.cmd('query-migration-history')
    saved = json.loads((work / 'x.json').read_text())
    expect(saved == history[-1], (saved, history))


CASES = [('a real QEMU, capability off', plain),
         ('a real QEMU, capability on', converging)]
