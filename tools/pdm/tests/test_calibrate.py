"""The stated false-alarm rate is the measured one, on generated data, and a threshold is never NaN."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime.errors import DataError
from tools.pdm.calibrate import cross_rate, interval, threshold

RUNS = 200


def drawn(kind: str, rng: np.random.Generator, count: int) -> np.ndarray:
    if kind == "uniform":
        return rng.uniform(size=count)
    return rng.normal(size=count) if kind == "normal" else rng.exponential(size=count)


def rates(method: str, rate: float, count: int, draw: str) -> np.ndarray:
    """The share of 20 000 fresh scores above the threshold, for each of `RUNS` calibrations of `count` scores."""
    found = []
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        value = threshold(drawn(draw, rng, count), rate, method).value
        found.append((drawn(draw, rng, 20_000) > value).mean())
    return np.array(found)


@pytest.mark.parametrize("draw", ["normal", "exponential", "uniform"])
def test_conformal_keeps_its_rate_on_any_distribution(draw: str) -> None:
    found = rates("conformal", 0.02, 500, draw)
    error = 3 * found.std() / np.sqrt(RUNS)
    # Exactly ⌈501 × 0.98⌉ = 491 of 501: on average 10 / 501 are above.
    assert abs(found.mean() - 10 / 501) < error


@pytest.mark.parametrize(
    ("draw", "rate"), [("exponential", 1e-3), ("exponential", 1e-2), ("normal", 1e-2), ("normal", 1e-3)]
)
def test_extreme_values_are_near_their_rate(draw: str, rate: float) -> None:
    found = rates("pot", rate, 4000, draw)
    error = 3 * found.std() / np.sqrt(RUNS)
    assert found.mean() - error < 1.5 * rate
    assert found.mean() + error > 0.5 * rate


def test_auto_counts_where_it_can_and_extrapolates_where_it_cannot() -> None:
    scores = np.random.default_rng(0).normal(size=2000)
    assert threshold(scores, 0.01).method == "conformal"
    assert threshold(scores, 0.001).method == "pot"
    assert threshold(scores, 1e-6).value > scores.max()


def test_a_threshold_is_never_nan() -> None:
    with pytest.raises(DataError, match="a score is not finite"):
        threshold(np.array([1.0] * 50 + [np.nan]), 0.01)
    with pytest.raises(DataError, match="expected at least 30"):
        threshold(np.ones(5), 0.01)
    with pytest.raises(DataError, match="a rate from 0 to 1"):
        threshold(np.ones(50), 0.0)
    with pytest.raises(DataError, match=r"cannot tell a rate of 0.001"):
        threshold(np.ones(50), 0.001, "conformal")
    for scores in (np.ones(50), np.zeros(50), np.r_[np.zeros(49), 1e9], np.arange(50.0)):
        for rate in (0.3, 0.05, 1e-3, 1e-6):
            assert np.isfinite(threshold(scores, rate).value)


def test_the_interval_is_clopper_and_pearson() -> None:
    assert interval(0, 10) == pytest.approx((0.0, 0.3085), abs=1e-4)
    assert interval(5, 10) == pytest.approx((0.1871, 0.8129), abs=1e-4)
    assert interval(10, 10) == pytest.approx((0.6915, 1.0), abs=1e-4)
    assert interval(37, 1000) == pytest.approx((0.0262, 0.0506), abs=1e-4)
    assert interval(37, 1000, depends_rows=10)[1] > 0.09
    assert interval(2, 3000, depends_rows=5)[0] == 0.0  # less than one independent row


def test_the_measured_rate_comes_from_folds_that_the_threshold_has_not_seen() -> None:
    rng = np.random.default_rng(1)
    measured, low, high = cross_rate([rng.normal(size=1000) for _ in range(4)], 0.02, "conformal", 1)
    assert low < 0.02 < high
    assert low < measured < high
    shifted = cross_rate([rng.normal(size=1000), rng.normal(size=1000) + 3], 0.02, "conformal", 1)
    assert shifted[1] > 0.02
