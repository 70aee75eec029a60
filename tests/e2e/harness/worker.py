"""
The guest that works on its memory (guest/worker.c), with Linux or without an
operating system: what it does, and what the host sees of it, also while it
moves from one QEMU to another one.

Guest and host share the memory of an ivshmem device. The guest's clock, its
TSC, need not go on in the destination where it was in the source, so each side
has a Clock of its own, which the host sets by looking at the guest often.

SPDX-License-Identifier: GPL-2.0-or-later
"""

import bisect
import itertools
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from .guest import Guest
from .machine import PATIENCE, Machine
from .paths import GUEST, QEMU_BIN, SYSTEM
from .tap import Failure, expect

PAGES_PER_MIB = 256

# see worker.c
_SIZE = 1 << 20
_PCI_SLOT = 0x10
_ORDER = 0
_HZ = 8
_PAGES = 16
_BEGUN = 24
_PHASES = 32
_PHASE = struct.Struct('<6Q')
_MAX_PHASES = 8
_ZIPF = 0x1000
_ZIPF_STEPS = 4096
_VCPU = 0x8000
_VCPU_SIZE = 0x4000
_VCPU_HEAD = struct.Struct('<5Q')
_GAP = struct.Struct('<2Q')
_MAX_GAPS = 512

_POLL_S = 0.002
_CALIBRATE_S = 0.5
_CALIBRATE_STAMPS = 50
# the clock of the source is set by what was seen so long before the end
_NEAR_S = 3.0


class Kind(IntEnum):
    """How pages are chosen, and written."""
    IDLE = 0
    SCATTER = 1
    SWEEP = 2
    ZIPF = 3


class _Order(IntEnum):
    WAIT = 0
    WORK = 1
    VERIFY = 2


class _State(IntEnum):
    WAITING = 0
    FILLING = 1
    WORKING = 2
    VERIFIED = 3


@dataclass(frozen=True)
class Phase:
    """What the guest does for some time; in MiB of whole pages."""
    kind: Kind
    # per second; 0: as much as possible
    rate: int = 0
    hot_first: int = 0
    hot_size: int = 64
    hot_percent: int = 90
    # seconds from Worker.begin()
    until: float = 1e9

    def pack(self) -> bytes:
        """As the guest wants it."""
        return _PHASE.pack(int(self.until * 1000), self.kind,
                           *(mib * PAGES_PER_MIB for mib in (
                               self.rate, self.hot_first, self.hot_size)),
                           self.hot_percent)


@dataclass(frozen=True)
class Load:
    """The work of a guest."""
    phases: tuple[Phase, ...]
    # of the memory that is written or read
    area_mib: int = 512
    # has it a second vCPU, which only reads?
    neighbour: bool = False

    def pages(self, begin: float, end: float) -> float | None:
        """
        What the first vCPU should do in this time after Worker.begin(); None
        if that depends on how fast it is.
        """
        if not all(phase.rate for phase in self.phases):
            return None
        total, since = 0.0, 0.0
        for phase in self.phases:
            overlap = min(end, phase.until) - max(begin, since)
            total += max(overlap, 0) * phase.rate * PAGES_PER_MIB
            since = phase.until
        return total


def _zipf(pages: int) -> bytes:
    """By popularity, the pages to which each step of the accesses goes."""
    weights = list(itertools.accumulate(
        rank ** -0.99 for rank in range(1, pages + 1)))
    ranks = [bisect.bisect(weights, weights[-1] * step / _ZIPF_STEPS)
             for step in range(_ZIPF_STEPS)]
    return struct.pack(f'<{_ZIPF_STEPS + 1}I', *ranks, pages - 1)


