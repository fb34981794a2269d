"""The conveyor, pure: belt, encoder, part spacing with jitter, inspection position and reject gate. Time is an argument.

- Part i lies at a place on the belt that depends on the seed only. It is inspected when the belt has carried it to the
  inspection position and it meets the gate `gate_distance_mm` later.
- The belt never runs past an arrival that nobody has taken by more than `SLIP_S`: a simulator that the machine has held
  up holds its belt as well, instead of sending two parts at once. Such slips are counted.
- Encoder: tenths of a millimetre, 32 bits, wraps.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import Literal, NamedTuple

SLIP_S = 0.005
COUNTS_PER_MM = 10
NM = 1e-9  # rounding of positions; nothing on a belt is nearer than this


@dataclass(frozen=True)
class Layout:
    """`jitter`: the space between two parts varies by ± this share of the mean."""

    parts_per_s: float = 10.0
    speed_mm_s: float = 500.0
    jitter: float = 0.2
    gate_distance_mm: float = 150.0

    @property
    def pitch_mm(self) -> float:
        return self.speed_mm_s / self.parts_per_s


class Arrival(NamedTuple):
    place: Literal["inspection", "gate"]
    part_index: int
    at_mm: float


class Conveyor:
    """`limit`: how many parts lie on the belt in all (None: no end); it may be raised. Times are seconds of any clock
    that only grows."""

    def __init__(self, layout: Layout, seed: int, limit: int | None = None) -> None:
        self.layout, self.limit, self.slips = layout, limit, 0
        self._rng = random.Random(seed)
        self._places_mm: deque[float] = deque()  # inspection positions of the parts from `_next` on
        self._last_mm = 0.0
        self._next = 0
        self._to_gate: deque[tuple[int, float]] = deque()
        self._anchor_mm, self._anchor_s, self.running = 0.0, 0.0, False

    def run(self, now_s: float) -> None:
        if not self.running:
            self._anchor_s, self.running = now_s, True

    def stop(self, now_s: float) -> None:
        if self.running:
            self._anchor_mm, self.running = self.position_mm(now_s), False

    def position_mm(self, now_s: float) -> float:
        """How far the belt has come, held back at an arrival that is not taken."""
        free_mm = self._free_mm(now_s)
        due = self._first()
        return free_mm if due is None else min(free_mm, due.at_mm + SLIP_S * self.layout.speed_mm_s)

    def encoder(self, now_s: float) -> int:
        return int(self.position_mm(now_s) * COUNTS_PER_MM) & 0xFFFFFFFF

    def take(self, now_s: float, inspect: bool = True) -> Arrival | None:
        """The next arrival that is due, in the order of the belt; None if none is. `inspect` False: a part that is due
        at the inspection is left there (and the belt with it)."""
        due = self._first()
        if due is None or due.at_mm > self._free_mm(now_s) + NM or (due.place == "inspection" and not inspect):
            return None
        self._slip(due, now_s)
        if due.place == "gate":
            self._to_gate.popleft()
        else:
            self._places_mm.popleft()
            self._next += 1
            self._to_gate.append((due.part_index, due.at_mm + self.layout.gate_distance_mm))
        return due

    def next_due_s(self) -> float | None:
        """When the next arrival is due; None while the belt stands or is empty."""
        due = self._first()
        if due is None or not self.running:
            return None
        return self._anchor_s + (due.at_mm - self._anchor_mm) / self.layout.speed_mm_s

    def planned_s(self, part_index: int) -> float:
        """Seconds of running belt until the part is inspected. Only for parts that are not yet inspected."""
        return self._place_mm(part_index - self._next) / self.layout.speed_mm_s

    @property
    def inspected(self) -> int:
        return self._next

    @property
    def between(self) -> int:
        """Parts between inspection and gate."""
        return len(self._to_gate)

    @property
    def all_inspected(self) -> bool:
        return self.limit is not None and self._next >= self.limit

    def _free_mm(self, now_s: float) -> float:
        return self._anchor_mm + (now_s - self._anchor_s) * self.layout.speed_mm_s * self.running

    def _slip(self, due: Arrival, now_s: float) -> None:
        allowed_mm = due.at_mm + SLIP_S * self.layout.speed_mm_s
        if self.running and self._free_mm(now_s) > allowed_mm + NM:
            self._anchor_mm, self._anchor_s = allowed_mm, now_s
            self.slips += 1

    def _first(self) -> Arrival | None:
        gate = Arrival("gate", *self._to_gate[0]) if self._to_gate else None
        if self.all_inspected:
            return gate
        place_mm = self._place_mm(0)
        if gate is not None and gate.at_mm <= place_mm:
            return gate
        return Arrival("inspection", self._next, place_mm)

    def _place_mm(self, ahead: int) -> float:
        while len(self._places_mm) <= ahead:
            self._last_mm += self.layout.pitch_mm * (1.0 + self.layout.jitter * self._rng.uniform(-1.0, 1.0))
            self._places_mm.append(self._last_mm)
        return self._places_mm[ahead]
