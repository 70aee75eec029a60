"""
What a quiesced VM must refuse, and what it must still answer.

SPDX-License-Identifier: GPL-2.0-or-later
"""

from .guest import Guest
from .tap import expect

REFUSED: list[tuple[str, dict]] = [
    ('cont', {}),
    ('system_reset', {}),
    ('system_powerdown', {}),
    ('system_wakeup', {}),
    ('inject-nmi', {}),
    ('device_add', {'driver': 'virtio-rng-pci', 'id': 'late'}),
    ('object-add', {'qom-type': 'memory-backend-ram', 'id': 'late',
                    'size': 4096}),
    ('blockdev-add', {'driver': 'null-co', 'node-name': 'late'}),
    ('blockdev-set-active', {'active': True}),
    ('blockdev-reopen', {'options': [{'driver': 'null-co',
                                      'node-name': 'disk'}]}),
    ('block-stream', {'device': 'disk', 'job-id': 'late'}),
    ('migrate', {'uri': 'exec:cat >/dev/null'}),
    ('snapshot-save', {'job-id': 'late', 'tag': 'late', 'vmstate': 'disk',
                       'devices': ['disk']}),
    ('human-monitor-command', {'command-line': 'qemu-io disk "write 0 512"'}),
]

ANSWERED: list[tuple[str, dict]] = [
    ('query-status', {}),
    ('query-vm-quiesce', {}),
    ('query-block', {}),
    ('query-cpus-fast', {}),
    ('qom-list', {'path': '/machine'}),
    ('human-monitor-command', {'command-line': 'info registers'}),
]


def refusal(vm: Guest, command: str, arguments: dict) -> str:
    """The error with which a quiesced VM refuses a command."""
    answer = vm.qmp(command, arguments)
    if command == 'human-monitor-command' and answer.get('return'):
        # HMP reports errors as text
        error = answer['return'].strip()
    else:
        expect('error' in answer, f'{command} was not refused: {answer}')
        error = answer['error']['desc']
    state = vm.status()
    expect(state == 'quiesced', f'{command} has made it {state}')
    return error


def abuse(vm: Guest) -> None:
    """Try every forbidden command, and every allowed one."""
    for command, arguments in REFUSED:
        refusal(vm, command, arguments)
    for command, arguments in ANSWERED:
        vm.cmd(command, arguments)
