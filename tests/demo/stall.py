"""
The part of the demo in which storage hangs.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import time
from pathlib import Path

from harness import image
from harness.guest import CONTROLLERS, Guest
from harness.machine import PATIENCE
from harness.process import until
from harness.records import check
from harness.rig import STREAMS, Rig
from harness.served import PAGE, Storage, write_pages
from harness.tap import expect
from story import DIM, GREEN, RED, Timeline, headline, paint, say, stamp

_LIMIT_MS = 500
_RULE = ('hw-error-rule,id=stall,source=block-stall,'
         f'stall-limit={_LIMIT_MS},action=quiesce')
# Linux' own time is two minutes
_BLOCKED_S = 2
_SETTINGS = {'hung_task_timeout_secs': _BLOCKED_S,
             'hung_task_check_interval_secs': 1,
             'hung_task_panic': 1}
_SYMPTOM = 'Kernel panic'


class _Vm(contextlib.ExitStack):
    """A guest that writes to a disk that another process serves."""

    def __init__(self, rig: Rig, instance: int, *args: str) -> None:
        super().__init__()
        self.name = f'VM {instance}'
        self.log = rig.work / f'kernel{instance}.log'
        self.storage = self.enter_context(
            Storage(rig.work, f'storage{instance}', rig.disk_size))
        self._page = rig.disk_size - PAGE
        controller = CONTROLLERS['virtio-blk']
        self.guest = self.enter_context(Guest(
            rig.work, self.storage.disk(controller), instance=instance,
            kernel_log=self.log, args=args))
        # its QEMU could not end while that hangs
        self.callback(self.storage.go_on)
        self._template = rig.template(controller)

    def start(self) -> None:
        """A guest that has booted, and begins to write."""
        self.guest.load(self._template)
        self.guest.cmd('cont')
        self.guest.record(STREAMS)
        self.guest.channel.send(write_pages(self.guest, self._page))
        self.guest.channel.send(' && '.join(
            [*(f'echo {value} >/proc/sys/kernel/{name}'
               for name, value in _SETTINGS.items()), 'echo SET']))
        self.guest.channel.wait(lambda line: line == 'SET', 'settings')
        self.guest.wait_for_progress(STREAMS)

    def panic(self) -> str:
        """What the kernel has said in panic; empty if it has not."""
        for line in self.log.read_text(errors='replace').splitlines():
            if _SYMPTOM in line:
                return line.partition('] ')[2].strip() or line
        return ''


def _prepare(without: _Vm, ruled: _Vm) -> None:
    headline('Two guests that write to storage in the network; one of the VMs '
             'has a rule for stalls')
    for vm in without, ruled:
        vm.start()
    say('  Both kernels take a task that is blocked for '
        f'{_BLOCKED_S} s for a reason to panic.')
    say(f'  {ruled.name} has  ' + paint(f'-object {_RULE}', DIM))


def _wait(vm: _Vm, what: str, event: str, **match: object) -> dict:
    found = vm.guest.event_wait(event, PATIENCE, {'data': match})
    expect(found, what)
    assert found
    return found


def _hang(without: _Vm, ruled: _Vm) -> None:
    """The time line up to where the storage answers again."""
    headline('The storage hangs')
    line = Timeline()
    line.add(time.time(), 'host', 'the processes that serve both disks are '
             'stopped')
    for vm in ruled, without:
        vm.storage.hang()
    until(lambda: ruled.guest.status() == 'paused', f'{ruled.name} pauses',
          PATIENCE)
    line.add(time.time(), ruled.name, paint(
        f'a request has hung for {_LIMIT_MS} ms: its CPUs are stopped, it '
        'waits to be quiesced', GREEN))
    until(lambda: bool(without.panic()), f'{without.name} panics', PATIENCE)
    line.add(time.time(), without.name,
             paint(f'its guest: "{without.panic()}"', RED))
    without.guest.shutdown(hard=True)
    expect(not ruled.panic(), f'{ruled.name} has panicked, too')

    line.add(time.time(), 'host', 'the storage goes on')
    ruled.storage.go_on()
    quiesced = _wait(ruled, 'not quiesced', 'VM_QUIESCED')
    line.add(stamp(quiesced), ruled.name, 'VM_QUIESCED')
    # that the request has ended is an event of its own
    error = _wait(ruled, 'not reported', 'HARDWARE_ERROR', action='quiesce')
    line.add(stamp(error), ruled.name, 'HARDWARE_ERROR')
    line.tell()

    data = error['data']
    info = data['info']
    say(f'  It says: a {info["operation"]}'
        + (f' at {info["offset"]}, {info["length"]} bytes,'
           if 'offset' in info else '')
        + f' to node "{info["node-name"]}" of device {info["qom-path"]}')
    say(f'  has been in flight for {info["age-ms"]} ms; action '
        f'{data["action"]}; outcome {data["outcome"]}; contained: '
        f'{str(data["contained"]).lower()}')
    expect(info['source'] == 'block-stall' and not info['ended'], info)
    expect(data['contained'] == (data['outcome'] == 'quiesced'), data)
    ruled.guest.unquiesce(quiesced)


def _go_on(ruled: _Vm) -> None:
    headline(f'{ruled.name} could be started elsewhere now; it is continued '
             'here instead')
    ruled.guest.cmd('cont')
    ruled.guest.wait_for_progress(STREAMS)
    expect(not ruled.panic(), 'the guest has panicked')
    ruled.guest.quiesce('end of the demo')
    ruled.guest.shutdown()
    ruled.guest.channel.drain()
    with image.content(ruled.storage.image, 'raw') as content:
        report = check(content, STREAMS, [ruled.guest.instance],
                       ruled.guest.acknowledged())
    expect(not report.problems, report)
    say('  Its guest writes on, and has not noticed anything:')
    say(f'  {report}')


def tell(rig: Rig) -> None:
    """The story."""
    with _Vm(rig, 3) as without, _Vm(rig, 4, '-object', _RULE) as ruled:
        _prepare(without, ruled)
        _hang(without, ruled)
        _go_on(ruled)
