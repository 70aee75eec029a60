"""
Promised: no packet leaves through any network back end once VM_QUIESCED has
come, whoever wants to send it, and nothing that has waited in a queue either.

Measured: packets on the host, counted by the kernel (or bytes, for a stream),
in a network namespace that holds nothing else. Three sources send at the same
time: the guest's network card, announce-self with a round each 10 ms, and
another VM, which the test plays, by way of a hub in QEMU; the last two do not
stop when the guest does. All of them are seen to leave. After VM_QUIESCED, the
count stands still for half a second while they go on and everything else is
tried, and by the kernel's time of arrival no packet is later than the event.
After vm-unquiesce and cont, packets of each kind leave again.

A receiver of a stream that does not read makes frames wait in QEMU; when it
begins to read in the quiesced state, it gets what the kernel had, no more.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.machine import PATIENCE
from harness.netns import namespace
from harness.nics import NICS, Nic, frame
from harness.outlets import (ANNOUNCEMENT, FLOOD, GUEST, PORT, Dgram, Outlet,
                             Stream, Tap, User, VhostUser)
from harness.refusals import abuse
from harness.rig import Rig
from harness.table import Case, Row
from harness.tap import expect, note
from harness.tiny import Tiny
from harness.virtio import SLOT

_HOLD_S = 0.5
_SECTION = 'Network'
_ANNOUNCE = {'initial': 10, 'max': 10, 'rounds': 1000, 'step': 1}


_SENDERS = {GUEST: 'the guest', FLOOD: 'another VM on the hub',
            ANNOUNCEMENT: 'announce-self'}


class _Flood:
    """Another VM on the hub: sends frames without a pause."""

    def __init__(self, work: Path) -> None:
        self._inside, self._outside = work / 'hub.in', work / 'hub.out'
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def args(self) -> list[str]:
        """It and the outgoing back end, on a hub with place for a NIC."""
        return ['-netdev', 'dgram,id=in,'
                f'local.type=unix,local.path={self._inside},'
                f'remote.type=unix,remote.path={self._outside}',
                '-netdev', 'hubport,id=hub0,hubid=0,netdev=in',
                '-netdev', 'hubport,id=hub1,hubid=0,netdev=out',
                '-netdev', 'hubport,id=hub2,hubid=0']

    def _send(self) -> None:
        data = frame(FLOOD, PORT)
        while not self._end.wait(0.001):
            try:
                for _ in range(8):
                    self._sock.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                # QEMU takes nothing: there is always more to be taken
                pass

    def start(self) -> None:
        """QEMU is there."""
        self._sock.bind(str(self._outside))
        self._sock.connect(str(self._inside))
        self._thread.start()

    def close(self) -> None:
        """Leave nothing behind."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
        self._sock.close()
        self._inside.unlink(missing_ok=True)
        self._outside.unlink(missing_ok=True)


@contextlib.contextmanager
def network(rig: Rig, outlet: Outlet, nic: Nic,
             hub: bool) -> Iterator[Tiny]:
    """A guest that floods the outlet, alone or with another on a hub."""
    flood = _Flood(rig.work)
    args = [*outlet.args(), *(flood.args() if hub else ()),
            '-device', f'{nic.device},addr={SLOT},'
            f'netdev={"hub2" if hub else "out"}']
    with contextlib.ExitStack() as stack:
        stack.callback(outlet.close)
        vm = stack.enter_context(Tiny(rig.work, args=args))
        vm.boot()
        outlet.attach()
        stack.callback(flood.close)
        if hub:
            flood.start()
        vm.run(nic.flood(vm, frame(GUEST, PORT)))
        yield vm


def sources(outlet: Outlet, hub: bool) -> set[bytes]:
    """Who is expected to be seen."""
    return ({GUEST} | ({FLOOD} if hub else set())
            | ({ANNOUNCEMENT} & set(outlet.marks)))


def await_all(vm: Tiny, outlet: Outlet, sources: set[bytes]) -> None:
    """Frames of all these leave, from now on."""
    vm.cmd('announce-self', **_ANNOUNCE)
    outlet.look()
    before = dict(outlet.seen())
    deadline = time.monotonic() + PATIENCE
    while any(outlet.seen()[mark] < before.get(mark, 0) + 3
              for mark in sources):
        expect(time.monotonic() < deadline,
               f'not all frames leave: {outlet.seen()}')
        time.sleep(0.01)
        outlet.look()


