"""
A QEMU whose hardware errors are looked at: what it says of bad memory of its
guest, and what comes of it.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import re
from typing import Protocol

from .monitor import Monitor
from .tap import Failure, expect

# what UFFDIO_POISON and MADV_HWPOISON make bad
PAGE = 4096


class Monitored(Protocol):
    """What a monitor tells."""
    monitor: Monitor

    def error(self, start: int = 0) -> dict:
        """The data of a HARDWARE_ERROR, also of one that has come."""
        return self.monitor.event('HARDWARE_ERROR', start=start)[1]['data']

    def names(self) -> list[str]:
        """The events up to now."""
        self.monitor.execute('query-status')
        return [event['event'] for _, event in self.monitor.events]

    def status(self) -> str:
        """The run state."""
        return self.monitor.execute('query-status')['status']

    def host_address(self, address: int) -> int:
        """Where QEMU has an address of the guest."""
        said = self.monitor.hmp(f'gpa2hva {address:#x}')
        match = re.search(r'is (0x[0-9a-f]+)', said)
        expect(match, said)
        assert match
        return int(match[1], 16)


def expect_memory(error: dict, page: int, host: int, read: bool) -> None:
    """
    Is it all there, of a page of RAM block 'ram' that is bad, at @host in
    QEMU, and that the first vCPU has @read, or else nobody?
    """
    info = error['info']
    told = {name: info.get(name) for name in (
        'source', 'severity', 'component', 'ram-block', 'ram-offset',
        'guest-address', 'host-address', 'page-size', 'action-required',
        'vcpu')}
    expect(told == {
        'source': 'guest-memory', 'severity': 'recoverable',
        'component': 'ram', 'ram-block': 'ram', 'ram-offset': page,
        'guest-address': page, 'host-address': host, 'page-size': PAGE,
        'action-required': read, 'vcpu': 0 if read else None},
        f'{told}; page {page:#x}')


def expect_quiesced(vm: Monitored, error: dict, start: int = 0) -> str:
    """
    By rule 'rule': is it quiesced, was it before the event, the first one
    after the @start-th of all, and is the guest not told? The token.
    """
    expect(error['rule'] == 'rule' and error['action'] == 'quiesce'
           and error['outcome'] == 'quiesced' and error['contained'], error)
    names = vm.names()
    events = names[start:]
    expect('VM_QUIESCED' in events and events.index('VM_QUIESCED')
           < events.index('HARDWARE_ERROR'), names)
    token = error['quiesce']['token']
    quiesced = vm.monitor.event('VM_QUIESCED', start=start)[1]['data']
    expect(quiesced['token'] == token, 'not the same token')
    expect('MEMORY_FAILURE' not in names, 'the guest was told')
    expect(vm.status() == 'quiesced', vm.status())
    return token


def expect_no_migration(vm: Monitored) -> None:
    """Is it refused, as always for a VM with bad memory?"""
    try:
        vm.monitor.execute('migrate', uri='exec:false')
    except RuntimeError as err:
        expect('poison' in str(err), err)
    else:
        raise Failure('migration was not refused')
