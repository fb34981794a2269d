"""Swapping models on a line in memory: exchanged between two parts, undone before the next one, told as Events."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime import datagrams
from edge_runtime.clock import FakeClock
from edge_runtime.decide import engine_watch
from edge_runtime.decide.engine_watch import EngineWatch
from edge_runtime.decide.frames import FramePlace
from edge_runtime.decide.models import Models
from edge_runtime.decide.swap import TABLE, Swap, SwapInput, SwapState
from edge_runtime.decide.swap_socket import SwapSocket
from edge_runtime.decide.tests.plant import Plant, model
from edge_runtime.decide.trial import FAULT_PARTS, LATE_PARTS, PACE_LEAST, SLOW_PARTS, Trial
from edge_runtime.decide.trial_files import READY, TRIAL, WANT, TrialFiles
from edge_runtime.decide.trial_settings import TrialSection
from edge_runtime.infer.model import Looked, Model
from edge_runtime.infer.post import Judgement
from edge_runtime.machine import step
from edge_runtime.tests.bundles import make_bundle
from edge_runtime.tests.waiting import PATIENCE_S, until

PASS, REJECT = 1, 2
DEADLINE_MS = 20.0


class Wrong(Model):
    """A model that does what `act` does before it looks, or in its place."""

    act: Callable[[], Looked | None] = staticmethod(lambda: None)

    def look(self, *args: Any, **more: Any) -> Looked:
        return self.act() or super().look(*args, **more)


class Bench:
    """A plant whose models can be swapped; `load` gives what `wrong` was made of."""

    def __init__(self, folder: Path) -> None:
        make_bundle(folder / "old")
        make_bundle(folder / "new", seed=1)
        (folder / "run").mkdir()
        (folder / "run" / READY).touch()
        self.folder = folder
        self.old = model(folder / "old", folder)
        found = model(folder / "new", folder)
        self.new = Wrong(found.manifest, found.digest, found.engine)
        self.swap = self.make_swap()
        self.plant = Plant(folder, self.swap, jobs=(self.swap.seen,))
        self._seq = 0
        self.asked = datagrams.bound(folder / "asker.sock")
        self.asked.settimeout(PATIENCE_S)

    def make_swap(self, lost: str = "") -> Swap:
        return Swap(
            Models(self.old, {}),
            SwapSocket(self.folder / "swap.sock"),
            lambda path: self.new,
            EngineWatch(self.folder / "watch", lambda: 7),
            TrialFiles(self.folder / "run", "boot"),
            TrialSection(),
            DEADLINE_MS,
            FakeClock(),
            lost,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        self.asked.sendto(json.dumps(request).encode(), str(self.folder / "swap.sock"))
        self.plant.turns(200)
        answer: dict[str, Any] = json.loads(self.asked.recv(1 << 16))
        return answer

    def begin(self, trial: bool = True) -> None:
        """The new one runs."""
        where = {"slot_set": "default", "path": str(self.folder / "new"), "digest": self.new.digest}
        assert self.ask(do="swap", trial=trial, **where)["reason"] == ""
        self.until(lambda: self.swap.models.default is self.new)

    def until(self, done: Callable[[], bool]) -> None:
        until(done, lambda: self.plant.turns(20))

    def part(self, defect: bool = False) -> int:
        self._seq += 1
        return self.plant.part(self._seq, defect)

    def judged_by(self) -> str:
        return str(self.plant.events("decision")[-1].body["bundle_digest"])

    def rolled_back(self) -> dict[str, Any]:
        self.plant.turns(200)
        body: dict[str, Any] = dict(next(e for e in self.plant.events("fault") if e.kind == "model_rolled_back").body)
        return body


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("GUDGEON_HOME", str(tmp_path / "home"))
    return Bench(tmp_path)


def looked(score: float = 0.1, took_us: int = 100) -> Looked:
    return Looked(Judgement(score, "ok", (1 - score, score), PASS, ""), "", {"infer": took_us})


def raising(error: Exception) -> Callable[[], Looked]:
    def act() -> Looked:
        raise error

    return act


def test_a_good_model_runs_from_one_part_to_the_next_and_is_kept(bench: Bench) -> None:
    assert bench.part() == PASS
    assert bench.judged_by() == bench.old.digest
    bench.begin()
    assert (bench.folder / "run" / TRIAL).exists()
    assert bench.part(defect=True) == REJECT
    assert bench.judged_by() == bench.new.digest
    status = bench.ask(do="status")
    assert (status["state"], status["parts"], status["digest"]) == ("trial", 1, bench.new.digest)
    assert bench.ask(do="keep", digest=bench.new.digest)["reason"] == ""
    bench.until(lambda: not any((bench.folder / "run" / name).exists() for name in (TRIAL, WANT)))
    assert bench.part() == PASS
    assert bench.judged_by() == bench.new.digest
    assert bench.ask(do="revert", digest=bench.new.digest, reason="late")["reason"] == "it is not on trial"
    assert [k for k in bench.plant.kinds("health") if k.startswith("model")] == ["model_swapped", "model_kept"]


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (raising(RuntimeError("the engine broke")), "crashed: RuntimeError: the engine broke"),
        (raising(MemoryError()), "crashed: MemoryError"),
        (lambda: Looked(Judgement(1.0, "", (), 3, ""), "", {"infer": 1}), "not finite"),
    ],
)
def test_no_usable_answer_the_model_before_answers_the_same_part(
    bench: Bench, act: Callable[[], Looked], reason: str
) -> None:
    bench.begin()
    assert bench.part() == PASS
    bench.new.act = act
    assert bench.part(defect=True) == REJECT
    assert bench.judged_by() == bench.old.digest
    told = bench.rolled_back()
    assert told["reason"].startswith(reason)
    assert (told["bundle_digest"], told["to"], told["parts"]) == (bench.new.digest, bench.old.digest, 1)
    status = bench.ask(do="status")
    assert status["state"] == "idle"
    assert status["ended"]["digest"] == bench.new.digest
    assert bench.part() == PASS


def test_a_slow_model_goes_back_after_some_parts_running(bench: Bench) -> None:
    for _ in range(PACE_LEAST):
        bench.part()
    bench.begin()
    bench.new.act = lambda: looked(took_us=10_000_000)
    assert bench.part() == PASS
    assert bench.part() == PASS
    assert bench.swap.models.default is bench.old
    assert bench.rolled_back()["reason"].startswith("late")


def test_answers_that_guard_refuses_take_it_back(bench: Bench) -> None:
    bench.begin()
    bench.new.act = lambda: looked(score=7.0)
    for _ in range(FAULT_PARTS):
        bench.part()
    bench.until(lambda: bench.swap.models.default is bench.old)
    assert bench.rolled_back()["reason"].startswith("faults")


def test_who_watches_may_ask_it_back(bench: Bench) -> None:
    bench.begin()
    assert bench.ask(do="revert", digest=bench.new.digest, reason="disagrees: 0 of 5")["reason"] == ""
    assert bench.swap.models.default is bench.old
    assert bench.rolled_back()["reason"] == "asked: disagrees: 0 of 5"


def test_a_model_that_cannot_be_loaded_changes_nothing(bench: Bench) -> None:
    where = {"slot_set": "default", "path": "elsewhere", "digest": "0" * 64}
    assert bench.ask(do="swap", trial=True, **where)["reason"] == ""
    bench.until(lambda: bench.ask(do="status")["state"] == "idle")
    assert "expected 000000000000" in bench.rolled_back()["reason"]
    assert bench.swap.models.default is bench.old


def test_without_a_spare_there_is_no_trial_and_no_blame(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (bench.folder / "run" / READY).unlink()
    monkeypatch.setattr(TrialFiles.ask_for_spare, "__defaults__", (0.0,))
    where = {"slot_set": "default", "path": str(bench.folder / "new"), "digest": bench.new.digest}
    bench.ask(do="swap", trial=True, **where)
    bench.until(lambda: bench.ask(do="status")["state"] == "idle")
    ended = bench.ask(do="status")["ended"]
    assert (ended["digest"], ended["blamed"]) == (bench.new.digest, False)
    assert "no spare process" in ended["reason"]
    assert "swap_failed" in bench.plant.kinds("fault")
    assert bench.swap.models.default is bench.old


def test_as_confirmed_there_is_no_trial(bench: Bench) -> None:
    bench.begin(trial=False)
    assert bench.ask(do="status")["state"] == "idle"
    assert not (bench.folder / "run" / WANT).exists()
    assert bench.part() == PASS
    assert bench.judged_by() == bench.new.digest
    bench.ask(do="clear", slot_set="default")
    assert bench.part() == 4, "nothing may judge"


def test_frames_go_to_who_watches_and_never_wait(bench: Bench) -> None:
    place = FramePlace(1 << 16)
    bench.ask(do="watch", path=str(place.path), size=place.size_bytes)
    bench.part(defect=True)
    header = json.loads(bench.asked.recv(1 << 16))
    assert (header["result"], header["digest"]) == (REJECT, bench.old.digest)
    assert np.array_equal(place.take(header), bench.plant.frames[1])  # type: ignore[arg-type]
    bench.part()  # it was not taken yet
    assert bench.ask(do="status")["frames_left_out"] == 1
    bench.asked.sendto(b'{"do": "taken"}', str(bench.folder / "swap.sock"))
    bench.plant.turns(200)
    bench.part()
    assert json.loads(bench.asked.recv(1 << 16))["part_seq"] == 3
    bench.asked.close()
    bench.part()
    assert bench.part() == PASS


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"[]",
        b"{",
        b'{"do": "swap"}',
        b'{"do": "watch", "path": "/nowhere", "size": 9}',
        b"\xff" * 3000,
        b'{"do": 1}',
    ],
)
def test_what_is_no_request_is_answered_so(bench: Bench, request_bytes: bytes) -> None:
    bench.asked.sendto(request_bytes, str(bench.folder / "swap.sock"))
    bench.plant.turns(200)
    answer = json.loads(bench.asked.recv(1 << 16))
    assert answer["reason"]
    assert bench.part() == PASS


def test_control_that_did_not_come_through_a_trial_says_so_once(bench: Bench) -> None:
    bench.begin()
    (bench.folder / "run" / READY).touch()
    after = bench.make_swap(lost="it ended with signal SIGSEGV")
    told = after.turn(0)
    assert told is not None
    assert told[0][:2] == ("fault", "model_rolled_back")
    assert told[0][2]["reason"] == "control did not come through the trial: it ended with signal SIGSEGV"
    assert after.models.default is bench.old
    assert bench.make_swap().turn(0) is None


def test_another_boot_is_no_failure_of_the_model(tmp_path: Path) -> None:
    TrialFiles(tmp_path, "boot 1").begin({"slot_set": "default", "digest": "d", "before": ""})
    assert TrialFiles(tmp_path, "boot 2").left_over() is None
    assert not (tmp_path / TRIAL).exists()


def test_an_engine_that_keeps_its_part_is_seen_from_outside(tmp_path: Path) -> None:
    path = tmp_path / "watch"
    watch = EngineWatch(path, lambda: 1_000_000_000)
    with watch:
        assert engine_watch.hung_s(path, 9_000_000_000) is None, "no trial"
        watch.limit(200)
    with watch:
        assert engine_watch.hung_s(path, 1_200_000_000) is None
        assert engine_watch.hung_s(path, 1_300_000_000) == pytest.approx(0.3)
    assert engine_watch.hung_s(path, 9_000_000_000) is None
    (tmp_path / "short").write_bytes(b"short")
    assert engine_watch.hung_s(tmp_path / "short", 9_000_000_000) is None
    assert engine_watch.hung_s(tmp_path / "missing", 9_000_000_000) is None


def test_what_is_slow_and_what_is_noise() -> None:
    trial = Trial(2.0, DEADLINE_MS, usual_us=100.0)
    for i in range(40):
        assert trial.looked(looked(took_us=201 if i % SLOW_PARTS else 199)) == ""
    reasons = [trial.looked(looked(took_us=201)) for _ in range(SLOW_PARTS)]
    assert [bool(r) for r in reasons][-1]
    late = [Trial(2.0, DEADLINE_MS, None).looked(looked(took_us=30_000)) for _ in range(3)]
    assert late == ["", "", ""], "one late part is noise"
    trial = Trial(2.0, DEADLINE_MS, None)
    assert [bool(trial.looked(looked(took_us=30_000))) for _ in range(LATE_PARTS)] == [False] * (LATE_PARTS - 1) + [
        True
    ]


def test_the_table_leads_from_idle_to_idle() -> None:
    for state in SwapState:
        seen, edge = {state}, [state]
        while edge:
            here = edge.pop()
            edge += [after for event in SwapInput if (after := step(TABLE, here, event)) not in seen]
            seen.update(edge)
        assert SwapState.IDLE in seen


def test_parts_leave_no_garbage_behind(bench: Bench) -> None:
    """`control` runs with the collector off: a cycle a part would fill the memory within days."""
    for on_trial in (False, True):
        if on_trial:
            bench.begin()
        bench.part()
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                bench.part()
            assert gc.collect() < 20
        finally:
            gc.enable()