def silent(vm: Tiny, outlet: Outlet, event: dict) -> None:
    """Nothing leaves from the event on."""
    sent = outlet.sent()
    before = time.monotonic()
    abuse(vm)
    expect('error' in vm.qmp('announce-self', _ANNOUNCE),
           'announce-self is permitted')
    time.sleep(max(0.0, _HOLD_S - (time.monotonic() - before)))
    now = outlet.sent()
    expect(now == sent, f'{now - sent} more after VM_QUIESCED')
    outlet.look()
    stamp = event['timestamp']
    late = outlet.latest() - stamp['seconds'] - stamp['microseconds'] / 1e6
    expect(late <= 0, f'a packet {late:.6f} s after VM_QUIESCED')


def _nothing_leaves(rig: Rig, name: str, make: Callable[[], Outlet],
                    nic: str, hub: bool) -> Row:
    with namespace():
        outlet = make()
        expected = sources(outlet, hub)
        with network(rig, outlet, NICS[nic], hub) as vm:
            for _ in range(2):
                await_all(vm, outlet, expected)
                event = vm.quiesce()
                silent(vm, outlet, event)
                vm.unquiesce(event)
                vm.cmd('cont')
            await_all(vm, outlet, expected)
            note(', '.join(f'{_SENDERS[mark]}: {outlet.seen()[mark]} frames'
                           for mark in expected))
            senders = ', '.join(sender for mark, sender in _SENDERS.items()
                                if mark in expected)
            return Row(_SECTION, name, f'{nic}; all send: {senders}',
                       '`VM_QUIESCED`; no frame leaves before `cont`',
                       times={'quiesced': vm.quiesced_ms})


def _full_stream(rig: Rig) -> Row:
    """Frames wait in QEMU because nobody reads."""
    with namespace():
        outlet = Stream(rig.work / 'stream')
        with network(rig, outlet, NICS['virtio-net'], True) as vm:
            vm.cmd('announce-self', **_ANNOUNCE)
            sent = -1
            while sent != outlet.sent():
                sent = outlet.sent()
                time.sleep(0.2)
            expect(sent, 'nothing leaves')
            event = vm.quiesce()
            expect(outlet.sent() == sent, 'more has left into a full socket')
            # what is free now must not be filled
            outlet.look()
            silent(vm, outlet, event)
            expect(outlet.sent() == sent,
                   f'{outlet.sent() - sent} bytes of what has waited')
            vm.unquiesce(event)
            expect(outlet.sent() == sent, 'vm-unquiesce alone lets it out')
            vm.cmd('cont')
            await_all(vm, outlet, {GUEST, FLOOD})
            note(f'{sent} bytes had left')
            return Row(_SECTION, 'stream', 'the socket is full; its receiver '
                       'reads when the VM is quiesced',
                       '`VM_QUIESCED`; what waits in QEMU does not leave '
                       'before `cont`', times={'quiesced': vm.quiesced_ms})


def cases(rig: Rig) -> list[Case]:
    """Each back end."""
    return [
        *((f'no frame leaves: {name}, {nic}{", hub" if hub else ""}',
           lambda name=name, make=make, nic=nic, hub=hub: _nothing_leaves(
               rig, name, make, nic, hub))
          for name, make, nic, hub in (
              ('tap', Tap, 'virtio-net', False),
              ('tap', Tap, 'virtio-net', True),
              ('tap', Tap, 'e1000', True),
              ('user', User, 'virtio-net', False),
              ('user', User, 'e1000', True),
              ('dgram', Dgram, 'virtio-net', True),
              ('stream', lambda: Stream(rig.work / 'stream'),
               'virtio-net', True),
              ('vhost-user', lambda: VhostUser(rig.work / 'bridge'),
               'virtio-net', False),
          )),
        ('no frame leaves that waits for a receiver: stream',
         lambda: _full_stream(rig)),
    ]


def in_kernel(rig: Rig) -> list[Case]:
    """The same for one that few hosts have; no row depends on it."""
    return [('no frame leaves: tap with vhost, virtio-net',
             lambda: _nothing_leaves(
                 rig, 'tap with vhost', lambda: Tap(vhost=True),
                 'virtio-net', False))]
