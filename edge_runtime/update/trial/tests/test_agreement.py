"""Agreement: Wilson's interval against published figures, and verdicts that come as early as they can be sure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.update.trial.agreement import Agreement, wilson


@pytest.mark.parametrize(
    ("agreed", "parts", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (29, 29, 0.8830, 1.0)],
)
def test_the_interval_is_newcombes(agreed: int, parts: int, low: float, high: float) -> None:
    """Newcombe (1998), table I, method 3, and its mirror image."""
    assert wilson(agreed, parts) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 500), st.integers(0, 500))
def test_the_interval_holds_the_share(agreed: int, others: int) -> None:
    low, high = wilson(agreed, agreed + others)
    assert 0.0 <= low <= high <= 1.0
    if agreed + others:
        assert low - 1e-12 <= agreed / (agreed + others) <= high + 1e-12


def after(least: float, *results: tuple[int, int], parts: int = 20, most: int = 100) -> Agreement:
    agreement = Agreement(least, parts, most)
    for result, other in results:
        agreement.add(result, 0.25, other, 0.75)
    return agreement


def test_it_disagrees_at_once_and_agrees_after_enough_parts() -> None:
    assert after(0.9).verdict is None
    assert after(0.9, (1, 2), (1, 2)).verdict is False
    assert after(0.9, *[(1, 1)] * 19).verdict is None, "fewer than asked for"
    assert after(0.9, *[(1, 1)] * 34).verdict is None, "not yet sure"
    assert after(0.9, *[(1, 1)] * 35).verdict is True
    assert after(0.9, *[(1, 1)] * 91, *[(1, 2)] * 9).verdict is True, "the share itself, when there are no more parts"
    assert after(0.9, *[(1, 1)] * 89, *[(1, 2)] * 11).verdict is False


def test_a_few_parts_alone_refuse_nothing_where_so_many_are_wanted() -> None:
    agreement = Agreement(0.9, 50, 1000, refuse_from=20)
    for _ in range(19):
        agreement.add(1, None, 2, None)
        assert agreement.verdict is None
    agreement.add(1, None, 2, None)
    assert agreement.verdict is False


def test_none_asked_for_is_none_needed() -> None:
    assert after(0.0, *[(1, 2)] * 20).verdict is True


def test_what_was_measured() -> None:
    measured = after(0.5, (1, 1), (1, 2)).measured
    assert (measured["parts"], measured["agreed"], measured["agreement"]) == (2, 1, 0.5)
    assert measured["score_difference_mean"] == measured["score_difference_max"] == 0.5
