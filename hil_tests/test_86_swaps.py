"""Models swapped on a running line by the gate of the updater: a good one is kept, a bad one undone, wherever it goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.decide import swap_socket
from edge_runtime.decide.trial_settings import TrialSection
from edge_runtime.update.gate import Candidate
from hil_tests.bench import Stood
from tools.bench.swapping import SwapLine, candidate_of, variant
from tools.demo.main import DEFAULT_BUNDLE

#: wide limits of time: what is tested is what happens, on a machine that may be busy
SECTION = TrialSection(parts=20, soak_s=1.0, min_agreement=0.7, slow_ratio=20.0, deadline_share=1.0, hang_ms=400)
PARTS_PER_S, DEADLINE_MS = 10.0, 200.0


@pytest.fixture
def stood() -> Iterator[Stood]:
    with Stood() as one:
        yield one


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SwapLine]:
    monkeypatch.setenv("GUDGEON_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GUDGEON_FAULT_FILE", "")
    line = SwapLine(tmp_path, DEFAULT_BUNDLE, PARTS_PER_S, SECTION, DEADLINE_MS)
    try:
        line.start()
        yield line
    finally:
        line.stop()


def running(line: SwapLine) -> str:
    return str(swap_socket.ask(line.socket, {"do": "status"}, 20.0)["running"]["default"])


def slips_through(line: SwapLine, folder: Path, fault: str) -> tuple[Candidate, str]:
    """A model that begins to go wrong when it was promoted; what the trial says of it."""
    found = candidate_of(variant(DEFAULT_BUNDLE, folder / fault, fault, fault=fault, where="control"))
    verdict = line.check(found)
    assert verdict.ok, verdict.reason
    line.gate.begin(found)
    line.fault_file.touch()
    verdict = line.trial(found)
    line.fault_file.unlink()
    assert not verdict.ok
    return found, verdict.reason


def answered_after(line: SwapLine, digest: str) -> None:
    """The line goes on with this model."""

    def judged() -> bool:
        decisions = line.events("decision")
        return str(decisions[-1]["body"]["bundle_digest"]) == digest

    line.wait("answers by the model before", judged)
    count = len(line.parts())
    line.wait("more answers", lambda: sum(part["answered"] for part in line.parts()[count:]) > 5)


def too_many_missed(line: SwapLine, stood: Stood, most: int = 3) -> bool:
    """A machine that stands still lets triggers pass; a swap or a way back that costs parts costs more than these."""
    return sum(not part["answered"] for part in line.parts()) > most + 2 * PARTS_PER_S * stood.seconds


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_good_one_is_kept_and_no_part_is_left_unanswered(line: SwapLine, stood: Stood, tmp_path: Path) -> None:
    good = candidate_of(variant(DEFAULT_BUNDLE, tmp_path / "good", "good"))
    verdict = line.check(good)
    assert verdict.ok, verdict.reason
    assert verdict.measured["agreement"] == 1.0
    line.gate.begin(good)
    assert line.trial(good).ok
    assert running(line) == good.digest
    assert line.confirmed is not None
    line.gate.revert(candidate_of(line.confirmed))
    assert running(line) == candidate_of(line.confirmed).digest
    answered_after(line, candidate_of(line.confirmed).digest)
    assert not too_many_missed(line, stood)
    assert [e["kind"] for e in line.events("health") if e["kind"].startswith("model_k")] == ["model_kept"]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        pytest.param("crash", "crashed: RuntimeError", marks=pytest.mark.proof),
        ("nan", "not finite"),
        pytest.param("disagree", "asked: disagrees", marks=pytest.mark.proof),
        pytest.param(
            "segv", "control did not come through the trial: it ended with signal SIGSEGV", marks=pytest.mark.proof
        ),
        ("hang", "control did not come through the trial: the engine hung"),
    ],
)
def test_a_bad_one_that_slips_through_is_undone(
    line: SwapLine, stood: Stood, tmp_path: Path, fault: str, told: str
) -> None:
    assert line.confirmed is not None
    before = candidate_of(line.confirmed).digest
    bad, reason = slips_through(line, tmp_path, fault)
    assert reason.startswith(told), reason
    assert running(line) == before
    answered_after(line, before)
    bodies = [e["body"] for e in line.events("fault") if e["kind"] == "model_rolled_back"]
    assert [(b["bundle_digest"], b["to"]) for b in bodies] == [(bad.digest, before)]
    if fault in ("crash", "nan", "disagree"):
        assert not too_many_missed(line, stood)
