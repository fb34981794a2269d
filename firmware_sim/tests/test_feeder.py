from __future__ import annotations

import asyncio
from pathlib import Path

from firmware_sim import source
from firmware_sim.camera import HEADER
from firmware_sim.feeder import AHEAD, Feeder, Upcoming
from firmware_sim.scenario import Fault
from firmware_sim.tests.folders import write_folder


async def collect(feeder: Feeder, count: int) -> list[Upcoming]:
    running = asyncio.create_task(feeder.run())
    out: list[Upcoming] = []
    while len(out) < count:
        if feeder.ready:
            out.append(feeder.take())
        await asyncio.sleep(0)
    running.cancel()
    return out


def test_frames_come_in_order_with_their_faults_and_frozen_is_what_was_sent_before(tmp_path: Path) -> None:
    asked: list[int] = []
    faults = {2: (Fault("black"),), 3: (Fault("frozen"),), 5: (Fault("skip_seq"), Fault("frozen"))}

    def faults_of(n: int) -> tuple[Fault, ...]:
        asked.append(n)
        return faults.get(n, ())

    write_folder(tmp_path)
    parts = asyncio.run(collect(Feeder(source.folder(tmp_path, "test", 4), faults_of), 8))
    clean = source.folder(tmp_path, "test", 4)
    truths = [clean.part(n) for n in range(8)]
    sent = [bytes(p.frame.payload[HEADER.size :]) for p in parts]
    assert [p.part_index for p in parts] == list(range(8))
    assert asked == sorted(asked)
    assert len(asked) <= 8 + AHEAD
    assert [p.frame.truth for p in parts] == [truth for _, truth in truths], "a fault does not change what the part is"
    assert sent[2] == sent[3] == bytes(12 * 16)
    assert sent[5] == sent[4] == truths[4][0].tobytes()
    assert [f.kind for f in parts[5].faults] == ["skip_seq", "frozen"]
