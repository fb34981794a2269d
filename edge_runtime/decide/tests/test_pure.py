"""Guard, rules, parts and health: tables and properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime import health
from edge_runtime.decide.decision import Health, Result
from edge_runtime.decide.guard import Answer, check
from edge_runtime.decide.parts import PartTracker
from edge_runtime.decide.rules import Findings, rule
from edge_runtime.infer.post import Judgement
from edge_runtime.wire.manifest import GuardLimits

LIMITS = GuardLimits(max_answer_age_ms=100, max_answers_per_s=10, run_states=(6,))
NOW_NS = 10_000_000_000
GOOD = Judgement(0.1, "ok", (0.9, 0.1), 1, "fine")


@pytest.mark.parametrize(
    ("seq", "score", "age_ms", "state", "recent", "veto", "written"),
    [
        (1, 0.2, 5, 6, 0, "", Result.PASS),
        (1, None, 5, 6, 0, "", Result.PASS),
        (1, 0.2, 5, 0, 0, "", Result.PASS),
        (1, 0.2, 100, 6, 0, "", Result.PASS),
        (1, 0.2, 101, 6, 0, "staleness", Result.FAULT),
        (1, 0.2, 5, 11, 0, "interlock", Result.FAULT),
        (1, 1.2, 5, 6, 0, "range", Result.FAULT),
        (0, 0.2, 5, 6, 0, "range", Result.FAULT),
        (1, float("nan"), 5, 6, 0, "range", Result.FAULT),
        (1, 0.2, 5, 6, 9, "", Result.PASS),
        (1, 0.2, 5, 6, 10, "rate", None),
    ],
)
def test_guard_table(
    seq: int, score: float | None, age_ms: int, state: int, recent: int, veto: str, written: Result | None
) -> None:
    answer = Answer(seq, Result.PASS, score, NOW_NS - age_ms * 1_000_000)
    verdict = check(answer, LIMITS, state, [NOW_NS - 1] * recent, NOW_NS)
    assert (verdict.veto, verdict.result) == (veto, written)
    assert bool(verdict.reason) == bool(veto)


@given(
    st.sampled_from(list(Result)),
    st.floats(allow_nan=True) | st.none(),
    st.integers(-5, 70_000),
    st.integers(0, 20),
    st.integers(0, 400),
    st.integers(0, 20),
)
def test_guard_never_turns_an_answer_into_pass_or_reject(
    result: Result, score: float | None, seq: int, state: int, age_ms: int, recent: int
) -> None:
    answer = Answer(seq, result, score, NOW_NS - age_ms * 1_000_000)
    written = check(answer, LIMITS, state, [NOW_NS] * recent, NOW_NS).result
    assert written in (result, Result.FAULT, None)


@pytest.mark.parametrize(
    ("found", "result", "fault"),
    [
        (Findings(judgement=GOOD), Result.PASS, ""),
        (Findings(camera_error="gone", judgement=GOOD), Result.FAULT, "camera_lost"),
        (Findings(frame_missing="late"), Result.FAULT, "frame_missing"),
        (Findings(frame_problem="black"), Result.REVIEW, "frame_black"),
        (Findings(model_error="engine broke"), Result.FAULT, "no_model"),
        (Findings(), Result.FAULT, "no_model"),
        (Findings(judgement=GOOD, late_step="infer"), Result.FAULT, "deadline_missed"),
    ],
)
def test_rules_table(found: Findings, result: Result, fault: str) -> None:
    ruling = rule(found)
    assert (ruling.result, ruling.fault) == (result, fault)
    assert ruling.reason


@given(st.lists(st.integers(0, 65535), max_size=60))
def test_a_part_number_never_repeats(readings: list[int]) -> None:
    tracker, seen = PartTracker(), []
    for seq in readings:
        tracker, part = tracker.see(seq)
        if part:
            seen.append((part.epoch, part.seq))
            assert part.seq == seq != 0
            assert part.missed >= 0
    assert seen == sorted(set(seen))


def test_a_full_turn_of_the_counter_misses_nothing() -> None:
    tracker, total = PartTracker(), 0
    for seq in [*range(1, 65536), *range(1, 100)]:
        tracker, part = tracker.see(seq)
        assert part is not None
        assert (part.missed, part.reset) == (0, False)
        total += 1
    assert (total, tracker) == (65634, PartTracker(2, 99))


def test_health_walks_its_table() -> None:
    for state in Health:
        for conditions, expected in ((set(), Health.NOMINAL), ({"camera"}, Health.DEGRADED), ({"model"}, Health.SAFE)):
            assert health.after(state, conditions) is expected
    assert health.after(Health.NOMINAL, {"camera", "model"}) is Health.SAFE
    with pytest.raises(KeyError):
        health.after(Health.NOMINAL, {"weather"})