class Clock:
    """What the host's time.perf_counter() is when the TSC has a value."""

    def __init__(self) -> None:
        self.hz = 0.0
        # host, TSC; the latter is as old as the guest likes
        self._seen: list[tuple[float, int]] = []

    def see(self, host: float, tsc: int) -> None:
        """The guest had this stamp, at the latest then."""
        if tsc and (not self._seen or tsc != self._seen[-1][1]):
            self._seen.append((host, tsc))

    def can_calibrate(self) -> bool:
        """Has it been seen often enough, and for long enough?"""
        return (len(self._seen) > _CALIBRATE_STAMPS
                and self._seen[-1][0] - self._seen[0][0] > _CALIBRATE_S)

    def calibrate(self) -> None:
        """Find out how fast it is."""
        (host0, tsc0), (host1, tsc1) = self._seen[0], self._seen[-1]
        for _ in range(3):
            self.hz = (tsc1 - tsc0) / (host1 - host0)
            part = len(self._seen) // 4
            # the freshest stamps
            host0, tsc0 = min(self._seen[:part], key=self._lag)
            host1, tsc1 = min(self._seen[-part:], key=self._lag)

    def _lag(self, seen: tuple[float, int]) -> float:
        return seen[0] - seen[1] / self.hz

    def host(self, tsc: int, begin: float = 0) -> float:
        """When it was, by what was seen from @begin on."""
        lags = [self._lag(seen) for seen in self._seen if seen[0] >= begin]
        expect(lags, 'the guest has not run')
        return tsc / self.hz + min(lags)


@dataclass
class _Seen:
    """A vCPU as the host has seen it."""
    samples: list[tuple[float, int]]
    gaps: dict[int, tuple[int, int]]


class Shared:
    """The memory that a guest shares with the host."""

    def __init__(self) -> None:
        # it is gone when neither this process nor QEMU has it open
        self._file = open(os.memfd_create('worker'), 'rb+')
        self._file.truncate(_SIZE)
        self._memory = mmap.mmap(self._file.fileno(), _SIZE)
        self.clock = Clock()
        self.seen = [_Seen([], {}) for _ in range(2)]

    def close(self) -> None:
        """Nothing is looked at any more."""
        self._memory.close()
        self._file.close()

    def args(self) -> list[str]:
        """The part of QEMU's command line."""
        path = f'/proc/{os.getpid()}/fd/{self._file.fileno()}'
        return ['-object', f'memory-backend-file,id=shared,share=on,'
                f'size={_SIZE},mem-path={path}',
                '-device',
                f'ivshmem-plain,memdev=shared,master=on,addr={_PCI_SLOT:#x}']

    def write(self, offset: int, *words: int) -> None:
        """Orders."""
        struct.pack_into(f'<{len(words)}Q', self._memory, offset, *words)

    def prepare(self, load: Load) -> None:
        """Say what the work will be."""
        assert len(load.phases) <= _MAX_PHASES
        pages = load.area_mib * PAGES_PER_MIB
        self.write(_PAGES, pages)
        self.write(_PHASES, len(load.phases))
        phases = b''.join(phase.pack() for phase in load.phases)
        self._memory[_PHASES + 8:_PHASES + 8 + len(phases)] = phases
        if any(phase.kind == Kind.ZIPF for phase in load.phases):
            zipf = _zipf(pages)
            self._memory[_ZIPF:_ZIPF + len(zipf)] = zipf

    def head(self, cpu: int) -> tuple[int, ...]:
        """State, stamp, work, bad pages, gaps."""
        return _VCPU_HEAD.unpack_from(self._memory, _VCPU + cpu * _VCPU_SIZE)

    def look(self, cpu: int) -> None:
        """Take in what a vCPU says."""
        _, stamp, work, _, gaps = self.head(cpu)
        now = time.perf_counter()
        seen = self.seen[cpu]
        if not cpu:
            self.clock.see(now, stamp)
        seen.samples.append((now, work))
        for i in range(max(len(seen.gaps), gaps - _MAX_GAPS), gaps):
            seen.gaps[i] = _GAP.unpack_from(
                self._memory, _VCPU + cpu * _VCPU_SIZE + _VCPU_HEAD.size
                + i % _MAX_GAPS * _GAP.size)


