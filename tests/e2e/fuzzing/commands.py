"""
The commands that the fuzzer sends, how often, and with what arguments.

Arguments are chosen from few names, so that commands meet each other's
objects; the names that are there from the start are in target.py.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .target import SPARES, format_of

# stands for the token of the last vm-quiesce, known only when it has answered
TOKEN = '@token'

Arguments = dict[str, Any]
_Maker = Callable[['Maker'], Arguments]

_NODES = ('disk0', 'disk1', 'disk2', 'disk2-throttle', 'disk0-file',
          'disk1-file')
_ADDED = ('x0', 'x1', 'x2', 'x3')
# Upstream aborts when a node is made inactive that a guest writes to.
_INACTIVE = 'x2'
# Upstream calls a NULL pointer (libvhost-user's vu_panic) when a node changes
# its size that vhost-user-blk exports to nobody yet, be it by block_resize or
# because it is a file that grows. Nothing else uses this one.
_SERVED = 'served'
_JOBS = ('j0', 'j1', 'j2')
_EXPORTS = ('e0', 'e1')
_DEVICES = ('hot0', 'hot1', 'hot2', 'card', 'cpu1', 'cpu2', 'rng')
_PORTS = ('rp0', 'rp1', 'rp2')
_NETDEVS = ('net1', 'net2')
# No memory back end: upstream deadlocks when one is added or deleted while a
# migration begins. Its thread holds the lock of the list of RAM blocks and
# waits for a vCPU, which waits for the BQL, whose holder waits for that lock.
_OBJECTS = ('io1', 'tg1', 'rng1', 'rule0', 'rule1')
_SEVERITIES = ('corrected', 'recoverable', 'fatal')
_ACTIONS = ('ignore', 'report', 'inject', 'stop', 'quiesce')
_TAGS = ('s0', 's1')
_SYNCS = ('full', 'top', 'none')


class Maker:
    """Makes arguments; all that is random comes from one generator."""

    def __init__(self, rng: random.Random, work: Path) -> None:
        self.rng = rng
        self._work = work
        self.pick = rng.choice

    def maybe(self, **members: Any) -> Arguments:
        """Some of these members."""
        return {name.replace('_', '-'): value
                for name, value in members.items() if self.rng.random() < 0.5}

    def node(self) -> str:
        """The name of a node, there or not."""
        return self.pick(_NODES + _ADDED * 2)

    def image(self, name: str) -> str:
        """The path of an image."""
        return f'{self._work}/images/{name}'

    def output(self, name: str) -> str:
        """The path of a file that is no image."""
        return f'{self._work}/out/{name}'

    def socket(self, name: str) -> Arguments:
        """The address of a unix socket."""
        return {'type': 'unix', 'path': f'{self._work}/{name}'}

    def plain_node(self, number: int) -> Arguments:
        """One of the spare images, for blockdev-add."""
        path = self.image(SPARES[number])
        return {'driver': format_of(path), 'node-name': _ADDED[number],
                'file': {'driver': 'file', 'filename': path}}

    def node_options(self) -> Arguments:
        """A node for blockdev-add or blockdev-reopen."""
        node = {**self.plain_node(self.rng.randrange(len(SPARES))),
                **self.maybe(read_only=self.rng.random() < 0.3,
                             discard='unmap')}
        if self.rng.random() < 0.2:
            node = {'driver': 'throttle', 'node-name': node.pop('node-name'),
                    'throttle-group': self.pick(('tg0', 'tg1')), 'file': node}
        if self.rng.random() < 0.1:
            node = {'driver': 'null-co', 'node-name': 'x3', 'size': 4 << 20}
        return node

    def job(self) -> Arguments:
        """What most jobs take."""
        return {'job-id': self.pick(_JOBS),
                **self.maybe(speed=self.pick((4096, 65536, 1 << 20)),
                             auto_finalize=self.rng.random() < 0.7,
                             auto_dismiss=self.rng.random() < 0.7)}

    def device(self) -> Arguments:
        """A device to plug in."""
        bus = self.pick(_PORTS)
        return self.pick((
            {'driver': 'virtio-blk-pci', 'id': 'hot0', 'drive': self.node(),
             'bus': bus},
            {'driver': 'scsi-hd', 'id': 'hot1', 'drive': self.node(),
             'bus': 'scsi0.0', **self.maybe(share_rw=True)},
            {'driver': 'nvme', 'id': 'hot2', 'drive': self.node(),
             'serial': 'x', 'bus': bus},
            {'driver': 'virtio-net-pci', 'id': 'card',
             'netdev': self.pick(_NETDEVS), 'bus': bus},
            {'driver': 'max-x86_64-cpu', 'id': 'cpu1', 'socket-id': 0,
             'core-id': 1, 'thread-id': 0},
            {'driver': 'max-x86_64-cpu', 'id': 'cpu2', 'socket-id': 0,
             'core-id': 2, 'thread-id': 0},
            {'driver': 'virtio-rng-pci', 'id': 'rng', 'bus': bus}))

    def rule(self) -> Arguments:
        """What to do about hardware errors."""
        return {'qom-type': 'hw-error-rule',
                'id': self.pick(('rule0', 'rule1')),
                'action': self.pick(_ACTIONS),
                **self.maybe(severity=self.pick(_SEVERITIES),
                             source=self.pick(('host', 'block-io',
                                               'block-stall')),
                             threshold=3, window=60)}

    def uri(self) -> str:
        """Where to migrate to."""
        return self.pick(('exec:cat >/dev/null', 'exec:sleep 0.2',
                          f'unix:{self._work}/nobody',
                          f'file:{self.output("state")}'))


def _hmp(line: str) -> _Maker:
    return lambda make: {'command-line': line}


def _qemu_io(make: Maker) -> Arguments:
    operation = make.pick(('aio_write', 'aio_write -z', 'write', 'aio_read',
                           'discard', 'flush'))
    extent = '' if operation == 'flush' else ' 0 65536'
    # Upstream aborts when qemu-io writes to a node that was made inactive.
    name = make.pick([name for name in _ADDED if name != _INACTIVE])
    return {'command-line': f'qemu-io {name} '
                            f'"{operation}{extent}"'}


def _transaction(make: Maker) -> Arguments:
    return {'actions': [
        {'type': 'blockdev-backup',
         'data': {'job-id': job, 'device': f'disk{i}', 'target': f'x{i}',
                  'sync': make.pick(_SYNCS)}}
        for i, job in enumerate(_JOBS[:make.rng.randrange(1, 3)])],
        **make.maybe(properties={'completion-mode': 'grouped'})}


# weight, name, what makes the arguments
TABLE: list[tuple[int, str, _Maker]] = [
    # the series
    (6, 'vm-quiesce', lambda make: {
        'reason': 'fuzz',
        **make.maybe(deadline_ms=make.pick((1, 2, 20, 500, 60000)))}),
    (1, 'vm-quiesce', lambda make: {
        'reason': make.pick(('', 'x' * 1025, 'ä' * 600)),
        **make.maybe(deadline_ms=make.pick((0, -1, 1 << 32)))}),
    (3, 'vm-unquiesce', lambda make: {'token': TOKEN}),
    (3, 'vm-unquiesce', lambda make: {'token': make.pick(('', 'x' * 40))}),
    (3, 'query-vm-quiesce', lambda make: {}),
    (2, 'human-monitor-command', _hmp('quiesce fuzz 100')),
    (2, 'human-monitor-command', _hmp(f'unquiesce {TOKEN}')),
    (2, 'human-monitor-command', _hmp('info quiesce')),
    (4, 'hw-error-report', lambda make: {
        'source': 'host', 'severity': make.pick(_SEVERITIES),
        'agent': 'fuzz', **make.maybe(label='DIMM', count=make.pick((1, 7)),
                                      description=make.pick(('', 'x')))}),
    (1, 'hw-error-clear', lambda make: make.maybe(up_to_id=make.pick((1, 9)))),
    (1, 'query-hardware-errors', lambda make: make.maybe(since_id=3)),
    (1, 'query-hw-error-policy', lambda make: {}),
    (1, 'human-monitor-command', _hmp('info hw-errors')),
    # the run state
    (4, 'stop', lambda make: {}),
    (10, 'cont', lambda make: {}),
    (1, 'system_reset', lambda make: {}),
    (2, 'system_powerdown', lambda make: {}),
    (2, 'system_wakeup', lambda make: {}),
    (2, 'inject-nmi', lambda make: {}),
    (1, 'set-action', lambda make: make.maybe(
        reboot='reset', panic=make.pick(('pause', 'none')),
        watchdog=make.pick(('reset', 'none', 'inject-nmi')))),
    (2, 'query-status', lambda make: {}),
    (1, 'query-cpus-fast', lambda make: {}),
    (1, 'balloon', lambda make: {'value': make.pick((64, 96)) << 20}),
    # plugging in and out
    (8, 'device_add', lambda make: make.device()),
    (6, 'device_del', lambda make: {'id': make.pick(_DEVICES)}),
    (3, 'object-add', lambda make: make.pick((
        {'qom-type': 'iothread', 'id': 'io1'},
        {'qom-type': 'throttle-group', 'id': 'tg1',
         'limits': {'iops-total': make.pick((5, 100))}},
        {'qom-type': 'rng-builtin', 'id': 'rng1'}))),
    (3, 'object-add', lambda make: make.rule()),
    (2, 'object-del', lambda make: {'id': make.pick(_OBJECTS)}),
    (1, 'qom-set', lambda make: {
        'path': '/machine/peripheral/ball',
        'property': 'guest-stats-polling-interval',
        'value': make.pick((0, 1))}),
    (1, 'qom-set', lambda make: {
        'path': '/objects/tg0', 'property': 'limits',
        'value': make.pick(({}, {'iops-total': 50}))}),
    # block nodes
    (10, 'blockdev-add', lambda make: make.node_options()),
    (6, 'blockdev-del', lambda make: {'node-name': make.node()}),
    (2, 'blockdev-reopen', lambda make: {'options': [make.node_options()]}),
    (2, 'blockdev-set-active', lambda make: {
        'active': True, **make.maybe(node_name=make.node())}),
    (1, 'blockdev-set-active', lambda make: {
        'active': False, 'node-name': _INACTIVE}),
    (2, 'block_resize', lambda make: {
        'node-name': make.node(), 'size': make.pick((4, 8, 9)) << 20}),
    (2, 'block_set_io_throttle', lambda make: {
        'id': make.pick(('vd0', 'vd1', 'sd0', 'hot0')), 'bps': 0, 'bps_rd': 0,
        'bps_wr': 0, 'iops': make.pick((0, 0, 20)), 'iops_rd': 0,
        'iops_wr': 0}),
    (2, 'blockdev-snapshot-sync', lambda make: {
        'node-name': make.pick(('disk1', 'x1')),
        'snapshot-file': make.image(f'o{make.rng.randrange(1000)}.qcow2'),
        'snapshot-node-name': make.pick(('o1', 'o2'))}),
    (2, 'blockdev-snapshot', lambda make: {
        'node': make.pick(('disk1', 'x3')), 'overlay': make.pick(_ADDED)}),
    (1, 'block-dirty-bitmap-add', lambda make: {
        'node': make.node(), 'name': 'b0',
        **make.maybe(persistent=True)}),
    (1, 'block-dirty-bitmap-remove', lambda make: {
        'node': make.node(), 'name': 'b0'}),
    (5, 'human-monitor-command', _qemu_io),
    # jobs
    (5, 'blockdev-mirror', lambda make: {
        'device': make.node(), 'target': make.pick(_ADDED),
        'sync': make.pick(_SYNCS), **make.job(),
        **make.maybe(copy_mode=make.pick(('background',
                                          'write-blocking')))}),
    (4, 'blockdev-backup', lambda make: {
        'device': make.node(), 'target': make.pick(_ADDED),
        'sync': make.pick(_SYNCS), **make.job()}),
    (2, 'block-commit', lambda make: {
        'device': make.pick(('disk1', 'o1', 'o2', 'x1')), **make.job()}),
    (2, 'block-stream', lambda make: {
        'device': make.pick(('disk1', 'o1', 'o2', 'x1')), **make.job()}),
    (1, 'transaction', _transaction),
    *((weight, f'job-{verb}', lambda make: {'id': make.pick(_JOBS)})
      for weight, verb in ((2, 'cancel'), (2, 'complete'), (2, 'finalize'),
                           (2, 'dismiss'), (1, 'pause'), (1, 'resume'))),
    (1, 'query-jobs', lambda make: {}),
    # exports
    (2, 'nbd-server-start', lambda make: {'addr': {
        'type': 'unix', 'data': {'path': make.socket('nbd')['path']}}}),
    (1, 'nbd-server-stop', lambda make: {}),
    (4, 'block-export-add', lambda make: {
        'id': make.pick(_EXPORTS), **make.maybe(writable=True), **make.pick((
            {'type': 'nbd', 'name': 'x', 'node-name': make.node()},
            {'type': 'vhost-user-blk', 'addr': make.socket('vhost'),
             'node-name': _SERVED}))}),
    (2, 'block-export-del', lambda make: {
        'id': make.pick(_EXPORTS), **make.maybe(mode='hard')}),
    # network
    (3, 'netdev_add', lambda make: {
        'id': make.pick(_NETDEVS), **make.pick((
            {'type': 'user'}, {'type': 'hubport', 'hubid': 0}))}),
    (2, 'netdev_del', lambda make: {'id': make.pick(_NETDEVS)}),
    (2, 'set_link', lambda make: {
        'name': make.pick(('nic0', 'port1', 'card', 'net1')),
        'up': make.rng.random() < 0.7}),
    (3, 'announce-self', lambda make: {
        'initial': 10, 'max': 50, 'rounds': 40, 'step': 10}),
    # migration, snapshots, dumps
    (4, 'migrate', lambda make: {'uri': make.uri()}),
    (2, 'migrate_cancel', lambda make: {}),
    (1, 'migrate-set-parameters', lambda make: make.maybe(
        max_bandwidth=make.pick((1 << 20, 1 << 30)), downtime_limit=50)),
    (1, 'snapshot-save', lambda make: {
        'job-id': make.pick(_JOBS), 'tag': make.pick(_TAGS),
        'vmstate': 'disk1', 'devices': ['disk1']}),
    (1, 'snapshot-load', lambda make: {
        'job-id': make.pick(_JOBS), 'tag': make.pick(_TAGS),
        'vmstate': 'disk1', 'devices': ['disk1']}),
    (1, 'snapshot-delete', lambda make: {
        'job-id': make.pick(_JOBS), 'tag': make.pick(_TAGS),
        'devices': ['disk1']}),
    (2, 'dump-guest-memory', lambda make: {
        'paging': False, 'protocol': f'file:{make.output("dump")}',
        **make.maybe(detach=True)}),
    (1, 'memsave', lambda make: {
        'val': 4096, 'size': 4096, 'filename': make.output('memory')}),
    (1, 'pmemsave', lambda make: {
        'val': 4096, 'size': 4096, 'filename': make.output('memory')}),
    (1, 'human-monitor-command', _hmp('info registers')),
    (1, 'human-monitor-command', _hmp('info block')),
    (1, 'human-monitor-command', _hmp('commit all')),
    (1, 'human-monitor-command', _hmp('nmi')),
]


def ends_quiesced(command: str, arguments: Any) -> bool:
    """Might this command, with these arguments, end the quiesced state?"""
    if not isinstance(arguments, dict):
        return False
    return (command == 'vm-unquiesce' and arguments.get('token') == TOKEN
            or command == 'human-monitor-command'
            and arguments.get('command-line') == f'unquiesce {TOKEN}')


def spoils_dump(command: str, arguments: Any) -> bool:
    """
    Does upstream end when this command meets a detached dump? A reset aborts:
    "invalid runstate transition: 'save-vm' -> 'prelaunch'". A device with a
    ROM exits, because vmstate_register_ram() takes it for fatal that migration
    cannot be blocked now; LeakSanitizer then sees the QMPRequest.
    """
    return (command == 'system_reset'
            or command == 'device_add' and isinstance(arguments, dict)
            and arguments.get('driver') == 'virtio-net-pci')


def with_token(arguments: Any, token: str) -> Any:
    """The arguments, with the token filled in."""
    if not isinstance(arguments, dict):
        return arguments
    return {name: value.replace(TOKEN, token) if isinstance(value, str)
            else value for name, value in arguments.items()}
