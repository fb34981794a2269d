"""One emulated device: the production uplink over an outbox, a key and a client id of its own; nothing of it is made up but
what it measures. It is driven by `worker.Loop`, which says when something is ready or due."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.boot import boot_id
from edge_runtime.clock import Clock
from edge_runtime.identity import device_key
from edge_runtime.link.spread import place_of, spread_ns
from edge_runtime.link.uplink import Uplink
from edge_runtime.outbox.store import Outbox
from edge_runtime.wire.topics import Place

LOOK_NS = 5_000_000_000  # keep-alive, and batches whose acknowledgement does not come
LINE_DEVICES = 20
PADDING = "x" * 64


def device_id(number: int) -> str:
    return f"fleet-{number:05}"


def place(number: int) -> Place:
    return Place("acme", "site1", "area1", f"line{number // LINE_DEVICES}", f"cell{number}", device_id(number))


@dataclass(frozen=True)
class Plan:
    """What all devices have in common. `records` each, one every `every_s`."""

    folder: Path
    port: int
    spread_s: float
    records: int
    every_s: float


class Device:
    """`due_ns`: when it has to be called again, if nothing comes before. `told` is called after each durable append."""

    def __init__(self, number: int, plan: Plan, clock: Clock, told: Callable[[Any], None]) -> None:
        self._plan, self._clock, self._told = plan, clock, told
        self.name = device_id(number)
        folder = plan.folder / self.name
        folder.mkdir(parents=True, exist_ok=True)
        self.outbox = Outbox(folder / "outbox.db", self.name, boot_id(), clock)
        self.uplink = Uplink(
            place(number), boot_id(), "127.0.0.1", plan.port, self.outbox, device_key(folder),
            clock=clock, reconnect_spread_s=plan.spread_s,
        )  # fmt: skip
        self.produced = 0
        self.waiting = False
        self.fd: int | None = None

    def begin(self, begin_ns: int) -> None:
        """The first connection, too, comes at the device's place in the window: as after a power cut."""
        self._dial_ns = self._look_ns = spread_ns(self.name, self._plan.spread_s, begin_ns, begin_ns)
        self._first_ns = begin_ns + round(place_of(self.name) * self._plan.every_s * 1e9)

    @property
    def due_ns(self) -> int:
        return min(self._look_ns, self._append_ns)

    @property
    def _append_ns(self) -> int:
        if self.produced >= self._plan.records:
            return 2**62
        return self._first_ns + round(self.produced * self._plan.every_s * 1e9)

    def due(self) -> None:
        """Append if it is time to, and look what the uplink has to do."""
        if self._clock.monotonic_ns() >= self._append_ns:
            self._append()
        self.advance()

    def exchange(self, readable: bool, writable: bool) -> None:
        self.uplink.exchange(readable, writable)
        if self.waiting and not self.outbox.pending(1):
            self.waiting = False
        self.advance()

    def advance(self) -> None:
        """`fd` is then what is to be watched."""
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._dial_ns:
            return
        self.fd = self.uplink.advance()
        self._look_ns = now_ns + LOOK_NS if self.fd is not None else max(now_ns + 1, self.uplink.retry_ns)

    def _append(self) -> None:
        self.produced += 1
        n = self.produced
        body = {"n": n, "part_epoch": 1, "part_seq": n, "result": 1 + n % 2, "latency_us": 4000, "pad": PADDING}
        self._told(self.outbox.append("decision", "decision", body, durable=True))
        self.waiting = True

    def close(self) -> None:
        self.uplink.close()
        self.outbox.close()
