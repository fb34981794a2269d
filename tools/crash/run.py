"""One scenario: recorded, explored, and died at for real in some places, so that trace and reality are seen to agree."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from edge_runtime.errors import GudgeonError
from tools.crash.disk import Disk, contents
from tools.crash.explore import Found, Plan, Told, explore, notes_of
from tools.crash.models import MODELS, image
from tools.crash.recovery import Recovery
from tools.crash.scenario import Scenario
from tools.crash.shim import Recorder, Recording
from tools.crash.table import scenario as find

WRITTEN = MODELS["written"]
MEMORY = Path("/dev/shm")  # noqa: S108  (a folder of our own is made in it)


@contextmanager
def in_memory() -> Iterator[Path]:
    """A folder of our own, where there is a file system in memory on that: what is durable there is told by the trace."""
    with tempfile.TemporaryDirectory(
        prefix="gudgeon-crash-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None
    ) as work:
        yield Path(work)


@dataclass(frozen=True)
class Outcome:
    """`real`: how often a process died at its operation N. `disagree`: where what lay there then was not the image, or not
    right."""

    scenario: str
    found: Found
    operations: int
    real: int
    disagree: Sequence[str]

    @property
    def total(self) -> int:
        return self.found.total + self.real

    @property
    def failed(self) -> int:
        return self.found.all_failed + len(self.disagree)

    @property
    def passed(self) -> bool:
        return not self.failed

    def as_json(self) -> dict[str, Any]:
        f = self.found
        return {
            "scenario": self.scenario, "passed": self.passed, "operations": self.operations, "points": dict(f.points),
            "failed": dict(f.failed), "points_in_recovery": dict(f.within), "failed_in_recovery": dict(f.within_failed),
            "images": f.images, "shapes": f.shapes, "real": self.real, "disagree": list(self.disagree),
            "examples": f.examples,
        }  # fmt: skip


def run(name: str, work: Path, plan: Plan, real: int, told: Told | None = None) -> Outcome:
    """`work` is a folder of our own."""
    work.mkdir(parents=True)
    scenario, recorder, folder = find(name), Recorder(work), work / "state"
    recording = record(name, recorder, folder)
    numbers = [op.number for op in recording.ops if op.number]
    disagree = _agrees(recording, folder)
    shutil.rmtree(folder)
    with Recovery(name, recorder, work / "images") as recovery:
        found = explore(scenario, recording.before, recording.ops, recovery, plan, told)
    deaths = sorted(Random(plan.seed).sample(numbers, min(real, len(numbers))))
    for number in deaths:
        disagree += _die_at(name, scenario, recorder, work / "images", number)
    return Outcome(name, found, len(numbers), len(deaths), disagree)


def record(name: str, recorder: Recorder, folder: Path, crash_at: int = 0) -> Recording:
    folder.mkdir()
    program = [sys.executable, "-m", "tools.crash.program", name]
    done = subprocess.run([*program, "prepare", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise GudgeonError(f"{name}: cannot be prepared: {done.stderr.strip().splitlines()[-1:]}")
    return recorder.run([*program, "run", str(folder)], folder, crash_at)


def _agrees(recording: Recording, folder: Path) -> list[str]:
    """The folder is what the trace makes of it: nothing was written past the shim."""
    disk = copy.deepcopy(recording.before)
    for op in recording.ops:
        disk.apply(op)
    made, there = (contents(image(d, WRITTEN, Random(0))) for d in (disk, Disk.of(folder)))
    if made == there:
        return []
    names = sorted(n for n in {*made, *there} if made.get(n) != there.get(n))
    return [
        f"{len(recording.ops)} records do not make {', '.join(names)} as it lies there: something wrote past the shim"
    ]


def _die_at(name: str, scenario: Scenario, recorder: Recorder, images: Path, number: int) -> list[str]:
    """A process that dies before this operation; then its restart."""
    folder = images / "real"
    recording = record(name, recorder, folder, crash_at=number)
    wrong = _agrees(recording, folder)
    with Recovery(name, recorder, images) as recovery:
        recovered = recovery.at(folder, Disk.of(folder))
    wrong += scenario.check(notes_of(recording.ops), recovered.state, WRITTEN)
    return [f"died before operation {number}: {text}" for text in wrong]
