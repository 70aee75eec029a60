"""
Storage that hangs, with requests in flight.

What is promised, from vm-quiesce on:

* no vCPU runs (query-vm-quiesce tells if that takes a moment), and every
  monitor answers within 100 ms, all the time;
* VM_QUIESCE_FAILED comes at the deadline, and names the node, the device, and
  the number and age of the requests;
* nothing but VM_QUIESCED comes after STOP, and the VM cannot be continued;
* when the storage goes on, VM_QUIESCED comes by itself: what was in flight is
  on the disk, another process can have it, and nothing is written any more;
* `quit` and SIGTERM end the process within 2 s while it hangs; so does `quit`
  later.

Each of the last three is the end of a cell, with a VM of its own.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

from harness import image, virtio
from harness.bare import Attempt, Bare
from harness.process import PATIENCE, denied_seconds, until
from harness.tap import Failure, expect
from harness.watch import LIMIT, Control, Watch

from .backends import VhostUser
from .fault import Fault, Found

DEADLINE_MS = 600
# how long it still hangs after that
_AFTERWARDS = 0.3
_END_LIMIT = 2.0
_REQUESTS = 3
_LENGTH = 65536
# clocks are read a moment before or after what they measure
_ROUNDING = 0.02


class Cell(contextlib.ExitStack):
    """A VM whose storage hangs, up to where VM_QUIESCE_FAILED has come."""

    def __init__(self, fault: Fault, work: Path, control: Control) -> None:
        super().__init__()
        self.fault = fault
        self.control = control
        self.found = Found()
        with contextlib.ExitStack() as failed:
            failed.enter_context(self)
            self.backend = self.enter_context(fault.make(work))
            self.vm = self.enter_context(Bare(
                work, [*self.backend.args(), *fault.device.args]))
            # whoever waits for the disk could not end
            self.callback(self.backend.release)
            # by time.perf_counter(): the oldest request was made in this time
            self.submitted = self._submit()
            self.watch = Watch(self.vm, control)
            self.callback(self._end_watch)
            self._denied = denied_seconds(self.vm.process.pid)
            self.attempt = self.vm.quiesce(DEADLINE_MS)
            self.count = self.vm.counters()
            self._await_failure()
            failed.pop_all()

    def _end_watch(self) -> None:
        # a QEMU that does not answer any more is not waited for
        self.backend.release()
        self.vm.process.signal(signal.SIGKILL)
        self.watch.stop()

    def _submit(self) -> tuple[float, float]:
        device = self.fault.device.path
        self.vm.start()
        if self.backend.by_guest:
            # without a pause
            self.vm.run(virtio.access(self.vm, write=True))
            until(lambda: self.vm.word(virtio.ANSWERED) != 0,
                  'the guest writes')
        if self.fault.flush:
            for number in range(_REQUESTS):
                self.vm.io(device, 'write -q ' + _where(number))
        self.backend.hang()
        since = time.perf_counter()
        if self.fault.flush or self.backend.by_guest:
            return since, since
        for number in range(_REQUESTS):
            if self.backend.before_request:
                self.vm.io(device, self.backend.before_request.format(number))
            self.vm.io(device, 'aio_write -q ' + _where(number))
            if not number:
                submitted = time.perf_counter()
        return since, submitted

    def _await_failure(self) -> None:
        when, data = self.vm.verdict(self.attempt)
        # by how much the host may have delayed it
        slack = max(self.control.slack(self.attempt.sent, when),
                    denied_seconds(self.vm.process.pid) - self._denied)
        expect(data['event'] == 'VM_QUIESCE_FAILED', f'not hung: {data}')
        self.found.took('reply to vm-quiesce',
                        self.attempt.replied - self.attempt.sent)
        refusal = self.vm.refused('cont')
        expect('not permitted' in refusal, refusal)
        self.vm.refused('vm-unquiesce', token=self.attempt.token)
        time.sleep(_AFTERWARDS)
        expect(self.vm.status() == 'paused', 'the state has changed')

        late = when - self.attempt.sent - DEADLINE_MS / 1e3
        self.found.took('failed, after the deadline', late)
        expect(-LIMIT <= late <= LIMIT + slack,
               f'VM_QUIESCE_FAILED {late * 1e3:+.0f} ms from the deadline; '
               f'the host has taken {slack * 1e3:.0f} ms')
        self._check_named(data['participants'], when, slack)

    def _check_named(self, participants: list[dict], when: float,
                     slack: float) -> None:
        by_name = {part['name']: part for part in participants}
        if isinstance(self.backend, VhostUser):
            error = by_name.get('vhost', {}).get('error', '')
            # its requests are known to the guest and the back end only
            expect('does not answer' in error and self.fault.device.path
                   in error, f'participant vhost says: {participants}')
            self.found.named = error
            return
        block = by_name.get('block', {})
        error = block.get('error', '')
        self.found.named = re.sub(r'\d+ ms', '… ms', error)
        busy = ('flush in flight' if self.fault.flush
                else f'{_REQUESTS} requests in flight')
        match = re.fullmatch(r"node 'disk' \((.*)\): " + busy
                             + r'.* (\d+) ms', error)
        expect(match, f'participant block says: {error or participants}')
        assert match
        self._check_request(match[1], int(match[2]), when, slack)

        requests = [request for request in block.get('requests', [])
                    if request['node-name'] == 'disk']
        expect(len(requests) == 1, f'requests of the node: {block}')
        wanted = 1 if self.fault.flush else _REQUESTS
        expect(requests[0]['count'] == wanted, requests)
        self._check_request(requests[0].get('qom-path', ''),
                            requests[0]['age-ms'], when, slack)

    def _check_request(self, path: str, age_ms: int, when: float,
                       slack: float) -> None:
        first, last = ((self.attempt.sent, self.attempt.replied + LIMIT)
                       if self.fault.flush else self.submitted)
        slack += _ROUNDING
        low, high = (when - last - slack) * 1e3, (when - first + slack) * 1e3
        expect(low <= age_ms <= high, f'{age_ms} ms is not the age of a '
               f'request that is {low:.0f} to {high:.0f} ms old')
        expect(path.startswith('/machine/peripheral/dev'),
               f'the device is not named: {path}')

    def _check_watch(self, end: float) -> None:
        """Whatever must have been so up to here."""
        self.watch.check(self.attempt.sent, end)
        looks = self.watch.still(self.attempt.stopped)
        expect(self.vm.counters() == self.count, 'the guest has counted')
        if self.attempt.stopped > self.attempt.replied:
            wait = self.attempt.stopped - self.attempt.replied
            self.found.notes.append(f'a vCPU stopped {wait * 1e3:.0f} ms '
                                    'after the reply, as was told')
        self.found.took('slowest monitor', self.watch.slowest())
        self.found.notes.append(f'the guest stood still {looks} times')

    def goes_on(self) -> Found:
        """The storage goes on: the state is reached."""
        start = time.perf_counter()
        self.backend.go_on()
        when, _ = self.vm.verdict(self.attempt, 'VM_QUIESCED')
        expect(self.vm.status() == 'quiesced', 'VM_QUIESCED, but no status')
        self.found.took('quiesced, after going on', when - start)
        _check_order(self.vm, self.attempt)
        self._check_content()
        expect(not self.backend.is_locked(), 'the image is still locked')
        self.backend.write_elsewhere()
        before = image.digest(self.backend.image)
        self.vm.refused('cont')
        time.sleep(_AFTERWARDS)
        expect(image.digest(self.backend.image) == before,
               'the image was written to after VM_QUIESCED')
        expect(self.vm.status() == 'quiesced', 'the state was left')
        return self._end('quit, quiesced',
                         lambda: self.vm.main.send('quit'))

    def _check_content(self) -> None:
        data = self.backend.image.read_bytes()
        if self.backend.by_guest:
            expect(data[:512] == bytes([virtio.PATTERN]) * 512,
                   'what the guest has written is not there')
            return
        for number in range(_REQUESTS):
            start = number * _LENGTH
            expect(data[start:start + _LENGTH]
                   == bytes([_pattern(number)]) * _LENGTH,
                   f'request {number} is not in the image')

    def quit(self) -> Found:
        """The command ends the process."""
        self._check_no_stop()
        return self._end('quit', lambda: self.vm.main.send('quit'))

    def sigterm(self) -> Found:
        """The signal ends the process."""
        self._check_no_stop()
        return self._end('SIGTERM',
                         lambda: self.vm.process.signal(signal.SIGTERM))

    def _check_no_stop(self) -> None:
        for stops in self.watch.events('STOP'):
            expect(not stops, 'STOP, but not quiesced')

    def _end(self, what: str, act: Callable[[], None]) -> Found:
        start = time.perf_counter()
        act()
        self.found.took(what, self._await_end(start, what) - start)
        self.watch.stop()
        self._check_watch(start)
        return self.found

    def _await_end(self, start: float, what: str) -> float:
        process = self.vm.process
        denied = 0.0
        denied_before = denied_seconds(process.pid)
        while True:
            ended = process.wait(0.002)
            now = time.perf_counter()
            if ended:
                status = process.status()
                expect(status in (0, -signal.SIGTERM, -signal.SIGKILL),
                       f'{what}: exit status {status}: {process.output()}')
                return ended
            if process.runs_no_code() and not self.backend.closes():
                # all that is left of it is in the kernel
                self.found.kept = True
                self.found.notes.append('the kernel keeps the process')
                self.backend.go_on()
                expect(process.wait(PATIENCE), f'{what}: the kernel keeps it')
                return now
            denied = max(denied, denied_seconds(process.pid) - denied_before)
            if now - start > _END_LIMIT + max(
                    denied, self.control.slack(start, now)):
                raise Failure(f'{what} has not ended the process after '
                              f'{now - start:.1f} s')


def _pattern(number: int) -> int:
    return 0xa1 + number


def _where(number: int) -> str:
    return f'-P {_pattern(number)} {number * _LENGTH} {_LENGTH}'


def _check_order(vm: Bare, attempt: Attempt) -> None:
    """STOP comes once, and right before VM_QUIESCED."""
    # that the server is lost, or is back, may come at any time
    names = [event['event'] for _, event in vm.main.events[attempt.events:]
             if event['event'] != 'HARDWARE_ERROR']
    expect(names == ['VM_QUIESCE_FAILED', 'STOP', 'VM_QUIESCED'],
           f'events: {names}')
