"""
Promised: the state of a quiesced VM can be saved to a file. Where it is
loaded, the VM is quiesced, also without -S, under the same token: it takes no
lock and runs nothing before vm-unquiesce and cont. An unpatched QEMU refuses
the file.

Measured: a guest that writes to its disk is quiesced, saved, and its QEMU
ended. Another one that loads the file says `quiesced`, its vCPU's counter
stands still, and the image is not locked. vm-unquiesce there is refused while
a third QEMU has the image; then it takes the lock, and after cont the guest
goes on where it was, without a restart. Unpatched QEMU ends with an error, by
itself.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import subprocess
from pathlib import Path

from harness import image
from harness.machine import PATIENCE
from harness.paths import QEMU_UPSTREAM_BIN, SYSTEM
from harness.process import until
from harness.refusals import abuse, refusal
from harness.rig import Rig
from harness.table import Case, Row
from harness.tap import Skip, expect
from harness.tiny import MACHINE, Tiny

from cases.migration import SECTION, Pair, await_migration, writing


def _save(pair: Pair, path: Path) -> tuple[str, list[int]]:
    """A quiesced VM in a file; its token, and its vCPU's counter."""
    vm = pair.source
    vm.boot()
    vm.run(writing())
    vm.wait_until_moving()
    token = vm.quiesce()['data']['token']
    counters = vm.counters()
    vm.cmd('migrate', uri=f'file:{path}')
    await_migration(vm, 'completed')
    expect(vm.status() == 'quiesced', f'saving has made it {vm.status()}')
    expect(not image.is_locked(pair.disk.image), 'saving has taken a lock')
    vm.shutdown()
    return token, counters


def _locked_by_other(pair: Pair, vm: Tiny, token: str) -> None:
    other = pair.new('other', '-S')
    with other:
        other.launch()
        error = refusal(vm, 'vm-unquiesce', {'token': token})
        expect('disk' in error, f'the node is not named: {error}')


def _restored(rig: Rig) -> Row:
    path = rig.work / 'quiesced.state'
    pair = Pair(rig)
    try:
        token, counters = _save(pair, path)
        pair.source = vm = pair.new('restored', '-incoming', f'file:{path}')
        vm.launch()
        await_migration(vm, 'completed')
        until(lambda: vm.status() != 'inmigrate', 'it is loaded')
        state = vm.cmd('query-vm-quiesce')
        expect(vm.status() == state['phase'] == 'quiesced',
               f'loaded, it is {vm.status()}, {state}')
        expect(state['token'] == token, f'the token was {token}: {state}')
        before = image.digest(pair.disk.image)
        abuse(vm)
        expect(not vm.moving(0.1) and vm.counters() == counters,
               'it runs, or has run')
        expect(image.digest(pair.disk.image) == before,
               'the image has changed')
        expect(not image.is_locked(pair.disk.image), 'it has a lock')
        _locked_by_other(pair, vm, token)
        vm.cmd('vm-unquiesce', token=token)
        expect(image.is_locked(pair.disk.image), 'vm-unquiesce takes no lock')
        expect(vm.counters() == counters, 'vm-unquiesce alone makes it run')
        vm.cmd('cont')
        vm.wait_until_moving()
        expect(vm.starts() == 1, f'the guest has started {vm.starts()} times')
        expect(image.digest(pair.disk.image) != before,
               'the guest does not write any more')
        return Row(SECTION, 'one that loads a file', 'saved when quiesced',
                   'quiesced where it is loaded, under the same token; goes '
                   'on there after `vm-unquiesce` and `cont`',
                   times=pair.times())
    finally:
        pair.close()
        path.unlink(missing_ok=True)


def _unpatched(rig: Rig) -> Row:
    binary = QEMU_UPSTREAM_BIN / SYSTEM
    if not binary.exists():
        raise Skip(f'{binary} is not there ("make upstream")')
    path = rig.work / 'quiesced.state'
    pair = Pair(rig)
    try:
        _save(pair, path)
        vm = pair.new('unpatched', '-incoming', f'file:{path}',
                      binary=binary)
        # without a monitor: what matters is how it ends by itself
        done = subprocess.run(
            [binary, '-machine', MACHINE, '-display', 'none', *vm.args],
            check=False, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=PATIENCE)
        expect(done.returncode > 0, f'it ended with {done.returncode}')
        expect(done.stderr.strip(), 'it says nothing')
        error = done.stderr.strip().splitlines()[0].partition(': ')[2]
        return Row(SECTION, 'unpatched one that loads a file',
                   'saved when quiesced', 'ends with an error, and does not '
                   'run the guest', error.partition('. ')[0])
    finally:
        pair.close()
        path.unlink(missing_ok=True)


def cases(rig: Rig) -> list[Case]:
    """Both."""
    return [
        ('a quiesced VM in a file is quiesced where it is loaded',
         lambda: _restored(rig)),
        ('unpatched QEMU refuses a quiesced VM in a file',
         lambda: _unpatched(rig)),
    ]
