"""
Promised: whatever a VM does when it is quiesced, and however often: once
VM_QUIESCED has come, no image changes until vm-unquiesce or until another QEMU
runs it, no lock for writing is held, and each record that the guest was told
is written is on the disk, whole and once.

Measured: a Linux guest appends records (harness/records.py) while it is
quiesced, in random rounds: running, paused, right after `cont`, with a
deadline of 1 or 2 ms that may fail before the state is reached, with a second
vm-quiesce at its heels, with a mirror job running, or with an export open.
Then, at random moments and after commands that it must refuse, the images are
compared byte for byte, and all records are checked against what the guest has
reported. A round ends with vm-unquiesce and `cont`, sometimes after a
vm-unquiesce that had to fail because another process held the image; or with
another QEMU that takes over.

The random choices of a round follow from the seed, the chain and the number of
the round alone. The moments at which they meet the guest do not.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import random
import time
from collections import Counter

from harness import image
from harness.chain import Chain
from harness.guest import PATIENCE, Controller, Guest
from harness.records import RECORD
from harness.refusals import abuse, refusal
from harness.rig import STREAMS, Rig
from harness.tap import Failure, expect

# How a VM comes to be quiesced, and how often; each is a method of _Segment.
_WAYS = {'running': 4, 'short_deadline': 4, 'asked_twice': 2, 'paused': 2,
         'right_after_cont': 3, 'with_mirror': 3, 'with_export': 2}
# A VM that cannot be loaded has to boot, which takes as long as many rounds.
_TAKEOVERS_WARM = 0.5
_TAKEOVERS_COLD = 0.04


def _takeovers(controller: Controller) -> float:
    """The share of rounds that end with one."""
    # Under TCG, with an iothread, a guest may wait for good for an interrupt
    # after plain stop and cont: unpatched QEMU, after 22 of them. So nobody
    # is expected to go on there.
    if any('iothread=' in arg for arg in controller.args):
        return 1
    return _TAKEOVERS_WARM if controller.migratable else _TAKEOVERS_COLD


class _Segment(Chain):
    """The rounds on one disk, up to where it is nearly full."""

    def __init__(self, rig: Rig, controller: Controller, fmt: str,
                 counts: Counter) -> None:
        super().__init__(rig, random.Random(), rig.disk(controller, fmt),
                         controller.migratable)
        self._counts = counts
        self._target = rig.work / 'target'
        self._takeovers = _takeovers(controller)
        self._stack = contextlib.ExitStack()
        self._vm: Guest
        self._serves = False

    def __enter__(self) -> '_Segment':
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._stack.__exit__(*exc)
        finally:
            self._disk.image.unlink()
            self._target.unlink(missing_ok=True)

    def begin(self, rng: random.Random) -> None:
        """Start the first VM."""
        self._rng = rng
        self._vm = self._stack.enter_context(self.next_vm())
        self.start(self._vm, hurry=0)

    def full(self) -> bool:
        """Might the guest reach the end of the disk in the next round?"""
        used = max((record.number for record in self._vm.acknowledged()),
                   default=0)
        return used > self._rig.disk_size // STREAMS // RECORD * 2 // 3

    def log(self) -> str:
        """End the VM at once; what it has printed."""
        self._vm.shutdown(hard=True)
        return (self._vm.get_log() or '')[-10000:]

    def finish(self) -> str:
        """Quiesce a last time, and check the whole disk; the result."""
        self._vm.wait_for_progress(STREAMS)
        self.quiesce(self._vm)
        self.end(self._vm)
        return self.report([])

    def round(self, rng: random.Random) -> None:
        """One round."""
        self._rng = rng
        vm = self._vm
        way, = rng.choices(list(_WAYS), list(_WAYS.values()))
        self._counts[way.replace('_', ' ')] += 1
        time.sleep(rng.uniform(0, 0.3))
        event = getattr(self, f'_{way}')(vm)
        before = self._digests()
        self.contained(vm, event)
        token = event['data']['token']
        writes = vm.writes()
        self._wait(vm, before)
        if rng.random() < self._takeovers:
            self._counts['takeovers'] += 1
            self._taken_over(token, writes)
        else:
            self._counts['returns'] += 1
            self._return(token, before)
        with contextlib.suppress(FileNotFoundError):
            self._target.unlink()

    # the ways in, each returns the event VM_QUIESCED

    def _running(self, vm: Guest) -> dict:
        return vm.quiesce()

    def _short_deadline(self, vm: Guest) -> dict:
        deadline = self._rng.choice((1, 2))
        persist = self._rng.random() < 0.5
        token = vm.cmd('vm-quiesce', {'reason': 'soak',
                                      'deadline-ms': deadline})['token']
        event = vm.await_outcome(token)
        if event['event'] == 'VM_QUIESCED':
            return event
        self._counts['failed by the deadline'] += 1
        expect(event['data']['participants'], f'nobody is named: {event}')
        if persist:
            answer = vm.qmp('vm-quiesce', {'reason': 'again'})
            # unless it was reached in the meantime
            if 'return' in answer:
                return vm.await_quiesced(answer['return']['token'])
        return vm.await_outcome(token, late=True)

    def _asked_twice(self, vm: Guest) -> dict:
        token = vm.cmd('vm-quiesce', reason='soak')['token']
        answer = vm.qmp('vm-quiesce', {'reason': 'impatience'})
        expect('error' in answer, f'two attempts at once: {answer}')
        return vm.await_quiesced(token)

    def _paused(self, vm: Guest) -> dict:
        vm.cmd('stop')
        time.sleep(self._rng.uniform(0, 0.05))
        return vm.quiesce()

    def _right_after_cont(self, vm: Guest) -> dict:
        vm.cmd('stop')
        vm.cmd('cont')
        time.sleep(self._rng.choice((0, 0, 0.001, 0.005)))
        return vm.quiesce()

    def _with_mirror(self, vm: Guest) -> dict:
        image.create(self._target, 'raw', self._rig.disk_size)
        vm.cmd('blockdev-add', {'driver': 'file', 'node-name': 'target',
                                'filename': str(self._target)})
        vm.cmd('blockdev-mirror', {
            'job-id': 'mirror', 'device': 'disk', 'target': 'target',
            'sync': self._rng.choice(('full', 'none')),
            'copy-mode': self._rng.choice(('background', 'write-blocking'))})
        time.sleep(self._rng.uniform(0, 0.3))
        event = vm.quiesce()
        expect(not image.is_locked(self._target),
               'VM_QUIESCED, but the target of the mirror is locked')
        expect(not vm.cmd('query-block-jobs'), 'the mirror job goes on')
        return event

    def _with_export(self, vm: Guest) -> dict:
        path = str(self._rig.work / 'nbd')
        vm.cmd('nbd-server-start', {'addr': {'type': 'unix',
                                             'data': {'path': path}}})
        vm.cmd('block-export-add', {'type': 'nbd', 'id': 'export',
                                    'node-name': 'disk', 'name': 'disk'})
        self._serves = True
        with image.reading(f'nbd+unix:///disk?socket={path}') as client:
            time.sleep(self._rng.uniform(0, 0.1))
            event = vm.quiesce()
            expect(client.wait(PATIENCE), 'the client was told of no error')
        expect(not vm.cmd('query-block-exports'), 'the export is open')
        return event

    # quiesced

    def _digests(self) -> list[str]:
        """All that this VM could have written to."""
        return [image.digest(path) for path in (self._disk.image,
                                                self._target)
                if path.exists()]

    def _unchanged(self, before: list[str]) -> None:
        expect(self._digests() == before,
               'an image has changed after VM_QUIESCED')

    def _wait(self, vm: Guest, before: list[str]) -> None:
        if self._rng.random() < 0.3:
            abuse(vm)
            refusal(vm, 'vm-quiesce', {'reason': 'once more'})
        time.sleep(self._rng.uniform(0, 0.1))
        self.report([vm])
        self._unchanged(before)

    # the ways out

    def _return(self, token: str, before: list[str]) -> None:
        vm, rng = self._vm, self._rng
        if rng.random() < 0.25:
            self._counts['refused returns'] += 1
            with image.held(self._disk.image, self._disk.fmt):
                error = refusal(vm, 'vm-unquiesce', {'token': token})
            expect('disk' in error, f'the node is not named: {error}')
            self._unchanged(before)
        vm.cmd('vm-unquiesce', token=token)
        vm.event_wait('VM_UNQUIESCED', PATIENCE)
        expect(vm.status() == 'paused', f'it is {vm.status()}')
        expect(image.is_locked(self._disk.image), 'no lock was taken')
        if self._target.exists():
            vm.cmd('blockdev-del', {'node-name': 'target'})
        if self._serves:
            vm.cmd('nbd-server-stop')
            self._serves = False
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0, 0.02))
        vm.cmd('cont')
        if rng.random() < 0.3:
            vm.wait_for_progress(STREAMS)

    def _taken_over(self, token: str,
                    writes: list[tuple[int, int, int]]) -> None:
        old = self._vm
        self._vm = self._stack.enter_context(self.next_vm())
        self._serves = False
        self.start(self._vm, hurry=0)
        self.outlive(old, token, writes)
        self.end(old)


def chain(rig: Rig, controller: Controller, fmt: str, seed: str, rounds: int,
          deadline: float) -> tuple[Counter, str]:
    """
    Make these rounds, but begin none after @deadline (of time.monotonic());
    what was done, and what was found on the last disk.
    """
    counts: Counter = Counter()
    number = 0
    found = ''
    while number < rounds and time.monotonic() < deadline:
        with _Segment(rig, controller, fmt, counts) as segment:
            segment.begin(random.Random(f'{seed}/disk {number}'))
            while (number < rounds and time.monotonic() < deadline
                   and not segment.full()):
                try:
                    segment.round(random.Random(f'{seed}/{number}'))
                except Failure as failure:
                    raise Failure(f'round {number}: {failure}\n'
                                  f'{segment.log()}') from failure
                number += 1
                counts['rounds'] += 1
            found = segment.finish()
    return counts, found
