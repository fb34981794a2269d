"""The updater of the device and the rollouts of the cloud together: the one's status, the other's sealed assignments, a
repository that both believe. Five boards, each with its own folder and trust; time is a fake clock's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from cloud.rollout import clock as rollouts
from cloud.rollout import store
from cloud.rollout.offer import Artifact
from cloud.rollout.plan import read_plan
from cloud.rollout.polling import answer
from cloud.rollout.registry import InMemory
from cloud.rollout.shown import show
from cloud.store.opening import open_store
from edge_runtime.clock import FakeClock
from edge_runtime.update import slots
from edge_runtime.update.cloud_port import Answer
from edge_runtime.update.gate import PASS, FakeGate, Verdict
from edge_runtime.update.simulated import SimulatedCloud, device
from edge_runtime.update.updater import Updater
from edge_runtime.wire.assignment import KIND, Assignment, Item
from edge_runtime.wire.signed import seal
from edge_runtime.wire.update_status import UpdateState, UpdateStatus, read_status

NOON_H = 12
BAD = Verdict(False, "p99 of 31 ms, 20 are allowed", {"p99_ms": 31.0})
NAMES = [f"board{n}" for n in range(5)]
CANARY: list[dict[str, Any]] = [{"name": "canary", "count": 2, "soak_s": 60}, {"name": "all"}]


class Registry:
    """What the cloud knows of the repository in memory, and the key under its assignments."""

    def __init__(self, first: SimulatedCloud) -> None:
        self.repository = first.repository
        self.artifacts: dict[str, InMemory] = {}

    def target(self, path: str) -> InMemory | None:
        return self.artifacts.get(path)

    def seal(self, name: str, counter: int, items: Mapping[str, Item], now_ns: int, valid_ns: int) -> bytes:
        body = Assignment(name, counter, now_ns, now_ns + valid_ns, dict(items)).body()
        return seal(KIND, body, self.repository.assignment_key.sign)


class Board(SimulatedCloud):
    """A device whose cloud is the rollouts."""

    def __init__(self, fleet: Fleet, name: str, folder: Path) -> None:
        super().__init__(fleet.clock, name)
        self.fleet, self.name, self.state = fleet, name, folder
        self.gate = FakeGate()

    def start(self) -> None:
        self.updater = Updater(self.state, device(self.name), self.seams(self.state, lambda _: self.gate), poll_s=60.0)

    def ask(self, status: UpdateStatus) -> Answer:
        told = read_status(status.to_json())
        found = answer(self.fleet.engine, [told], self.fleet.registry, self.fleet.now_ns)[self.name]
        return Answer(found.assignment.encode() if found.assignment else None, found.poll_after_s)

    @property
    def confirmed(self) -> str:
        record = slots.read(self.state)
        return record.confirmed.sha256 if record.confirmed else ""


class Fleet:
    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.clock = FakeClock(wall_ns=1_789_992_000_000_000_000)
        self.boards = {name: Board(self, name, folder / name) for name in NAMES}
        first = self.boards[NAMES[0]]
        self.registry = Registry(first)
        for board in self.boards.values():
            board.repository, board.fetcher = first.repository, first.fetcher
        self.artifacts = [first.release(f"models/line/{n}.tar", f"weights {n}", index=n) for n in (1, 2, 3)]
        for n, item in enumerate(self.artifacts, 1):
            self.registry.artifacts[item.target] = InMemory(item.sha256, n)
        for board in self.boards.values():
            board.start()

    @property
    def now_ns(self) -> int:
        return self.clock.wall_ns()

    def rollout(self, name: str, number: int, groups: Sequence[Mapping[str, Any]] = CANARY, **plan: Any) -> None:
        item = self.artifacts[number - 1]
        made = read_plan({"groups": list(groups), "abort": {"executed": 100}, **plan})
        asked = store.Asked(name, "default", Artifact(item.target, item.sha256, number), made)
        store.create(self.engine, asked, "anna", self.now_ns)
        store.start(self.engine, name, "anna", self.now_ns)

    def go(self, name: str = "", until: Sequence[str] = ("finished", "aborted"), rounds: int = 80) -> dict[str, Any]:
        """Time passes, boards take turns, and so does the clock of the rollouts."""
        for _ in range(rounds):
            for board in self.boards.values():
                for _ in range(4):
                    board.updater.turn()
            self.clock.advance(30.0)
            rollouts.advance(self.engine, self.now_ns, self.registry)
            if name and show(self.engine, name, self.now_ns)["state"] in until:
                break
        return show(self.engine, name, self.now_ns) if name else {}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    engine = open_store(f"sqlite:///{tmp_path / 'cloud.db'}")
    made = Fleet(engine, tmp_path)
    made.go(rounds=2)
    yield made
    engine.dispose()


def test_a_good_artifact_then_a_bad_one(fleet: Fleet) -> None:
    fleet.rollout("first", 1)
    told = fleet.go("first")
    assert (told["state"], told["confirmed"], told["exposed"]) == ("finished", 5, 5)
    assert {b.confirmed for b in fleet.boards.values()} == {fleet.artifacts[0].sha256}
    for board in fleet.boards.values():
        board.gate = FakeGate(trials=[None, BAD])
        board.start()
    fleet.rollout("second", 2)
    told = fleet.go("second")
    assert told["state"] == "aborted", told["reason"]
    assert 1 <= told["failed"] <= told["exposed"] <= 2
    assert {b.confirmed for b in fleet.boards.values()} == {fleet.artifacts[0].sha256}
    bad = [b for b in fleet.boards.values() if slots.read(b.state).state is UpdateState.ROLLED_BACK]
    assert len(bad) == told["failed"]
    for board in fleet.boards.values():
        board.gate = FakeGate()
        board.start()
    fleet.rollout("third", 2)
    told = fleet.go("third")
    assert (told["state"], told["confirmed"]) == ("finished", 5), "a newer assignment of a refused hash is taken"


@pytest.mark.slow
def test_a_refusal_is_tried_again(fleet: Fleet) -> None:
    shy = fleet.boards["board3"]
    shy.gate = FakeGate(checks=[Verdict(False, "a golden vector is off"), PASS])
    shy.start()
    fleet.rollout("first", 1, [{"name": "all"}], retry_s=60)
    told = fleet.go("first")
    assert (told["state"], told["confirmed"]) == ("finished", 5)
    assert [name for name, _ in shy.gate.calls].count("check") == 2


@pytest.mark.slow
def test_a_pause_holds_what_is_staged_and_an_abort_drops_it(fleet: Fleet) -> None:
    """It is staged because the window is closed; then it opens while the rollout is paused."""
    fleet.rollout("first", 1, [{"name": "all"}], window="02:00-04:00", zone="UTC")
    fleet.go("first", rounds=16)
    assert {slots.read(b.state).state for b in fleet.boards.values()} == {UpdateState.STAGED}
    store.pause(fleet.engine, "first", "shift change", fleet.now_ns)
    fleet.clock.advance((26 - NOON_H) * 3600.0)
    told = fleet.go("first", rounds=16)
    assert (told["state"], told["confirmed"], told["in_flight"]) == ("paused", 0, 5)
    assert {slots.read(b.state).state for b in fleet.boards.values()} == {UpdateState.STAGED}
    store.abort(fleet.engine, "first", "wrong recipe", fleet.now_ns)
    told = fleet.go("first")
    assert (told["state"], told["confirmed"], told["in_flight"]) == ("aborted", 0, 0)
    fleet.go(rounds=8)
    assert {slots.read(b.state).state for b in fleet.boards.values()} == {UpdateState.IDLE}


@pytest.mark.slow
def test_a_window_opens_by_itself(fleet: Fleet) -> None:
    fleet.rollout("first", 1, [{"name": "all"}], window="02:00-04:00", zone="UTC")
    assert fleet.go("first", rounds=16)["confirmed"] == 0
    fleet.clock.advance((26 - NOON_H) * 3600.0)
    assert fleet.go("first")["confirmed"] == 5


@pytest.mark.slow
def test_an_abort_with_revert_brings_the_fleet_back(fleet: Fleet) -> None:
    fleet.rollout("first", 1, [{"name": "all"}])
    fleet.go("first")
    fleet.rollout("second", 2, [{"name": "all"}], on_abort="revert")
    assert fleet.go("second")["confirmed"] == 5
    store.abort(fleet.engine, "second", "it drifts", fleet.now_ns)
    told = fleet.go("second", until=("aborted",))
    assert told["groups"][0]["counts"]["cancelled"] == 5
    assert {b.confirmed for b in fleet.boards.values()} == {fleet.artifacts[0].sha256}
