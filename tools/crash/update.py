"""The updater crashed: an update from its assignment to its end, over a cloud in memory; and the moving of old slot folders.

What a crash leaves is started as a device is: what would run is looked at first, then the updater goes on to the end. The cloud
is real in all that the device checks (signatures, hashes, counters); only its wires are in memory. In `recover` the gate has
forgotten everything, as after a power cut.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_runtime.clock import FakeClock
from edge_runtime.update import legacy, lock, records, slots, states
from edge_runtime.update.gate import PASS, Candidate, FakeGate, Verdict
from edge_runtime.update.seams import DOWNLOADS
from edge_runtime.update.simulated import SimulatedCloud, device, tiny_release
from edge_runtime.update.store import Store, address
from edge_runtime.update.updater import Updater
from edge_runtime.wire import archive, manifest
from edge_runtime.wire.update_status import ENDED
from tools.crash.models import Model
from tools.crash.notes import Note, tell
from tools.crash.scenario import Scenario, State

WALL_NS = 1_790_000_000_000_000_000
NAME = "crash-01"
SET = "default"
TURNS = 60
BAD = Verdict(False, "the p99 is over the limit")
WEIGHTS = "w" * 1500


class Cloud(SimulatedCloud):
    """Tells every status that it gets as a promise."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock, NAME)
        self.old = self.release("models/line/1.tar", f"old {WEIGHTS}", index=1)
        self.new = self.release("models/line/2.tar", f"new {WEIGHTS}", index=2, floor=1)
        self.on_ask = self._told

    def _told(self) -> None:
        status = self.told[-1]
        if row := status.slots.get(SET):
            tell(
                state=row.state.value,
                sha256=row.sha256,
                confirmed=row.confirmed,
                counter=row.counter,
                floor=dict(status.floor),
            )


@functools.cache
def cloud_of(roads: str) -> Cloud:
    """The cloud in the state in which the road begins: what is assigned last."""
    cloud = Cloud(FakeClock(wall_ns=WALL_NS))
    cloud.assign(default=cloud.old)
    if roads != "old":
        cloud.assign(default=cloud.new)
    if roads == "revert":
        cloud.assign(default=replace(cloud.new, go="revert"))
    return cloud


class TellingGate(FakeGate):
    """A start is told before it happens: by then the try must be spent."""

    def begin(self, candidate: Candidate) -> None:
        tell(begun=candidate.sha256)
        super().begin(candidate)


def gate_of(road: str) -> TellingGate:
    return TellingGate(trials=[None, BAD] if road == "rollback" else [None, PASS])


def go(folder: Path, cloud: Cloud, gate: FakeGate) -> None:
    """Start the updater, and let it come to the end of what is assigned."""
    clock = FakeClock(wall_ns=WALL_NS + 10**9)
    seams = cloud.seams(folder, lambda name: gate)
    seams.clock = clock
    updater = Updater(folder, device(NAME), seams, poll_s=60.0)
    with lock.writing(folder):
        for _ in range(TURNS):
            clock.advance(updater.turn())
            if updater.resting and (slots.read(folder).state in ENDED or not updater.assigned):
                return
    raise AssertionError(f"not at an end after {TURNS} turns: {slots.read(folder)}")


def prepare(folder: Path, road: str) -> None:
    """What is confirmed before: the old one; for the way back the new one."""
    cloud = cloud_of("old")
    cloud.on_ask = lambda: None
    go(folder, cloud, FakeGate())
    if road == "revert":
        cloud = cloud_of("confirm")
        cloud.on_ask = lambda: None
        go(folder, cloud, FakeGate())


def run(folder: Path, road: str) -> None:
    go(folder, cloud_of(road), gate_of(road))


def looked_at(folder: Path) -> dict[str, Any]:
    """What would run, before anything is put right; and what is on record."""
    found = next(slots.bootable(folder, SET), None)
    read = records.read(folder, SET)
    job = read.record.job
    return {
        "boots": found.release.sha256 if found else "",
        "whole": bool(found) and address(found.path) == found.release.sha256 if found else False,
        "state": read.record.state.value,
        "tries": job.tries_left if job else states.TRIES,
        "counter": job.counter if job else 0,
        "refused": dict(read.record.refused),
    }


def recover(folder: Path, road: str) -> State:
    before = looked_at(folder)
    cloud, gate = cloud_of(road), gate_of(road)
    floor_before = cloud.trust(folder).floor
    gate.running = before["boots"]
    go(folder, cloud, gate)
    store = Store(folder)
    names = sorted(p.name for p in store.folder.iterdir())
    downloads = folder / DOWNLOADS
    return {
        "before": before,
        "floor_before": floor_before.versions,
        "after": looked_at(folder),
        "floor_after": cloud.trust(folder).floor.versions,
        "running": gate.running,
        "store": names,
        "named": sorted(slots.named(folder) or ()),
        "downloads": sorted(p.name for p in downloads.iterdir()) if downloads.exists() else [],
    }


