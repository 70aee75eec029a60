"""
The part of the demo in which memory fails.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import time

from harness.guest import CONTROLLERS, Guest
from harness.machine import PATIENCE
from harness.rig import STREAMS, Rig
from harness.tap import expect
from story import DIM, GREEN, RED, Timeline, headline, paint, say, stamp

_RULE = 'hw-error-rule,id=memory,source=guest-memory,action=quiesce'
_ADDRESS = 0x8000000
# HMP's way to have what the hardware would say: bank 9; valid, uncorrected,
# enabled, misc and address valid, signalled, action required: data was read
_MCE = f'mce 0 9 0xbd80000000000134 0x7 {_ADDRESS:#x} 0x8c'


def _with_rule(vm: Guest) -> None:
    headline('A guest reads memory that has failed; its VM has a rule for that')
    say('  VM 5 has  ' + paint(f'-object {_RULE}', DIM))
    line = Timeline()
    line.add(time.time(), 'VM 5', f'<- {_MCE}')
    vm.cmd('human-monitor-command', command_line=_MCE)
    quiesced = vm.event_wait('VM_QUIESCED', PATIENCE)
    error = vm.event_wait('HARDWARE_ERROR', PATIENCE)
    assert quiesced and error
    line.add(stamp(quiesced), 'VM 5', paint('VM_QUIESCED', GREEN))
    line.add(stamp(error), 'VM 5', 'HARDWARE_ERROR')
    line.tell()
    data = error['data']
    info = data['info']
    say(f'  It says: {info["source"]}, {info["severity"]}, at '
        f'{info["guest-address"]:#x} of "{info["ram-block"]}"; outcome '
        f'{data["outcome"]}; contained: {str(data["contained"]).lower()}')
    expect(data['contained'] and info['guest-address'] == _ADDRESS, data)
    vm.channel.check()
    vm.unquiesce(quiesced)


def _without_rule(vm: Guest) -> None:
    headline('The same without the rule')
    vm.cmd('object-del', id='memory')
    vm.cmd('cont')
    vm.wait_for_progress(STREAMS)
    say('  It has gone on, and has not noticed anything. VM 5 '
        + paint('<- object-del memory', DIM))
    vm.cmd('human-monitor-command', command_line=_MCE)
    told = vm.event_wait('MEMORY_FAILURE', PATIENCE)
    end = vm.event_wait('SHUTDOWN', PATIENCE)
    assert told and end
    line = Timeline()
    line.add(stamp(told), 'VM 5', 'MEMORY_FAILURE: the guest is told; action '
             f'"{told["data"]["action"]}"')
    line.add(stamp(end), 'VM 5', paint(
        f'SHUTDOWN, {end["data"]["reason"]}: it is gone', RED))
    line.tell()


def tell(rig: Rig) -> None:
    """The story."""
    controller = CONTROLLERS['virtio-blk']
    with Guest(rig.work, rig.disk(controller, 'raw', 'memory'), instance=5,
               args=('-object', _RULE)) as vm:
        vm.load(rig.template(controller))
        vm.cmd('cont')
        vm.record(STREAMS)
        vm.wait_for_progress(STREAMS)
        _with_rule(vm)
        _without_rule(vm)
        vm.shutdown(hard=True)
