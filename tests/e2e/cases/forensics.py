"""
Promised: the evidence is kept. A quiesced VM can be examined, also when
another one has taken over.

Measured: a guest appends records, is quiesced, and a second VM goes on. Then
the memory of the first is dumped: for each stream, the last record that the
guest has acknowledged (or the one it had begun after it) is in the dump, and
nothing of the second VM.

SPDX-License-Identifier: GPL-2.0-or-later
"""

from harness import forensics
from harness.guest import CONTROLLERS, Guest
from harness.rig import STREAMS, Rig
from harness.tap import expect, note


def dump_after_takeover(rig: Rig) -> None:
    """The case."""
    disk = rig.disk(CONTROLLERS['virtio-blk'], 'raw')
    dump = rig.work / 'dump'
    try:
        with Guest(rig.work, disk, instance=1) as first, \
             Guest(rig.work, disk, instance=2) as second:
            first.boot()
            first.record(STREAMS)
            first.wait_for_progress(STREAMS)
            first.quiesce()
            second.boot()
            second.record(STREAMS)
            second.wait_for_progress(STREAMS)
            words = forensics.last_words(forensics.dump(first, dump))
            expect(first.status() == 'quiesced', 'dumping has changed it')
            first.shutdown()
            first.channel.drain()
            missing = forensics.unheard(words, first.acknowledged())
        expect(not missing, f'not in the dump: {missing}; found: {words}')
        expect({record.instance for record in words} == {1},
               'the dump is not of the first VM alone')
        note(f'{len(words)} records found in the dump')
    finally:
        dump.unlink(missing_ok=True)
        disk.image.unlink()
