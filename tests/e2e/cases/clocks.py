"""
Promised: no clock of the guest ever steps back over quiesce, vm-unquiesce and
cont; and which of them stall for the stopped time and which jump over it is
documented, and stays so:

    TCG (tsc, hpet)                 all clocks, and the TSC, stall
    KVM, kvm-clock                  all clocks stall, the TSC runs on
    KVM, tsc                        all clocks jump forward

Measured: a program in the guest samples the clocks without a pause and reports
steps back and the largest step forward (guest/clockwatch.c). A clock has
stalled if no step is longer than half of the time for which the VM was
quiesced; one that jumps does not jump by more than the time that passed on the
host between the last report before the quiesce and the first one after it.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import time
from dataclasses import dataclass
from pathlib import Path

from harness.guest import Guest
from harness.tap import expect, note

_STOPPED_S = 4.0
_CLOCKS = ('monotonic', 'boottime', 'realtime')


@dataclass
class Sample:
    """One line of clockwatch; times in ns, the TSC in cycles."""
    arrived: float
    source: str
    back: int
    value: dict[str, int]
    step: dict[str, int]

    @classmethod
    def parse(cls, arrived: float, line: str) -> 'Sample':
        """From a line and the time at which it came."""
        _, source, back, *rest = line.split()
        numbers = [int(word) for word in rest]
        names = (*_CLOCKS, 'tsc')
        return cls(arrived, source, int(back), dict(zip(names, numbers[::2])),
                   dict(zip(names, numbers[1::2])))


def _is_report(line: str) -> bool:
    return line.startswith('C ')


def _watch(vm: Guest) -> tuple[list[Sample], int]:
    """Quiesce and come back; all samples, and the index of the first after."""
    lines = vm.channel.lines
    vm.channel.send('clockwatch')
    vm.channel.wait(_is_report, 'a clock report')
    time.sleep(1)       # a base for the TSC's rate
    token = vm.quiesce()['data']['token']
    time.sleep(_STOPPED_S)
    before = len(lines)
    vm.cmd('vm-unquiesce', token=token)
    vm.cmd('cont')
    # the first report may be one that was under way
    for _ in range(3):
        vm.channel.wait(_is_report, 'a clock report after cont', len(lines))
    samples = [(Sample.parse(*line), i) for i, line in enumerate(list(lines))
               if _is_report(line[1])]
    return ([sample for sample, _ in samples],
            sum(i < before for _, i in samples))


def continuous(work: Path, accel: str, cpus: int) -> None:
    """The case."""
    with Guest(work, accel=accel, args=['-smp', str(cpus)]) as vm:
        vm.boot()
        samples, after = _watch(vm)

    source = samples[-1].source
    expect(samples[-1].back == 0, f'{samples[-1].back} steps back')
    for old, new in zip(samples, samples[1:]):
        expect(all(new.value[name] > old.value[name] for name in old.value),
               f'a clock was set back: {old} {new}')

    base = samples[after - 1].value
    cycles_per_ns = ((base['tsc'] - samples[0].value['tsc'])
                     / (base['monotonic'] - samples[0].value['monotonic']))
    # across the stop: at most this, at least the stopped time
    blackout = samples[-1].arrived - samples[after - 1].arrived
    step = {name: max(sample.step[name] for sample in samples[after:])
            / (cycles_per_ns if name == 'tsc' else 1) / 1e9
            for name in base}
    note(f'{accel}, -smp {cpus}, clocksource {source}, quiesced for '
         f'{_STOPPED_S} s; largest step forward: ' + ', '.join(
             f'{name} {seconds:.3f} s' for name, seconds in step.items()))

    stalls = accel == 'tcg' or source == 'kvm-clock'
    for name in _CLOCKS + (('tsc',) if accel == 'tcg' else ()):
        if stalls:
            expect(step[name] < _STOPPED_S / 2, f'{name} has jumped')
        else:
            expect(step[name] <= blackout, f'{name} has jumped by more than '
                   f'the {blackout:.3f} s that passed')
            expect(step[name] >= _STOPPED_S, f'{name} has stalled')
