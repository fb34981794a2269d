from pathlib import Path

import pytest

from edge_runtime.errors import EndpointError
from edge_runtime.update.gate import PASS, Candidate, FakeGate, Gate, Verdict

CANDIDATE = Candidate("default", Path("store/aa"), "d" * 64, "a" * 64)
OLD = Candidate("default", Path("store/bb"), "e" * 64, "b" * 64)


def test_a_fake_gate_gives_its_answers_in_turn_and_tells_what_runs() -> None:
    gate = FakeGate(trials=[None, None, Verdict(False, "p99 of 31 ms", {"p99_ms": 31.0})])
    seam: Gate = gate
    assert seam.check(CANDIDATE) == PASS
    seam.begin(CANDIDATE)
    assert gate.running == CANDIDATE.sha256
    answers = [seam.trial(CANDIDATE) for _ in range(4)]
    assert answers[:2] == [None, None]
    assert answers[2] == answers[3]
    seam.revert(OLD)
    assert gate.running == OLD.sha256
    assert [name for name, _ in gate.calls] == ["check", "begin", "trial", "trial", "trial", "trial", "revert"]


def test_a_fake_gate_fails_as_often_as_it_is_told_to() -> None:
    gate = FakeGate()
    gate.fails.append(EndpointError("control is away"))
    with pytest.raises(EndpointError):
        gate.begin(CANDIDATE)
    assert gate.running == ""
    gate.begin(CANDIDATE)
    assert gate.running == CANDIDATE.sha256
