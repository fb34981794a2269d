from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from firmware_sim.part import Part, Truth
from firmware_sim.score import Score, histogram, latency_summary, quantile


def part(bad: bool, result: int | None, latency_ms: float = 2.0, fault: str | None = None) -> Part:
    p = Part(0, 1, 1, 1, 1, Truth("crack" if bad else "free", bad), 0, 0, fault)
    if result is not None:
        p.answer(result, 5, round(latency_ms * 1e6))
    return p


def test_rates() -> None:
    score = Score()
    for p in (
        part(True, 2),
        part(True, 3),
        part(True, 1),
        part(True, None),
        part(False, 1),
        part(False, 1),
        part(False, 2),
        part(False, 4, 500.0),
        part(True, 1, fault="black"),
        part(False, 3, fault="blurred+no_answer"),
    ):
        score.settle(p)
    s = score.summary()
    assert (s["parts"], s["answered"], s["unanswered"], s["faults"], s["reviews"]) == (10, 9, 1, 1, 2)
    assert (s["recall"], s["escape"], s["overkill"]) == (3 / 5, 2 / 5, 3 / 5)
    assert (s["recall_clean"], s["escape_clean"], s["overkill_clean"]) == (3 / 4, 1 / 4, 2 / 4)
    assert s["trigger_to_answer_ms"]["n"] == 8
    assert s["trigger_to_answer_ms"]["max"] == 2.0
    assert s["faults_injected"] == {"black": 1, "blurred": 1, "no_answer": 1}


def test_nothing_to_divide_by_is_none_not_zero() -> None:
    s = Score().summary()
    assert s["recall"] is s["overkill"] is s["escape_clean"] is s["trigger_to_answer_ms"]["p99"] is None


def test_exactly_20_ms_is_not_late() -> None:
    assert latency_summary([1.0, 20.0, 20.0001])["late_20ms"] == 1


@given(st.lists(st.floats(0, 1000), max_size=200))
def test_the_histogram_holds_every_value_once(values: list[float]) -> None:
    rows = histogram(sorted(values))
    assert sum(int(r["count"] or 0) for r in rows) == len(values)
    for row, below in zip(rows, [None, *rows], strict=False):
        low = -math.inf if below is None else float(below["le_ms"] or math.inf)
        high = math.inf if row["le_ms"] is None else float(row["le_ms"])
        assert row["count"] == sum(low < v <= high for v in values)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=200), st.sampled_from([0.5, 0.99, 0.999]))
def test_a_quantile_is_a_value_that_occurred(values: list[float], share: float) -> None:
    found = quantile(sorted(values), share)
    assert found is not None
    assert sum(v <= found for v in values) >= share * len(values) - 1e-9
    assert sum(v < found for v in values) < share * len(values) + 1e-9
