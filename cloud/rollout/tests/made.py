"""A fleet of simulated devices, a registry in memory and a clock for the tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Engine

from cloud.rollout import clock, polling, store
from cloud.rollout.fleet import writing
from cloud.rollout.offer import Artifact
from cloud.rollout.plan import read_plan
from cloud.rollout.registry import InMemory, MemoryRegistry
from cloud.rollout.shown import show
from cloud.rollout.simulated import SimulatedDevice
from cloud.store import tables as t

S_NS = 1_000_000_000
START_NS = 1_780_000_000 * S_NS
OLD, NEW, NEWER = "a" * 64, "b" * 64, "c" * 64
TARGET = "models/surface/2.tar"
NEWER_TARGET = "models/surface/3.tar"
SLOT_SET = "default"


class World:
    """Devices that ask whenever they are told to, and time that passes when it is told to."""

    def __init__(self, engine: Engine, devices: Iterable[SimulatedDevice]) -> None:
        self.engine = engine
        self.now_ns = START_NS
        self.devices = {d.name: d for d in devices}
        self.registry = MemoryRegistry(lambda data: b"s" * 64)
        self.registry.artifacts |= {TARGET: InMemory(NEW, 2), NEWER_TARGET: InMemory(NEWER, 3)}

    def poll(self, *names: str) -> dict[str, polling.Answer]:
        """These, or all that are heard of, ask."""
        here = [self.devices[n] for n in names] or [d for d in self.devices.values() if not d.gone]
        found = polling.answer(self.engine, [d.status(self.now_ns) for d in here], self.registry, self.now_ns)
        for d in here:
            d.take(found[d.name].assignment)
        return found

    def later(self, seconds: float) -> dict[str, str]:
        """Time passes and the clock of the rollouts ticks."""
        self.pass_by(seconds)
        return clock.advance(self.engine, self.now_ns, self.registry)

    def pass_by(self, seconds: float) -> None:
        """Time passes, and a cloud runs all the while."""
        self.now_ns += round(seconds * S_NS)
        with writing(self.engine).begin() as connection:
            connection.execute(t.rollout_clock.update().values(ticked_ns=self.now_ns))

    def down(self, seconds: float) -> dict[str, str]:
        """No cloud runs for so long, or its clock is set; then it ticks."""
        self.now_ns += round(seconds * S_NS)
        return clock.advance(self.engine, self.now_ns, self.registry)

    def run(self, rounds: int = 10, seconds: float = 30.0) -> None:
        for _ in range(rounds):
            self.later(seconds)
            self.poll()

    def create(
        self, name: str = "r1", target: str = TARGET, replaces: str = "", begin: bool = False, **plan: Any
    ) -> dict[str, Any]:
        found = self.registry.artifacts[target]
        artifact = Artifact(target, found.sha256, found.index, tuple(found.hardware))
        asked = store.Asked(name, SLOT_SET, artifact, read_plan(plan), replaces)
        return store.create(self.engine, asked, "anna", self.now_ns, begin=begin)

    def start(self, name: str = "r1", **more: Any) -> dict[str, Any]:
        self.create(name, **more)
        return store.start(self.engine, name, "anna", self.now_ns)

    def show(self, name: str = "r1") -> dict[str, Any]:
        return show(self.engine, name, self.now_ns)

    def confirmed(self) -> set[str]:
        return {d.name for d in self.devices.values() if SLOT_SET in d.slots and d.slots[SLOT_SET].confirmed == NEW}


def fleet(count: int, **fates: Iterable[int]) -> list[SimulatedDevice]:
    """`fleet(10, bad=[3])`: ten good devices, but number 3."""
    by_number = {n: fate for fate, numbers in fates.items() for n in numbers}
    return [SimulatedDevice(f"dev{n:05d}", by_number.get(n, "good")) for n in range(count)]
