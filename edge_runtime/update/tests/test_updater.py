"""The updater over a cloud in memory: every road of an assignment, what is told of it, and what a restart makes of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.clock import FakeClock
from edge_runtime.errors import BundleError, EndpointError
from edge_runtime.update import records, slots, states
from edge_runtime.update.fetch.fetcher import FetchError
from edge_runtime.update.gate import PASS, Candidate, FakeGate, Verdict
from edge_runtime.update.records import SlotRecord
from edge_runtime.update.simulated import SimulatedCloud, device, tiny_release
from edge_runtime.update.store import Store
from edge_runtime.update.updater import Updater
from edge_runtime.wire.assignment import Item
from edge_runtime.wire.update_status import SlotStatus, UpdateState

BAD = Verdict(False, "p99 of 31 ms, 20 are allowed", {"p99_ms": 31.0})


class Rig:
    """A device with what is confirmed (`old`), a cloud that has `new`, and a gate with given answers."""

    def __init__(
        self, folder: Path, checks: Iterable[Verdict] = (PASS,), trials: Iterable[Verdict | None] = (PASS,)
    ) -> None:
        self.state = folder / "state"
        self.clock = FakeClock(wall_ns=1_790_000_000_000_000_000)
        self.cloud = SimulatedCloud(self.clock, "d1")
        self.gate = FakeGate(checks, trials)
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.old = self.cloud.release("models/line/1.tar", "old", index=1)
        self.new = self.cloud.release("models/line/2.tar", "new", index=2, floor=1)
        self.restart()

    def restart(self) -> None:
        """As after kill -9: nothing is left but what is on the disk."""
        seams = self.cloud.seams(self.state, lambda name: self.gate if name in ("default", "recipe-7") else None)
        seams.tell = lambda item: self.events.append((item[1], item[2]))
        self.updater = Updater(self.state, device(), seams, poll_s=60.0)

    def go(self, turns: int = 12) -> None:
        for _ in range(turns):
            self.clock.advance(self.updater.turn())

    def confirm_old(self) -> None:
        self.cloud.assign(default=self.old)
        gate, self.gate = self.gate, FakeGate()
        self.go()
        self.gate = gate
        self.gate.running = self.old.sha256
        assert self.record.confirmed
        assert self.record.confirmed.sha256 == self.old.sha256
        self.events.clear()

    @property
    def record(self) -> SlotRecord:
        return slots.read(self.state)

    @property
    def ready(self) -> bool:
        """Staged and checked: the next thing would be its start."""
        record = self.record
        return record.state is UpdateState.STAGED and record.job is not None and record.job.checked

    @property
    def told(self) -> SlotStatus:
        return self.cloud.told[-1].slots["default"]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path)
    rig.confirm_old()
    return rig


def test_from_an_assignment_to_confirmed(rig: Rig) -> None:
    rig.cloud.assign(default=rig.new)
    rig.go()
    record = rig.record
    assert record.confirmed
    assert record.previous
    assert (record.state, record.confirmed.sha256) == (UpdateState.CONFIRMED, rig.new.sha256)
    assert (record.confirmed.target, record.confirmed.index, record.previous.sha256) == (
        rig.new.target,
        2,
        rig.old.sha256,
    )
    assert slots.active(rig.state) == Store(rig.state).path(rig.new.sha256)
    assert rig.gate.running == rig.new.sha256
    assert [name for name, _ in rig.gate.calls] == ["check", "begin", "trial"]
    assert [kind for kind, _ in rig.events] == [
        "update_assigned", "update_installed", "update_running", "update_confirmed",
    ]  # fmt: skip
    told = rig.told
    assert (told.state, told.running, told.confirmed, told.counter) == (
        UpdateState.CONFIRMED, rig.new.sha256, rig.new.sha256, 2,
    )  # fmt: skip
    assert rig.cloud.told[-1].floor["index"] == 1
    assert list((rig.state / "update" / "download").iterdir()) == []


def test_installed_running_and_confirmed_are_told_apart(tmp_path: Path) -> None:
    rig = Rig(tmp_path, trials=[None])
    rig.confirm_old()
    rig.cloud.assign(default=replace(rig.new, go="stage"))
    rig.go()
    told = rig.told
    assert (told.state, told.installed, told.running, told.confirmed) == (
        UpdateState.STAGED, rig.new.sha256, rig.old.sha256, rig.old.sha256,
    )  # fmt: skip
    assert "waits for the word" in told.reason
    rig.cloud.assign(default=rig.new)
    rig.go(4)
    rig.updater.ask_soon()
    rig.updater.turn()
    told = rig.told
    assert (told.state, told.running, told.confirmed) == (UpdateState.TRIAL, rig.new.sha256, rig.old.sha256)
    assert rig.updater.on_trial
    rig.gate = FakeGate(trials=[Verdict(True, "", {"agreement": 0.99})])
    rig.go()
    assert (rig.told.state, rig.told.measured) == (UpdateState.CONFIRMED, {"agreement": 0.99})
    assert not rig.updater.on_trial


def test_a_failed_check_refuses_the_hash_and_nothing_has_started(tmp_path: Path) -> None:
    rig = Rig(tmp_path, checks=[BAD])
    rig.confirm_old()
    rig.cloud.assign(default=rig.new)
    rig.go(40)
    assert rig.record.state is UpdateState.REFUSED
    assert [name for name, _ in rig.gate.calls] == ["check"]
    assert (rig.told.reason, rig.told.measured) == (BAD.reason, BAD.measured)
    assert Store(rig.state).names() == [rig.old.sha256]


def test_a_failed_trial_goes_back_and_waits_for_a_new_assignment(tmp_path: Path) -> None:
    rig = Rig(tmp_path, trials=[None, BAD])
    rig.confirm_old()
    rig.cloud.assign(default=rig.new)
    rig.go(40)
    assert (rig.record.state, rig.gate.running) == (UpdateState.ROLLED_BACK, rig.old.sha256)
    assert slots.active(rig.state) == Store(rig.state).path(rig.old.sha256)
    assert rig.events[-1][0] == "update_rolled_back"
    assert rig.events[-1][1]["measured"] == BAD.measured
    calls = len(rig.gate.calls)
    rig.restart()
    rig.go(20)
    assert [name for name, _ in rig.gate.calls[calls:]] == ["revert"]  # a restart makes sure of it
    rig.gate = FakeGate()
    rig.cloud.assign(default=rig.new)
    rig.go()
    assert rig.record.state is UpdateState.CONFIRMED


def test_a_pause_an_abort_and_a_closed_window_are_heeded_right_before_the_start(rig: Rig) -> None:
    def change() -> None:
        if rig.ready:
            rig.cloud.assign(default=replace(rig.new, go="stage"))

    rig.cloud.assign(default=rig.new)
    rig.cloud.on_ask = change
    rig.go()
    assert [name for name, _ in rig.gate.calls] == ["check"]
    assert rig.record.state is UpdateState.STAGED
    rig.cloud.on_ask = lambda: None
    rig.cloud.assign()
    rig.go()
    assert (rig.record.state, rig.record.job) == (UpdateState.IDLE, None)
    assert [name for name, _ in rig.gate.calls] == ["check"]


def test_without_an_answer_nothing_starts(rig: Rig) -> None:
    rig.cloud.assign(default=rig.new)

    def away() -> None:
        if rig.ready:
            raise EndpointError("no route to the cloud")

    rig.cloud.on_ask = away
    rig.go(30)
    assert rig.ready
    assert "begin" not in [name for name, _ in rig.gate.calls]
    rig.cloud.on_ask = lambda: None
    rig.go(30)
    assert rig.record.state is UpdateState.CONFIRMED


def test_asked_to_go_back_it_goes_back_once(rig: Rig) -> None:
    rig.cloud.assign(default=rig.new)
    rig.go()
    rig.cloud.assign(default=replace(rig.new, go="revert"))
    rig.go()
    record = rig.record
    assert record.confirmed
    assert (record.state, record.confirmed.sha256, record.previous) == (UpdateState.ROLLED_BACK, rig.old.sha256, None)
    assert rig.gate.running == rig.old.sha256
    assert rig.told.reason == "taken back by the cloud"
    calls = len(rig.gate.calls)
    rig.go(20)
    assert len(rig.gate.calls) == calls


def test_it_does_not_go_back_below_the_floor(rig: Rig) -> None:
    newest = rig.cloud.release("models/line/3.tar", "newest", index=3, floor=3)
    rig.cloud.assign(default=newest)
    rig.go()
    rig.cloud.assign(default=replace(newest, go="revert"))
    rig.go()
    assert rig.record.confirmed
    assert rig.record.confirmed.sha256 == newest.sha256
    assert "below the floor 3" in rig.told.reason
    rig.cloud.assign(default=rig.old)
    rig.go()
    assert rig.record.state is UpdateState.REFUSED
    assert "below this device's floor" in rig.told.reason


REFUSED: dict[str, tuple[str, str]] = {
    "another hash than what is signed": ("hash", "another hash than what is signed"),
    "no such target": ("gone", "not in the repository's signed targets"),
    "other hardware": ("hardware", "is made for aarch64"),
    "another kind": ("kind", "takes models/… only"),
    "no such slot set": ("slot", "no slot set recipe-9"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_may_not_be_taken_is_refused_with_its_reason(rig: Rig, what: str) -> None:
    way, reason = REFUSED[what]
    item = {
        "hash": lambda: replace(rig.new, sha256="9" * 64),
        "gone": lambda: Item("models/line/77.tar", rig.new.sha256, "r1"),
        "hardware": lambda: rig.cloud.release("models/line/4.tar", "arm", index=4, hardware=("aarch64",)),
        "kind": lambda: rig.cloud.release("runtime/gudgeon/4.tar", "runtime", index=4),
        "slot": lambda: rig.new,
    }[way]()
    name = "recipe-9" if way == "slot" else "default"
    rig.cloud.assign(0, **{name: item})
    rig.go()
    told = rig.cloud.told[-1].slots[name]
    assert told.state is UpdateState.REFUSED
    assert reason in told.reason
    assert rig.gate.calls == []
    assert slots.active(rig.state) == Store(rig.state).path(rig.old.sha256)


def test_bytes_that_are_not_what_was_signed_are_refused(rig: Rig) -> None:
    rig.cloud.fetcher.files = {
        path: tiny_release("evil") if rig.new.sha256 in path else data for path, data in rig.cloud.fetcher.files.items()
    }
    rig.cloud.assign(default=rig.new)
    rig.go()
    assert rig.record.state is UpdateState.REFUSED
    assert Store(rig.state).names() == [rig.old.sha256]


def test_an_artifact_that_is_no_archive_is_refused(rig: Rig) -> None:
    rig.cloud.assign(default=rig.cloud.release("models/line/5.tar", b"not a tar at all", index=5))
    rig.go()
    assert rig.record.state is UpdateState.REFUSED
    assert "archive" in rig.told.reason


def test_a_network_that_fails_blames_nobody(rig: Rig) -> None:
    rig.cloud.assign(default=rig.new)
    rig.cloud.fetcher.trouble = lambda path, number: FetchError("no route", again=False)
    rig.go(10)
    assert (rig.record.state, dict(rig.record.refused)) == (UpdateState.DOWNLOADING, {})
    assert "no route" in rig.told.reason
    rig.cloud.fetcher.trouble = lambda path, number: None
    rig.go(20)
    assert rig.record.state is UpdateState.CONFIRMED


def test_what_was_to_be_tried_again_and_is_taken_back_leaves_the_updater_at_rest(rig: Rig) -> None:
    rig.cloud.assign(default=rig.new)
    rig.go()
    file = Store(rig.state).path(rig.old.sha256) / "model.bin"
    file.chmod(0o644)
    file.write_bytes(b"rot")
    rig.cloud.assign(default=replace(rig.new, go="revert"))
    rig.go(3)
    assert not rig.updater.resting
    assert rig.record.state is UpdateState.CONFIRMED
    rig.cloud.assign()
    rig.go(8)
    assert rig.updater.resting
    assert rig.updater.turn() > 1.0


def test_a_full_store_blames_nobody(rig: Rig) -> None:
    rig.cloud.assign(default=rig.new)
    rig.updater = Updater(rig.state, device(), rig.cloud.seams(rig.state, lambda name: rig.gate), 60.0, store_bytes=600)
    rig.go(5)
    assert rig.record.state is UpdateState.DOWNLOADING
    rig.updater.ask_soon()
    rig.updater.turn()
    assert "over the budget" in rig.told.reason


def test_a_line_that_is_away_spends_one_try_only(rig: Rig) -> None:
    rig.cloud.assign(default=rig.new)
    rig.gate.fails.extend([EndpointError("control is away")] * 4)
    rig.go(60)
    assert rig.record.state is UpdateState.CONFIRMED
    assert rig.record.job
    assert rig.record.job.tries_left == 2


def test_a_candidate_that_cannot_be_started_is_rolled_back(rig: Rig) -> None:
    rig.cloud.assign(default=rig.new)
    original = rig.gate.begin

    def begin(candidate: Any) -> None:
        original(candidate)
        raise BundleError("control refused it")

    rig.gate.begin = begin  # type: ignore[method-assign]
    rig.go(20)
    assert rig.record.state is UpdateState.ROLLED_BACK
    assert rig.record.refused[rig.new.sha256]
    assert "control refused it" in rig.told.reason


def test_tries_fall_with_every_restart_on_trial_and_end_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path, trials=[None])
    rig.confirm_old()
    rig.cloud.assign(default=rig.new)
    rig.go(6)
    tries = [rig.record.job.tries_left if rig.record.job else -1]
    while rig.record.state is UpdateState.TRIAL and len(tries) < 9:
        rig.restart()
        rig.go(2)
        tries.append(rig.record.job.tries_left if rig.record.job else -1)
    assert tries == [2, 1, 0, 0]
    assert (rig.record.state, rig.gate.running) == (UpdateState.ROLLED_BACK, rig.old.sha256)
    assert "every try ended" in rig.told.reason


def test_an_assignment_that_is_not_believed_changes_nothing(rig: Rig) -> None:
    for sealed in (
        b"rubbish",
        rig.cloud.repository.assignment("another device", 9, default=rig.new),
        rig.cloud.repository.assignment("d1", 0 + 1, hours=0.000001, default=rig.new),
    ):
        rig.cloud.give(sealed)
        rig.clock.advance(1.0)
        rig.updater.ask_soon()
        rig.go(3)
        assert rig.record.state is UpdateState.CONFIRMED
        assert rig.updater.error
    rig.cloud.assign(counter=1, default=rig.new)  # an old one is no new one
    rig.cloud.counter = 2
    rig.cloud.assign(counter=3, default=rig.old)
    rig.go()
    rig.cloud.assign(counter=2, default=rig.new)
    rig.go(3)
    assert "is older than 3" in rig.updater.error
    assert rig.gate.calls == []


def test_what_is_confirmed_and_damaged_is_mended_without_a_second_trial(rig: Rig) -> None:
    path = Store(rig.state).path(rig.old.sha256) / "model.bin"
    path.chmod(0o644)
    path.write_bytes(b"rot")
    with pytest.raises(slots.SafeModeError):
        slots.active(rig.state)
    rig.restart()
    rig.go()
    assert slots.active(rig.state) == path.parent
    assert rig.record.state is UpdateState.CONFIRMED
    assert [name for name, _ in rig.gate.calls] == ["revert"]


def test_an_assignment_ends_the_safe_mode_of_damaged_records(rig: Rig) -> None:
    for name in records.NAMES:
        (records.folder_of(rig.state, "default") / name).write_bytes(b"torn")
    rig.restart()
    rig.cloud.assign(default=rig.new)
    rig.go()
    assert rig.record.confirmed
    assert rig.record.confirmed.sha256 == rig.new.sha256


def test_a_download_that_is_no_longer_wanted_ends(rig: Rig) -> None:
    big = rig.cloud.release("models/line/7.tar", "x" * 5_000_000, index=7)
    rig.cloud.assign(default=big)
    rig.cloud.poll_after_s = 1.0
    asked = []

    def slow(path: str, at: int) -> bool:
        rig.clock.advance(0.1)
        return False

    rig.cloud.fetcher.cut = slow
    rig.updater.ask_soon()

    def change() -> None:
        asked.append(rig.told.fetched_bytes if rig.told.state is UpdateState.DOWNLOADING else 0)
        if asked[-1]:
            rig.cloud.assign()

    rig.cloud.on_ask = change
    rig.go()
    assert rig.record.state is UpdateState.IDLE
    assert 0 < max(asked) < 5_000_000


def test_two_slot_sets_go_their_own_ways(rig: Rig) -> None:
    rig.cloud.assign(default=rig.old, recipe_7=rig.new)
    rig.go()
    assert slots.read(rig.state, "recipe-7").state is UpdateState.CONFIRMED
    assert rig.record.confirmed
    assert rig.record.confirmed.sha256 == rig.old.sha256
    assert set(rig.cloud.told[-1].slots) == {"default", "recipe-7"}


class OutsideGate(FakeGate):
    """Started by a launcher: `started` is what the process of this updater belongs to."""

    started = ""

    def runs(self, candidate: Candidate) -> bool:
        return self.started == candidate.sha256


def spend(rig: Rig) -> None:
    """As the launcher does before a start."""
    record = rig.record
    assert record.job
    records.write(rig.state, "default", replace(record, job=replace(record.job, tries_left=record.job.tries_left - 1)))


def test_what_a_launcher_starts_has_its_tries_spent_by_the_launcher(rig: Rig) -> None:
    gate = rig.gate = OutsideGate(trials=[None])
    rig.cloud.assign(default=rig.new)
    rig.go()
    record = rig.record
    assert record.job
    assert (record.state, record.job.tries_left) == (UpdateState.TRIAL, states.TRIES)
    for left in range(states.TRIES - 1, -1, -1):  # killed in each try; the last one is good
        spend(rig)
        gate.started = rig.new.sha256
        rig.restart()
        rig.go(3)
        assert rig.record.job
        assert (rig.record.state, rig.record.job.tries_left) == (UpdateState.TRIAL, left)
        assert rig.told.running == rig.new.sha256
    gate._trials.clear()
    gate._trials.append(PASS)
    rig.go(3)
    assert rig.record.state is UpdateState.CONFIRMED
    assert gate.calls.count(("begin", rig.new.sha256)) == 1