class _BareWorker(Machine):
    """A QEMU with the guest that has no operating system."""

    def __init__(self, work: Path, name: str, binary: Path, accel: str,
                 args: Sequence[str]) -> None:
        super().__init__(work, name, binary)
        self.set_machine('pc')
        cpu = 'max,-arch-capabilities' if accel.startswith('kvm') else 'max'
        self.add_args('-accel', accel, '-cpu', cpu, '-nodefaults',
                      '-no-user-config', '-display', 'none',
                      '-bios', str(GUEST / 'worker.bin'), *args)


def _machine(work: Path, name: str, binary: Path, linux: bool, accel: str,
             memory: str, args: Sequence[str]) -> Machine:
    if linux:
        return Guest(work, binary=binary, accel=accel, memory=memory,
                     args=args)
    return _BareWorker(work, name, binary, accel, ['-m', memory, *args])


@dataclass(frozen=True)
class Switch:
    """How the guest went from the source to the destination; host time."""
    # the last and the first moment at which the guest was at work
    left: float
    arrived: float

    @property
    def blackout(self) -> float:
        """Seconds."""
        return self.arrived - self.left


class Worker:
    """Source and destination, and the guest that is in one of them."""

    def __init__(self, work: Path, load: Load, *, linux: bool = False,
                 accel: str = 'kvm', memory: str = '1G',
                 binary: Path = QEMU_BIN / SYSTEM,
                 args: Sequence[str] = ()) -> None:
        self.load = load
        self._linux = linux
        self._cpus = 2 if load.neighbour else 1
        self._sides = (Shared(), Shared())
        # first of all: QEMU 10.2 with TCG aborts if its address is not 0
        ram = ['-object', f'memory-backend-ram,id=ram,size={memory}',
               '-machine', 'memory-backend=ram']
        self.source, self.destination = (
            _machine(work, name, binary, linux, accel, memory,
                     ['-smp', str(self._cpus), *ram, *shared.args(), *extra,
                      *args])
            for name, shared, extra in zip(
                ('source', 'destination'), self._sides,
                ([], ['-incoming', 'defer'])))
        self._end = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self.begun = 0.0
        self._switch: Switch | None = None

    def __enter__(self) -> 'Worker':
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._watcher.is_alive():
            self._watcher.join()
        for vm in self.source, self.destination:
            vm.shutdown(hard=True)
        for shared in self._sides:
            shared.close()

    def _watch(self) -> None:
        while not self._end.wait(_POLL_S):
            for shared in self._sides:
                for cpu in range(self._cpus):
                    shared.look(cpu)

    def boot(self) -> None:
        """Launch both, and have the guest work."""
        source = self._sides[0]
        source.prepare(self.load)
        self.destination.launch()
        if isinstance(self.source, Guest):
            self.source.boot()
            self.source.channel.send('worker')
        else:
            self.source.launch()
        self._await(lambda: source.head(0)[1], 'the guest')
        def calibrated() -> bool:
            source.look(0)
            return source.clock.can_calibrate()

        self._await(calibrated, 'a calibrated clock', 0.001)
        source.clock.calibrate()
        self._sides[1].clock.hz = source.clock.hz
        source.write(_HZ, int(source.clock.hz))
        source.write(_ORDER, _Order.WORK)
        for cpu in range(self._cpus):
            self._await(lambda cpu=cpu: source.head(cpu)[0] == _State.WORKING,
                        'work on the memory')
        self._watcher.start()

    def _await(self, done: Callable[[], bool], what: str,
               pause: float = 0.01) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            if isinstance(self.source, Guest):
                self.source.channel.check()
            expect(self.source.is_running(), 'QEMU has ended')
            expect(time.monotonic() < deadline,
                   f'{what}: waited for in vain ({PATIENCE} s)')
            time.sleep(pause)

    def begin(self) -> None:
        """From now on the time of the phases is counted."""
        self.begun = time.perf_counter()
        self._order(_BEGUN, 1)

    def _order(self, offset: int, value: int) -> None:
        """Wherever the guest is, or will be."""
        for shared in self._sides:
            shared.write(offset, value)

    def switched(self, stopped: float, resumed: float) -> Switch:
        """
        The guest has gone over: the source had stopped, and the destination
        was started, at these times of the host.
        """
        old, new = self._sides
        _, stamp, _, _, gaps = old.head(0)
        # where the clock goes on as if nothing were, there is no gap
        start, end = new.seen[0].gaps.get(gaps, (0, 0))
        self._switch = Switch(
            old.clock.host(stamp, stopped - _NEAR_S),
            new.clock.host(end if start == stamp else stamp, resumed))
        return self._switch

    def gaps(self, begin: float, end: float,
             cpu: int = 0) -> list[tuple[float, float]]:
        """
        When, and for how long, a vCPU was not at work without a pause, from
        the first to the second time; seconds.
        """
        found = []
        last = self._sides[0].head(cpu)[4]
        for number, shared in enumerate(self._sides):
            if number and not self._switch:
                break
            lag = self._lag(number)
            # the watcher finds more meanwhile
            for i, (start, stop) in list(shared.seen[cpu].gaps.items()):
                if number and i < last or (
                        number and i == last and not self._is_live(cpu, i)):
                    continue
                when = start / shared.clock.hz + lag
                if begin <= when <= end:
                    found.append((when, (stop - start) / shared.clock.hz))
        if self._switch and begin <= self._switch.left <= end:
            found.append((self._switch.left, self._switch.blackout))
        return sorted(found, key=lambda gap: -gap[1])

    def _is_live(self, cpu: int, i: int) -> bool:
        """Is this gap of the destination not that of the switch?"""
        start, _ = self._sides[1].seen[cpu].gaps[i]
        return start != self._sides[0].head(cpu)[1]

    def _lag(self, side: int) -> float:
        """What is to be added to the TSC for the host's time."""
        clock = self._sides[side].clock
        if side:
            assert self._switch
            return clock.host(0, self._switch.arrived)
        return clock.host(0)

    def work(self, when: float, cpu: int = 0) -> float:
        """Pages written or read by a vCPU until then."""
        samples = self._samples(cpu)
        i = bisect.bisect(samples, (when, 0))
        expect(0 < i < len(samples), 'not watched at that time')
        (host0, work0), (host1, work1) = samples[i - 1:i + 1]
        return work0 + (work1 - work0) * (when - host0) / (host1 - host0)

    def _samples(self, cpu: int) -> list[tuple[float, int]]:
        old, new = (shared.seen[cpu].samples for shared in self._sides)
        if not self._switch:
            return old
        before = [sample for sample in old if sample[0] <= self._switch.left]
        # the guest may not have said anything yet
        return before + [sample for sample in new
                         if sample[0] >= self._switch.arrived
                         and sample[1] >= before[-1][1]]

    def series(self, begin: float, end: float, step: float,
               cpu: int = 0) -> list[float]:
        """Pages per second in each step of the time."""
        steps = int((end - begin) / step)
        times = [begin + i * step for i in range(steps + 1)]
        done = [self.work(when, cpu) for when in times]
        return [(new - old) / step for old, new in zip(done, done[1:])]

    def verify(self) -> int:
        """Have all pages looked at; how many were ever found to be wrong."""
        self._order(_ORDER, _Order.VERIFY)
        shared = self._sides[1 if self._switch else 0]
        vm = self.destination if self._switch else self.source
        deadline = time.monotonic() + PATIENCE
        while shared.head(0)[0] != _State.VERIFIED:
            if not vm.is_running() or time.monotonic() > deadline:
                raise Failure('the guest does not verify its memory')
            time.sleep(0.01)
        return shared.head(0)[3]
