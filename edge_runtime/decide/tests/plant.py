"""A line in memory for the loop's tests: PLC, camera and clock by hand, a real bundle, a real outbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.backoff import Backoff
from edge_runtime.clock import FakeClock
from edge_runtime.config import PlcMap
from edge_runtime.decide.decision import Health
from edge_runtime.decide.loop import Loop, Settings
from edge_runtime.decide.models import Judges
from edge_runtime.decide.points import Point, WriteRequest
from edge_runtime.errors import ResourceError
from edge_runtime.field.camera_memory import MemoryCamera
from edge_runtime.field.driver import Value
from edge_runtime.field.handshake import handshake
from edge_runtime.field.memory import MemoryDriver
from edge_runtime.infer.model import Model, load_model
from edge_runtime.outbox.recorder import Item, Recorder
from edge_runtime.outbox.store import Outbox
from edge_runtime.tests.bundles import make_frame
from edge_runtime.wire.envelope import Event, read_record

EXECUTE = 6
POINTS = {
    "speed": Point(110, 0, 500, max_per_min=3),
    "lamp": Point(120, 0, 1, "bool", "coil", while_running=True),
}
TAGS = handshake(PlcMap(recipe=5, lot=6, serial=8))


class Disk:
    """An outbox whose disk can be full."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox, self.full = outbox, False

    def append_many(self, items: Sequence[Item], durable: bool | None = None) -> Sequence[Event]:
        if self.full:
            raise ResourceError("outbox.db: the disk is full; free some space")
        return self.outbox.append_many(items, durable)

    def depth(self) -> int:
        return self.outbox.depth()


class Plant:
    """`trigger(seq)` puts a part under the camera, `turns(n)` runs the loop; `events(stream)` reads the outbox."""

    def __init__(
        self, folder: Path, models: Judges, settings: Settings | None = None, jobs: tuple[Any, ...] = ()
    ) -> None:
        self.clock = FakeClock()
        self.folder = folder
        self.models, self.jobs = models, jobs
        self.settings = settings or Settings(heartbeat_ms=250, pulse_ms=0)
        values: dict[str, Value] = {t.name: 0 for t in (*TAGS.inputs, *TAGS.results, TAGS.heartbeat, TAGS.health)}
        self.plc = MemoryDriver({**values, "line_state": EXECUTE}, self.clock)
        self.frames: dict[int, NDArray[np.uint8] | None] = {}
        self.camera = MemoryCamera(self._frame)
        self.requests: list[WriteRequest] = []
        self.on_frame: Callable[[], None] | None = None
        self.outbox = Outbox(folder / "outbox.db", "dev1", "boot", self.clock)
        self.disk = Disk(self.outbox)
        self.loop = self.make_loop()

    def make_loop(self) -> Loop:
        return Loop(
            self.settings,
            TAGS,
            self.plc,
            self.camera,
            self.models,
            Recorder(self.disk),
            self.clock,
            self.outbox.last("decision"),
            1,
            self.jobs,
            Backoff(0.1, 2.0),
            Backoff(0.1, 2.0),
            lambda: self.requests.pop(0) if self.requests else None,
            POINTS,
        )

    def command(self, name: str, value: Value, seconds: float = 5.0) -> None:
        """`link` hands over a command."""
        until_ns = self.clock.monotonic_ns() + round(seconds * 1e9)
        self.requests.append(WriteRequest(f"c{len(self.requests)}", "cloud", name, value, until_ns))

    def restart(self) -> None:
        """As after a kill: a new loop over the same PLC and the same outbox file."""
        self.loop = self.make_loop()

    def trigger(self, seq: int, defect: bool = False, pixels: NDArray[np.uint8] | None = None) -> None:
        self.frames[seq] = make_frame(defect, seq) if pixels is None else pixels
        self.plc.values["part_seq"] = seq

    def turns(self, count: int = 12) -> None:
        for _ in range(count):
            self.clock.advance(max(self.loop.step(), 0.0001))

    def part(self, seq: int, defect: bool = False, pixels: NDArray[np.uint8] | None = None) -> int:
        """One part from trigger to answer; the result in the PLC, 0 where there is no answer to it."""
        self.trigger(seq, defect, pixels)
        self.turns()
        return int(self.plc.values["result"]) if self.plc.values["result_seq"] == seq else 0

    def events(self, stream: str) -> list[Event]:
        return [read_record(r.line) for r in self.outbox.pending(10_000, 1 << 30, streams=[stream])]

    def kinds(self, stream: str) -> list[str]:
        return [e.kind for e in self.events(stream)]

    def health(self) -> Health:
        return self.loop.health

    def _frame(self, trigger: int) -> NDArray[np.uint8] | None:
        if self.on_frame:
            self.on_frame()
        return self.frames.get(trigger)


def model(bundle: Path, folder: Path) -> Model:
    return load_model(bundle, folder / "engines.json", "reference")