def check(notes: Sequence[Note], state: State, model: Model, road: str) -> list[str]:
    """A or B, whole; what was told holds; tries and floor go one way only; the end is reached."""
    if "error" in state:
        return [f"recovery failed: {state['error']}"]
    cloud = cloud_of(road)
    old, new = cloud.old.sha256, cloud.new.sha256
    before, after = state["before"], state["after"]
    told = [n for n in notes if "state" in n]
    newest: Mapping[str, Any] = told[-1] if told else {}
    wrong = []
    if before["boots"] not in (old, new) or not before["whole"]:
        wrong.append(f"boots {before['boots'][:12] or 'nothing'}, whole: {before['whole']}")
    if road == "rollback" and before["boots"] != old:
        wrong.append("boots the candidate, which was never confirmed")
    if road == "confirm" and newest.get("confirmed") == new and before["boots"] != new:
        wrong.append("the new one was told as confirmed, and the old one boots")
    if road == "revert" and newest.get("confirmed") == old and before["boots"] != old:
        wrong.append("it was told that it went back, and it did not")
    begun = sum(n.get("begun") == new for n in notes)
    if before["counter"] == cloud.counter and before["state"] != "confirmed" and before["tries"] > states.TRIES - begun:
        wrong.append(f"{before['tries']} tries left after {begun} starts")
    if newest.get("state") == "rolled_back" and before["refused"].get(new, 0) < cloud.counter:
        wrong.append("it was told as rolled back, and its hash is not refused")
    floors = [n["floor"] for n in told] + [state["floor_before"], state["floor_after"]]
    for name in floors[0]:
        values = [floor[name] for floor in floors]
        if values != sorted(values):
            wrong.append(f"the floor of {name} was {values}: it has fallen")
    wrong += _end(state, after, old if road in ("rollback", "revert") else new, road)
    return wrong


def _end(state: State, after: Mapping[str, Any], expected: str, road: str) -> list[str]:
    ended = {"confirm": "confirmed", "rollback": "rolled_back", "revert": "rolled_back"}[road]
    wrong = []
    if after["boots"] != expected or not after["whole"] or after["state"] != ended:
        wrong.append(f"the end is {after['state']} with {after['boots'][:12]}, expected {ended} with {expected[:12]}")
    if state["running"] != expected:
        wrong.append(f"at the end {state['running'][:12] or 'nothing'} runs")
    if state["store"] != state["named"] or state["downloads"]:
        wrong.append(f"left over: store {state['store']}, named {state['named']}, downloads {state['downloads']}")
    return wrong


def _scenario(text: str, road: str) -> Scenario:
    part: Callable[..., Any] = functools.partial
    return Scenario(
        text, part(run, road=road), part(recover, road=road), part(check, road=road), part(prepare, road=road)
    )


CONFIRM = _scenario("an update: download, staged, on trial, confirmed", "confirm")
ROLLBACK = _scenario("an update that fails its trial and is rolled back", "rollback")
REVERT = _scenario("a confirmed update is taken back by the cloud", "revert")


# ── slot folders of an earlier version ──────────────────────────────────────────────────────────────────────────────────


def tiny(folder: Path, text: str) -> str:
    """The digest of the bundle that was made there."""
    tar = folder.with_suffix(".tar")
    tar.write_bytes(tiny_release(text))
    archive.unpack(tar, folder)
    tar.unlink()
    return manifest.digest((folder / manifest.MANIFEST).read_bytes())


def prepare_earlier(folder: Path) -> None:
    for slot_set in ("default", "recipe-7"):
        at = folder / "slots" / slot_set
        at.mkdir(parents=True)
        rows = {n: {"state": "active", "digest": tiny(at / n, f"{slot_set} {n} {WEIGHTS}"), "reason": ""} for n in "AB"}
        (at / legacy.FILE).write_text(json.dumps({**rows, "current": "B"}))


def run_migrate(folder: Path) -> None:
    with lock.writing(folder):
        tell(moved=legacy.migrate(folder))


def _running(folder: Path) -> dict[str, list[str]]:
    found = {}
    for slot_set in ("default", "recipe-7"):
        path = slots.active(folder, slot_set)
        found[slot_set] = [slots.confirmed_digest(folder, slot_set), address(path) if path else ""]
    return found


def recover_migrate(folder: Path) -> State:
    before = _running(folder)
    with lock.writing(folder):
        legacy.migrate(folder)
        Store(folder).clean()
    left = [f"{s}/{n}" for s in before for n in ("A", "B", legacy.FILE) if (folder / "slots" / s / n).exists()]
    previous = {s: (r.previous.sha256 if r.previous else "") for s in before for r in [slots.read(folder, s)]}
    return {"before": before, "after": _running(folder), "left": left, "previous": previous}


def check_migrate(notes: Sequence[Note], state: State, model: Model) -> list[str]:
    if "error" in state:
        return [f"recovery failed: {state['error']}"]
    wrong = []
    for slot_set in ("default", "recipe-7"):
        a, b = (hashlib.sha256(tiny_release(f"{slot_set} {n} {WEIGHTS}")).hexdigest() for n in "AB")
        for when in ("before", "after"):
            if state[when][slot_set][1] != b:
                wrong.append(f"{when} the move is over, {slot_set} runs {state[when][slot_set][1][:12] or 'nothing'}")
        if state["previous"][slot_set] != a:
            wrong.append(f"{slot_set}: the way back is gone")
    return [*wrong, *(f"{name} is still there" for name in state["left"])]


MIGRATE = Scenario(
    "slot folders of an earlier version are moved", run_migrate, recover_migrate, check_migrate, prepare_earlier
)
