"""The gate of a line: the real process that tries candidates, against a `control` by hand that answers and shows frames."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.config import load_device
from edge_runtime.decide import swap_socket
from edge_runtime.decide.decision import Decision, Result
from edge_runtime.decide.frames import FrameBox
from edge_runtime.decide.models import Seen
from edge_runtime.decide.swap import NOTHING_ENDED
from edge_runtime.decide.trial_settings import TrialSection
from edge_runtime.errors import EndpointError
from edge_runtime.field.camera import Frame
from edge_runtime.tests.bundles import make_bundle, make_frame
from edge_runtime.tests.waiting import until
from edge_runtime.update.gate import Candidate
from edge_runtime.update.gates import Gates
from edge_runtime.update.trial.judge import Judge, Order
from edge_runtime.update.trial.line_gate import LineGate
from edge_runtime.wire import manifest as wire

PASS, REJECT = 1, 2
SECTION = TrialSection(parts=10, most_parts=40, min_agreement=0.6, timeout_s=120.0, soak_s=0.0)


def candidate(folder: Path) -> Candidate:
    digest = wire.digest((folder / wire.MANIFEST).read_bytes())
    return Candidate("default", folder, digest, digest)


class Control(threading.Thread):
    """As `decide.swap` speaks, with a result for each frame as `decided` says."""

    def __init__(self, state_dir: Path, digest: str) -> None:
        super().__init__(daemon=True)
        self._socket = swap_socket.SwapSocket(state_dir / swap_socket.SOCKET_PATH)
        self._box: FrameBox | None = None
        self._to, self._seq = "", 0
        self.running, self.state, self.ended = digest, "idle", dict(NOTHING_ENDED)
        self.on_trial, self.parts, self.asked_back = "", 0, ""
        self.shows, self.decided = True, {True: REJECT, False: PASS}
        self.no_spare = False
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.wait(0.002):
            while received := self._socket.receive():
                self._answer(*received)
            self.parts += 1
            if self._box is not None and self.shows:
                self._show(self._box)

    def _show(self, box: FrameBox) -> None:
        self._seq += 1
        defect = self._seq % 2 == 0
        result = Result(self.decided[defect])
        decision = Decision(self._seq, 1, result, 0.5, "", "", self.running, "", "", None, 0)
        header = box.put(Seen(decision, Frame(self._seq, 0, make_frame(defect, self._seq))))
        if header is not None:
            self._socket.send(self._to, header)

    def _answer(self, request: Mapping[str, Any], sender: str) -> None:
        what = request.get("do")
        if what == "taken" and self._box is not None:
            self._box.taken()
            return
        if what == "watch" and self._box is None:
            self._box, self._to = FrameBox(Path(request["path"]), request["size"]), sender
        if what == "swap" and self.no_spare:
            self.ended = {"digest": request["digest"], "reason": "not loaded: no spare", "blamed": False}
        elif what == "swap" and self.running != request["digest"]:
            self.before, self.running, self.parts = self.running, request["digest"], 0
            self.state, self.on_trial = ("trial", self.running) if request["trial"] else ("idle", "")
        if what == "revert" and self.state == "trial":
            self.ended = {"digest": self.running, "reason": f"asked: {request['reason']}", "blamed": True}
            self.running, self.state, self.on_trial = self.before, "idle", ""
        if what == "keep":
            self.state, self.on_trial = "idle", ""
        status: dict[str, Any] = {
            "reason": "",
            "running": {"default": self.running},
            "state": self.state,
            "ended": self.ended,
        }
        if self.on_trial:
            status |= {"digest": self.on_trial, "parts": self.parts, "trial_s": 1.0, "p99_us": 500}
        self._socket.send(sender, status)


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder, self.state_dir = folder, folder / "state"
        (self.state_dir / "run").mkdir(parents=True)
        make_bundle(folder / "old")
        self.control = Control(self.state_dir, candidate(folder / "old").digest)
        self.control.start()

    def gate(self, section: TrialSection = SECTION, running: bool = True) -> LineGate:
        # The bundles of tests take microseconds, so that a share of them is noise: nothing here is too slow.
        section = TrialSection(**{**vars(section), "slow_ratio": 1000.0, "deadline_share": 1.0})
        return LineGate(
            self.state_dir, "onnxruntime", 10_000.0, section, lambda _: self.folder / "old" if running else None
        )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("GUDGEON_HOME", str(tmp_path / "home"))
    place = Place(tmp_path)
    yield place
    place.control.stopping.set()
    place.control.join()


def verdict_of(gate: LineGate, found: Candidate) -> Any:
    return until(lambda: gate.trial(found))


def test_a_good_candidate_passes_and_is_kept(place: Place) -> None:
    good, gate = candidate(make_bundle(place.folder / "good", seed=1)), place.gate()
    verdict = gate.check(good)
    assert verdict.ok, verdict.reason
    assert verdict.measured["agreement"] == 1.0
    assert verdict.measured["parts"] >= SECTION.parts
    assert 0.0 < verdict.measured["p50_ms"] <= verdict.measured["p99_ms"]
    assert place.control.running != good.digest
    gate.begin(good)
    gate.begin(good)
    verdict = verdict_of(gate, good)
    assert verdict.ok
    assert verdict.measured["trial_agreement"] == 1.0
    assert len(verdict.measured) <= 32
    assert (place.control.running, place.control.state) == (good.digest, "idle")
    assert gate.trial(good).ok, "asked again after a crash"  # type: ignore[union-attr]
    gate.revert(candidate(place.folder / "old"))
    assert place.control.running == candidate(place.folder / "old").digest


def test_one_that_decides_otherwise_never_runs(place: Place) -> None:
    strict = candidate(make_bundle(place.folder / "strict", seed=2, reject=0.0, review=0.0))
    verdict = place.gate().check(strict)
    assert not verdict.ok
    assert verdict.reason.startswith("it decides otherwise than what runs: ")
    assert place.control.running != strict.digest


def test_one_that_is_meant_to_decide_otherwise_says_so_in_its_manifest(place: Place) -> None:
    meant = make_bundle(place.folder / "meant", seed=2, reject=0.0, review=0.0, trial=wire.TrialSpec(min_agreement=0.0))
    assert place.gate().check(candidate(meant)).ok


def test_agreement_that_collapses_on_trial_is_undone_by_the_process_that_tries(place: Place) -> None:
    good, gate = candidate(make_bundle(place.folder / "good", seed=1)), place.gate()
    assert gate.check(good).ok
    place.control.decided = {True: PASS, False: REJECT}
    gate.begin(good)
    verdict = verdict_of(gate, good)
    assert not verdict.ok
    assert verdict.reason.startswith("asked: disagrees: ")
    assert place.control.running == candidate(place.folder / "old").digest


def test_a_line_that_stands_still_is_nobodys_fault(place: Place) -> None:
    place.control.shows = False
    gate = place.gate(TrialSection(**{**vars(SECTION), "timeout_s": 0.1}))
    with pytest.raises(EndpointError, match="does the line run"):
        gate.check(candidate(make_bundle(place.folder / "good", seed=1)))


def test_the_first_one_has_nothing_to_agree_with(place: Place) -> None:
    place.control.running = ""
    gate, first = place.gate(running=False), candidate(place.folder / "old")
    assert gate.check(first).ok
    gate.begin(first)
    assert verdict_of(gate, first).ok


def test_a_broken_bundle_is_refused_offline(place: Place) -> None:
    broken = make_bundle(place.folder / "broken", seed=3, tampered="weights")
    verdict = place.gate().check(candidate(broken))
    assert not verdict.ok
    assert "corrupt" in verdict.reason


def test_without_a_spare_nobody_is_blamed(place: Place) -> None:
    good, gate = candidate(make_bundle(place.folder / "good", seed=1)), place.gate()
    place.control.no_spare = True
    for _ in range(2):
        with pytest.raises(EndpointError, match="no spare; it is tried again later"):
            gate.begin(good)
    place.control.no_spare, place.control.ended = False, dict(NOTHING_ENDED)
    gate.begin(good)
    assert place.control.running == good.digest
    gate.revert(candidate(place.folder / "old"))


def test_no_control_is_asked_again(tmp_path: Path) -> None:
    gate = LineGate(tmp_path, "auto", 20.0, SECTION, lambda _: None)
    with pytest.raises(EndpointError, match="no answer from the process control"):
        gate.check(Candidate("default", tmp_path, "d", "s"))


SAYS = """
import json, os, signal, sys
order = json.loads(sys.argv[1])
print(json.dumps({"phase": "golden", "measured": {"p50_ms": 1.0}}), flush=True)
exec(order["candidate"])
"""


@pytest.mark.parametrize(
    ("does", "own", "text"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", True, "SIGSEGV in phase golden"),
        ("os.kill(os.getpid(), signal.SIGKILL)", False, "SIGKILL in phase golden"),
        ("sys.exit(4)", False, "exit code 4"),
        ("sys.exit(1)", True, "exit code 1"),
    ],
)
def test_how_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, own: bool, text: str) -> None:
    (tmp_path / "says.py").write_text(SAYS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    order = Order("", does, "", "auto", True, 20.0, 2.0, 0.5, 0.9, 1, 1, 256)
    judge = Judge(order, "says")
    assert judge.listen(60) == {"phase": "golden", "measured": {"p50_ms": 1.0}}
    assert judge.listen(60) is None
    assert judge.ending()[0] is own
    assert text in judge.ending()[1]
    judge.stop()


@pytest.mark.parametrize("line", ["nonsense", '{"phase": "live"}', "[]", '{"phase": 1, "measured": {"a": "b"}}'])
def test_words_that_are_not_understood_are_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    (tmp_path / "says.py").write_text(f"print({line!r}, flush=True)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    judge = Judge(Order("", "", "", "auto", True, 20.0, 2.0, 0.5, 0.9, 1, 1, 256), "says")
    word = judge.listen(60)
    assert word is not None
    assert word["ok"] is False
    judge.stop()


def test_which_slot_sets_have_this_gate(tmp_path: Path) -> None:
    (tmp_path / "device.toml").write_text(
        '[device]\nid = "d"\nstate_dir = "state"\n[bundle.recipes]\n7 = "strict"\n[trial]\nparts = 20\n'
    )
    gates = Gates(load_device(tmp_path / "device.toml"), tmp_path / "device.toml")
    assert isinstance(gates("default"), LineGate)
    assert isinstance(gates("recipe-7"), LineGate)
    assert gates("default") is gates("default")
    assert gates("recipe-8") is None


def test_the_updater_loads_no_engine() -> None:
    code = "import sys, edge_runtime.update.gates; sys.exit('numpy' in sys.modules or 'onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
