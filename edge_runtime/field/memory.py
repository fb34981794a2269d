"""A PLC in memory behind the Driver seam: for tests, benchmarks and dry runs. It ships with the product."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edge_runtime.clock import Clock, SystemClock
from edge_runtime.errors import EndpointError
from edge_runtime.field import judge
from edge_runtime.field.driver import Value
from edge_runtime.field.tag import Reason, Sample, Tag, Wave


class MemoryDriver:
    """`values` holds every point by tag name; `writes` what was written, call by call. `alive = False`: a dead PLC.
    `on_write` is called after each write, for a scripted PLC that reacts."""

    def __init__(self, values: dict[str, Value] | None = None, clock: Clock | None = None) -> None:
        self.endpoint = "memory PLC"
        self.values: dict[str, Value] = dict(values or {})
        self.waves: dict[str, list[float]] = {}
        self.writes: list[dict[str, Value]] = []
        self.alive = True
        self.connects = 0
        self.on_write: Callable[[dict[str, Value]], None] | None = None
        self._clock = clock or SystemClock()
        self._open = False

    def connect(self) -> None:
        if not self.alive:
            raise EndpointError(f"{self.endpoint}: cannot connect; it is switched off")
        self._open = True
        self.connects += 1

    def read(self, tags: Sequence[Tag]) -> list[Sample]:
        self._check()
        mono_ns, wall_ns = self._clock.monotonic_ns(), self._clock.wall_ns()
        return [
            judge.good(t, self.values[t.name], mono_ns, wall_ns)
            if t.name in self.values
            else judge.bad(t, Reason.REFUSED, mono_ns, wall_ns)
            for t in tags
        ]

    def read_wave(self, tag: Tag) -> Wave:
        self._check()
        return judge.wave(tag, self.waves.get(tag.name), self._clock.monotonic_ns(), self._clock.wall_ns())

    def write(self, values: Sequence[tuple[Tag, Value]]) -> None:
        self._check()
        written = {tag.name: value for tag, value in values}
        self.values.update(written)
        self.writes.append(written)
        if self.on_write:
            self.on_write(written)

    def close(self) -> None:
        self._open = False

    def _check(self) -> None:
        if not self.alive or not self._open:
            self._open = False
            raise EndpointError(f"{self.endpoint}: no answer")
