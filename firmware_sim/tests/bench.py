"""A PLC on a table: no sockets, a clock that jumps from event to event, a device that is a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from firmware_sim.camera import ReadyFrame, encode
from firmware_sim.config import Config, LineSection, RecipeSection
from firmware_sim.feeder import Upcoming
from firmware_sim.line import Conveyor, Layout
from firmware_sim.part import Part, Truth
from firmware_sim.plc import Plc
from firmware_sim.scenario import Fault

MS = 1_000_000


class FakeFeeder:
    """Every third part is bad."""

    def __init__(self, faults: Mapping[int, Fault]) -> None:
        self.n, self._faults, self.ready = 0, faults, True

    def take(self) -> Upcoming:
        n, self.n = self.n, self.n + 1
        frame = encode(np.full((4, 4), n % 251, np.uint8), Truth("crack" if n % 3 == 0 else "free", n % 3 == 0))
        return Upcoming(n, frame, (self._faults[n],) if n in self._faults else ())


class Table:
    def __init__(
        self, line: LineSection, faults: Mapping[int, Fault] | None = None, recipe: RecipeSection | None = None
    ) -> None:
        self.now_ns = 1_000 * MS
        self.sent: list[tuple[int, int]] = []  # (part_seq in the frame, part_seq in the register at that moment)
        self.settled: list[Part] = []
        self.device: Callable[[int], None] = lambda seq: None
        layout = Layout(line.parts_per_s, line.belt_speed_mm_s, line.jitter, line.gate_distance_mm)
        self.conveyor = Conveyor(layout, line.seed, line.parts or None)
        config = Config(line=line, recipe=recipe or RecipeSection())
        self.plc = Plc(config, self.conveyor, self._send, self.settled.append, lambda: self.now_ns, lambda: self.now_ns)
        self.feeder = FakeFeeder(faults or {})

    def get(self, name: str) -> int:
        return self.plc.registers.get(name)

    def answer(self, seq: int, result: int, score: int = 7) -> None:
        assert self.plc.registers.client_writes("holding", 100, [seq, result, score])

    def run(self, until: Callable[[], bool], limit: int = 5000) -> None:
        """Jump from due time to due time; the device looks 3 ms after each."""
        for _ in range(limit):
            self.plc.tick(self.feeder)  # type: ignore[arg-type]
            if until():
                return
            before = self.now_ns
            self.now_ns += 3 * MS
            self.device(self.get("part_seq"))
            due_s = self.plc.due_s()
            if due_s is not None:
                self.now_ns = max(self.now_ns, int(due_s * 1e9) + 1, before + 1)
        raise AssertionError(f"not reached within {limit} events; state {self.plc.state.title}")

    def run_to_the_end(self) -> None:
        self.run(lambda: self.plc.done)

    def _send(self, frame: ReadyFrame, seq: int, wall_ns: int) -> None:
        self.sent.append((seq, self.get("part_seq")))
