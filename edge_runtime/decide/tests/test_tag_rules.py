"""Rules over tags: every kind with its hysteresis, what is unknown, and samples that must not count."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from edge_runtime.decide.tag_rules import Finding, Rule, TagRules
from edge_runtime.field.tag import Quality, Sample

S = 1_000_000_000


def sample(tag: str, at_s: float, value: float | None, quality: Quality = Quality.GOOD) -> Sample:
    return Sample(tag, value, quality, round(at_s * S), 0)


def outcomes(rule: Rule, values: Sequence[tuple[float, float]], ask: list[float]) -> list[bool | None]:
    rules, found, left = TagRules([rule], 0), [], list(values)
    for at in ask:
        while left and left[0][0] <= at:
            rules.add(sample("t", *left.pop(0)), round(at * S))
        found.append(rules.look(round(at * S))[0].on)
    return found


def test_above_and_below_with_hysteresis() -> None:
    high = Rule("r", "above", "t", 10, hysteresis=2)
    values = [(0, 9.0), (1, 10.5), (2, 9.0), (3, 7.9), (4, 9.0)]
    assert outcomes(high, values, [0, 1, 2, 3, 4]) == [False, True, True, False, False]
    low = Rule("r", "below", "t", 10, hysteresis=2)
    assert outcomes(low, [(0, 9.0), (1, 11.0), (2, 12.1)], [0, 1, 2]) == [True, True, False]


def test_a_value_that_is_not_fresh_is_unknown() -> None:
    assert outcomes(Rule("r", "above", "t", 10, fresh_s=5), [(0, 11.0)], [0, 5, 5.1]) == [True, True, None]
    assert outcomes(Rule("r", "above", "t", 10), [], [0]) == [None]


def test_slopes_need_half_of_their_window() -> None:
    rise = Rule("r", "rise", "t", 0.5, window_s=10)
    up = [(float(i), float(i)) for i in range(20)]
    assert outcomes(rise, up, [3, 5, 10]) == [None, True, True]
    fall = Rule("r", "fall", "t", 0.5, window_s=10, hysteresis=0.2)
    down = [(float(i), -0.6 * i) for i in range(10)] + [(float(i), -5.4 - 0.4 * (i - 9)) for i in range(10, 30)]
    assert outcomes(fall, down, [9, 25]) == [True, True]  # 0.4 a second is within the hysteresis
    assert outcomes(fall, up, [10]) == [False]


def test_silence_is_never_unknown() -> None:
    rule = Rule("r", "stale", "t", 5)
    assert outcomes(rule, [(7, 1.0)], [5, 5.1, 7, 12.1]) == [False, True, False, True]


def test_votes_count_what_is_unknown_as_what_it_is() -> None:
    parts = [Rule(n, "above", n, 0, silent=True, fresh_s=10) for n in "abc"]
    rules = TagRules([*parts, Rule("v", "vote", of=("a", "b", "c"), k=2)], 0)

    def vote(**values: float) -> Finding:
        for tag, value in values.items():
            rules.add(sample(tag, vote.at, value), round(vote.at * S))  # type: ignore[attr-defined]
        vote.at += 20  # type: ignore[attr-defined]
        return rules.look(round((vote.at - 20) * S))[-1]  # type: ignore[attr-defined]

    vote.at = 0  # type: ignore[attr-defined]
    assert vote(a=1, b=1).on is True
    assert vote(a=1, b=-1).on is None  # c could decide it
    assert vote(a=-1, b=-1).on is False
    assert vote(a=1, b=-1, c=1).reason == "2 of 3 hold: a, c; needs 2"


@pytest.mark.parametrize(
    "odd",
    [
        sample("t", 5, math.nan),
        sample("t", 5, math.inf),
        sample("t", 5, 99.0, Quality.UNCERTAIN),
        sample("t", 5, None, Quality.BAD),
        sample("t", 1, 99.0),  # out of order
        sample("t", 2, 99.0),  # the same time again
        sample("t", 99, 99.0),  # dated ahead of now
        sample("other", 5, 99.0),
    ],
)
def test_a_sample_that_must_not_count_changes_nothing(odd: Sample) -> None:
    rules = TagRules([Rule("r", "above", "t", 10)], 0)
    rules.add(sample("t", 2, 3.0), 5 * S)
    rules.add(odd, 5 * S)
    found = rules.look(5 * S)[0]
    assert (found.on, found.value) == (False, 3.0)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Rule("r", "above"), "needs a tag"),
        (lambda: Rule("r", "vote", "t", of=("a",), k=1), "no tag"),
        (lambda: Rule("r", "vote", of=("a",), k=2), "k from 1"),
        (lambda: Rule("r", "rise", "t", 0), "more than 0"),
        (lambda: Rule("r", "above", "t", 1, hysteresis=-1), "hysteresis"),
        (lambda: TagRules([Rule("r", "above", "t", 1), Rule("r", "below", "t", 1)], 0), "two rules"),
        (lambda: TagRules([Rule("v", "vote", of=("r",), k=1), Rule("r", "above", "t", 1)], 0), "no rule above it"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(make: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()  # type: ignore[operator]
