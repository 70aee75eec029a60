"""
Promised: what the host says of an assigned device is a HARDWARE_ERROR: that it
has failed, and that the host wants it back. Without a rule QEMU does what it
ever did, which for the latter is to ask the guest. With `stop` or `quiesce` it
does that instead, and `quiesced` means that the device can do no DMA. The
monitor answers all the time, also while the host resets the device.

Measured: on the real VFIO of a Linux host under TCG. The device is emulated,
and so are the errors of its link that the host's AER driver finds.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import time
from collections.abc import Callable
from pathlib import Path

from harness.assigned import CARD, CARD_PATH, GUEST_CARD, Assigned
from harness.host import PATIENCE, prepare
from harness.process import until
from harness.tap import expect

_RULE = '-object hw-error-rule,id=rule,source=vfio,action={}'
# of the link: the first is recovered from, for the second it is reset
_NONFATAL, _FATAL = 'COMP_TIME', 'DLP'
_FRAMES = 20
# how long requests hang, in seconds
_HANG = 120


def _expect_card(error: dict, unplug_requested: bool = False) -> None:
    """Is it all there?"""
    expect(error['info'] == {
        'source': 'vfio', 'component': CARD_PATH, 'qom-path': CARD_PATH,
        'severity': 'corrected' if unplug_requested else 'fatal',
        'host-address': CARD, 'guest-address': GUEST_CARD,
        'unplug-requested': unplug_requested}, error)


def _expect_quiesced(vm: Assigned, error: dict, start: int = 0) -> str:
    """Quiesced, before the event, and the card does no DMA? The token."""
    expect(error['rule'] == 'rule' and error['action'] == 'quiesce'
           and error['outcome'] == 'quiesced' and error['contained'], error)
    names = vm.names()[start:]
    expect('VM_QUIESCED' in names and names.index('VM_QUIESCED')
           < names.index('HARDWARE_ERROR'), names)
    expect(vm.status() == 'quiesced', vm.status())
    expect(not vm.masters_bus(), 'the card may do DMA')
    return error['quiesce']['token']


def _return(vm: Assigned, token: str) -> None:
    vm.monitor.execute('vm-unquiesce', token=token)
    vm.monitor.execute('cont')


def _wait_quiesced(vm: Assigned) -> list[str]:
    """Until it is quiesced. What the monitor says of the card meanwhile."""
    said = []

    def quiesced() -> bool:
        info = vm.monitor.execute('query-vm-quiesce')
        said.extend(part['error'] for part in info.get('participants', ())
                    if part['name'] == 'vfio' and 'error' in part)
        return info['phase'] == 'quiesced'

    until(quiesced, 'it is quiesced', PATIENCE)
    return said


def _try_quiesce(vm: Assigned) -> bool:
    """Is it quiesced at once? Then it goes on."""
    start = len(vm.names())
    vm.monitor.execute('vm-quiesce', reason='test', **{'deadline-ms': 200})
    event = vm.monitor.event('VM_QUIESCED', 'VM_QUIESCE_FAILED',
                             start=start)[1]
    if event['event'] == 'VM_QUIESCED':
        _return(vm, event['data']['token'])
    return event['event'] == 'VM_QUIESCED'


def _expect_given(vm: Assigned) -> None:
    """Has the guest let go, and the host got it?"""
    gone = vm.monitor.event('DEVICE_DELETED', start=0)[1]['data']
    expect(gone.get('device') == 'card', gone)
    until(vm.taken_back, 'the host has it', PATIENCE)


class Cases:
    """Each with a host of its own."""

    def __init__(self, work: Path) -> None:
        self._work = work

    def _vm(self, *args: str, guest: bool = False) -> Assigned:
        prepare()
        return Assigned(self._work, args, guest)

    def stop(self) -> None:
        """It fails: stopped by a rule, and else as ever."""
        with self._vm(_RULE.format('stop')) as vm:
            vm.fail(_NONFATAL)
            error = vm.error()
            _expect_card(error)
            expect(error['rule'] == 'rule' and error['action'] == 'stop'
                   and error['outcome'] == 'stopping', error)
            until(lambda: vm.status() == 'internal-error', 'it is stopped')

            vm.monitor.execute('object-del', id='rule')
            vm.reset()
            start = len(vm.names())
            vm.fail(_NONFATAL)
            error = vm.error(start)
            _expect_card(error)
            expect(error['action'] == 'report' and error['outcome'] == 'none'
                   and not error['contained'], error)
            until(lambda: vm.status() == 'internal-error', 'it is stopped')

    def quiesce(self) -> None:
        """It fails: quiesced, no DMA, and it may come back."""
        with self._vm(_RULE.format('quiesce'), guest=True) as vm:
            vm.send(_FRAMES)
            got = vm.received()
            expect(got >= _FRAMES, f'the guest got {got} frames')

            # To be stopped does not keep it from writing to memory
            vm.monitor.execute('stop')
            before = vm.memory()
            vm.send(_FRAMES)
            expect(vm.memory() != before, 'nothing to be seen of DMA')
            vm.monitor.execute('cont')

            start = len(vm.names())
            vm.fail(_NONFATAL)
            error = vm.error(start)
            _expect_card(error)
            token = _expect_quiesced(vm, error, start)
            before = vm.memory()
            vm.send(_FRAMES)
            expect(vm.memory() == before, 'the card has written to memory')

            # One more changes nothing
            start = len(vm.names())
            vm.fail(_NONFATAL)
            error = vm.error(start)
            _expect_card(error)
            expect(error['contained'] and error['quiesce']['token'] == token,
                   error)
            expect(vm.status() == 'quiesced', vm.status())

            _return(vm, token)
            expect(vm.masters_bus(), 'the guest has lost its card')
            got = vm.received()
            vm.send(_FRAMES)
            until(lambda: vm.received() >= got + _FRAMES,
                  'the guest receives', PATIENCE)

    def reset(self) -> None:
        """The host resets it: the monitor answers meanwhile."""
        with self._vm(_RULE.format('quiesce')) as vm:
            # A vCPU that looks at the card waits, too, with all of QEMU
            vm.monitor.execute('stop')
            vm.fail(_FATAL)
            waits = _wait_quiesced(vm)
            expect(waits, 'nothing was answered while the card was reset')
            expect(all(CARD in text for text in waits), waits)
            error = vm.error()
            _expect_card(error)
            token = _expect_quiesced(vm, error)

            # By the deadline it has not answered; and nobody waits for it
            vm.monitor.execute('vm-unquiesce', token=token)
            vm.monitor.execute('object-del', id='rule')
            start = len(vm.names())
            vm.fail(_FATAL)
            vm.error(start)
            vm.monitor.execute('vm-quiesce', reason='test',
                               **{'deadline-ms': 50})
            failed = vm.monitor.event('VM_QUIESCE_FAILED',
                                      start=start)[1]['data']
            expect([part['name'] for part in failed['participants']]
                   == ['vfio'] and CARD in failed['participants'][0]['error'],
                   failed)
            vm.monitor.execute('vm-unquiesce', token=failed['token'])
            vm.monitor.execute('vm-quiesce', reason='test')
            expect(_wait_quiesced(vm), 'it was not in its reset any more')

    def hung(self) -> None:
        """It fails while storage hangs: the monitor answers."""
        with self._vm('-blockdev null-co,node-name=disk,'
                      f'latency-ns={_HANG}000000000',
                      # QEMU does not read from the disk for its geometry
                      '-device virtio-blk-pci,drive=disk,'
                      'cyls=9,heads=9,secs=9') as vm:
            # the firmware does
            until(lambda: not _try_quiesce(vm), 'a request hangs', PATIENCE)
            start = len(vm.names())
            vm.fail(_NONFATAL)
            _expect_card(vm.error(start))
            begin = time.monotonic()
            status = vm.status()
            took = time.monotonic() - begin
            expect(took < _HANG / 2, f'{took:.1f} s for an answer')
            expect(status == 'paused', status)

    def give(self) -> None:
        """The host wants it back, and gets it."""
        with self._vm(guest=True) as vm:
            vm.take_back()
            error = vm.error()
            _expect_card(error, unplug_requested=True)
            expect(error['action'] == 'report' and error['outcome'] == 'none',
                   error)
            _expect_given(vm)
            expect(vm.status() == 'running', vm.status())

    def keep(self) -> None:
        """The host wants it back, and the VM is quiesced instead."""
        with self._vm(_RULE.format('quiesce'), guest=True) as vm:
            vm.take_back()
            error = vm.error()
            _expect_card(error, unplug_requested=True)
            token = _expect_quiesced(vm, error)
            expect(not vm.taken_back()
                   and 'DEVICE_DELETED' not in vm.names(), vm.names())

            # It asks again, and the guest was not asked
            _return(vm, token)
            start = vm.names().index('VM_UNQUIESCED')
            first = vm.monitor.event('HARDWARE_ERROR', 'DEVICE_DELETED',
                                     start=start)[1]
            expect(first['event'] == 'HARDWARE_ERROR', 'the guest was asked')
            again = first['data']
            _expect_card(again, unplug_requested=True)
            token = _expect_quiesced(vm, again, start)

            vm.monitor.execute('vm-unquiesce', token=token)
            vm.monitor.execute('object-del', id='rule')
            vm.monitor.execute('cont')
            _expect_given(vm)


def cases(work: Path) -> list[tuple[str, Callable[[], None]]]:
    """All of them."""
    case = Cases(work)
    return [
        ('an assigned device fails: stopped', case.stop),
        ('an assigned device fails: quiesced, and it does no DMA',
         case.quiesce),
        ('an assigned device fails, and is reset: quiesced', case.reset),
        ('an assigned device fails while storage hangs', case.hung),
        ('the host wants an assigned device back, and gets it', case.give),
        ('the host wants an assigned device back: quiesced', case.keep),
    ]
