"""The test holds its level although one looks after every step, finds what is there, and is not fooled by devices that differ."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.experiments.sequential import SAMPLE_RATIO_ALARM, Unit, chi2_above, compare, rate, sample_ratio_p

ALPHA = 0.05
LOOKS = 40


def found(
    runs: int, devices: int, shares: tuple[float, float], spread: float, seed: int, effect: float = 0.02
) -> tuple[float, float, float]:
    """Of so many experiments with a look after every 20 parts of each device: how many were told apart at some look, how many
    by a test that does not count its looks (1.96 standard errors), and how often the interval ever missed the truth.
    `spread`: how devices differ, as the standard deviation of their shares."""
    chance = np.random.default_rng(seed)
    told = naive = missed = 0
    for _ in range(runs):
        arms = [_arm(chance, devices, share, spread) for share in shares]
        least, seen, wrong = 1.0, False, False
        for look in range(1, LOOKS + 1):
            rates = [rate([Unit(20 * look, int(n)) for n in arm[:, :look].sum(axis=1)]) for arm in arms]
            result = compare(rates[0], rates[1], effect, ALPHA)
            least = min(least, result.p if result.p is not None else 1.0)
            if result.p is not None:
                error = math.sqrt(sum(r.share * (1 - r.share) / r.parts for r in rates))
                seen = seen or abs(result.difference) > 1.96 * error
                wrong = wrong or not result.low <= shares[1] - shares[0] <= result.high
        told, naive, missed = told + (least <= ALPHA), naive + seen, missed + wrong
    return told / runs, naive / runs, missed / runs


def _arm(chance: np.random.Generator, devices: int, share: float, spread: float) -> np.ndarray:
    means = np.full(devices, share)
    if spread:
        size = share * (1 - share) / spread**2 - 1
        means = chance.beta(share * size, (1 - share) * size, devices)
    return chance.binomial(20, means[:, None], (devices, LOOKS))


@pytest.mark.parametrize(("devices", "spread"), [(8, 0.0), (10, 0.02), (40, 0.0), (40, 0.03)])
def test_what_is_alike_is_told_apart_no_oftener_than_said(devices: int, spread: float) -> None:
    told, naive, missed = found(150, devices, (0.05, 0.05), spread, seed=7)
    limit = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 150)
    assert told <= limit
    assert missed <= limit
    assert naive > 2 * ALPHA, "looking so often must matter, or this test shows nothing"


def test_what_differs_is_found() -> None:
    told, _, missed = found(40, 20, (0.05, 0.08), 0.0, seed=3)
    assert told >= 0.95
    assert missed <= 0.15
    told, _, _ = found(40, 40, (0.05, 0.10), 0.02, seed=4)
    assert told >= 0.95


def test_too_early_nothing_is_told() -> None:
    many, few = rate([Unit(1000, 50)] * 20), rate([Unit(1000, 900)] * 7)
    assert compare(many, few, 0.02, ALPHA).p is None
    assert compare(many, rate([Unit(5, 5)] * 10), 0.02, ALPHA).p is None
    assert compare(rate([Unit(100, 0)] * 10), rate([Unit(100, 0)] * 10), 0.02, ALPHA).p is None
    assert rate([]).share == 0.0


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(0, 1)), min_size=1, max_size=30))
def test_the_variance_is_never_below_that_of_independent_parts(found: list[tuple[int, float]]) -> None:
    made = rate([Unit(n, round(n * share)) for n, share in found])
    if made.parts:
        assert made.variance >= made.share * (1 - made.share) / made.parts


@pytest.mark.parametrize(
    ("value", "freedom", "tail"),  # table of the chi-square distribution
    [(3.841, 1, 0.05), (10.828, 1, 0.001), (5.991, 2, 0.05), (7.815, 3, 0.05), (13.816, 2, 0.001), (18.467, 4, 0.001)],
)
def test_the_tail_of_chi_square(value: float, freedom: int, tail: float) -> None:
    assert chi2_above(value, freedom) == pytest.approx(tail, rel=2e-3)


def test_devices_that_are_missing_in_one_arm_raise_the_alarm() -> None:
    assert sample_ratio_p([500, 500], [0.5, 0.5]) == 1.0
    assert sample_ratio_p([520, 480], [0.5, 0.5]) > 0.1
    assert sample_ratio_p([500, 400], [0.5, 0.5]) < SAMPLE_RATIO_ALARM
    assert sample_ratio_p([90, 10], [0.9, 0.1]) == 1.0
    assert sample_ratio_p([900, 40, 100], [0.8, 0.1, 0.1]) < SAMPLE_RATIO_ALARM
    assert sample_ratio_p([0, 0], [0.5, 0.5]) == 1.0


def test_the_alarm_is_rare_where_the_shares_hold() -> None:
    chance = np.random.default_rng(5)
    alarms = sum(
        sample_ratio_p([int(n), 400 - int(n)], [0.3, 0.7]) < SAMPLE_RATIO_ALARM
        for n in chance.binomial(400, 0.3, 20_000)
    )
    assert alarms <= 20_000 * SAMPLE_RATIO_ALARM + 3 * math.sqrt(20_000 * SAMPLE_RATIO_ALARM)
