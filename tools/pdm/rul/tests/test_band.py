"""Cuts, bands and figures: the probabilities sum to one, the coverage on unseen units is the stated one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tools.pdm.rul import band, cuts, metrics, simulate
from tools.pdm.rul.band import Scored
from tools.pdm.rul.metrics import Answers
from tools.pdm.rul.simulate import Fleet

CAP = 125.0


def scored(count: int, seed: int, spread: float = 0.15) -> list[Scored]:
    """Units whose predictions are off by a share of what is left, the same way over a unit's whole life."""
    rng = np.random.default_rng(seed)
    units = []
    for _ in range(count):
        truth = np.minimum(np.arange(int(rng.integers(120, 260)), -1, -1.0), CAP)
        predicted = np.clip(truth * (1 + rng.normal(0, spread)) + rng.normal(0, 2, len(truth)), 0, CAP)
        units.append(Scored(predicted, truth, cuts.weights(len(truth))))
    return units


@pytest.mark.parametrize("name", list(cuts.DISTRIBUTIONS))
@pytest.mark.parametrize("life", [1, 2, 20, 31, 32, 200, 362])
def test_the_weights_are_probabilities(name: str, life: int) -> None:
    weights = cuts.weights(life, name)
    assert len(weights) == life
    assert weights.sum() == pytest.approx(1.0)
    assert (weights >= 0).all()
    if life > cuts.SEEN_LEAST + 1:
        assert weights[: cuts.SEEN_LEAST - 1].sum() == 0
        assert weights[-1] == 0


def test_cuts_follow_their_weights_and_lengths_have_a_distance() -> None:
    at = cuts.draw(200, 2000, np.random.default_rng(0))
    assert at.min() == 200 - 1 - 150
    assert at.max() == 198
    units = simulate.make_units(Fleet(20), 0)
    seen, left = simulate.cut_units(units, 1)
    assert [len(s) + r for s, r in zip(seen, left, strict=True)] == [len(u) for u in units]
    near = cuts.length_distance(units, [len(unit) for unit in seen], "recent")
    assert near < cuts.length_distance(units, [31] * 20, "recent") <= 1.0


def test_the_band_holds_the_stated_share_of_unseen_units_and_is_narrow_where_errors_are_small() -> None:
    shares = []
    for seed in range(12):
        found = band.fit_band(scored(60, seed), 0.9, CAP)
        inside = []
        for unit in scored(60, 100 + seed):
            lower, upper = found.ends(unit.predicted)
            inside.append(float((unit.weight * ((lower <= unit.truth) & (unit.truth <= upper))).sum()))
        shares.append(np.mean(inside))
    assert 0.87 < np.mean(shares) < 0.94
    lower, upper = found.ends(np.array([10.0, 60.0, 100.0]))
    assert (np.diff(upper - lower) > 0).all()


def test_ends_are_in_order_and_limited() -> None:
    found = band.fit_band(scored(30, 3), 0.9, CAP)
    p = np.linspace(-5, 130, 200)
    lower, upper = found.ends(p)
    assert (lower <= np.clip(p, 0, CAP)).all()
    assert (upper >= np.clip(p, 0, CAP)).all()
    assert lower.min() >= 0
    assert upper.max() <= CAP


def test_the_offset_counts_units_not_rows() -> None:
    long, short = np.full(1000, 1.0), np.full(1, 5.0)
    scores = [long, short, short, short]
    weights = [np.full(len(s), 1 / len(s)) for s in scores]
    assert band.conformal_offset(scores, weights, 0.5) == 5.0
    assert band.conformal_offset(scores, weights, 0.1) == 1.0


@pytest.mark.parametrize("offset", [-6.0, 0.0, 4.0])
def test_a_row_is_held_from_the_offset_that_it_scores_on(offset: float) -> None:
    found = band.fit_band(scored(30, 3), 0.9, CAP)
    moved = replace(found, offset=offset)
    for unit in scored(10, 4):
        lower, upper = moved.ends(unit.predicted)
        inside = (lower <= unit.truth) & (unit.truth <= upper)
        score = band.misses(unit, found)
        sure = np.abs(score - offset) > 1e-9
        np.testing.assert_array_equal(inside[sure], (score <= offset)[sure])


def test_nasa_score_and_figures() -> None:
    assert metrics.nasa_score(np.array([-13.0, 10.0, 0.0])) == pytest.approx(2 * (np.e - 1))
    truth = np.array([10.0, 20.0, 200.0])
    answers = Answers(truth + np.array([3.0, -4.0, 0.0]), truth - 1, truth + 1, truth, np.array([1, 2, 3])).capped(CAP)
    found = metrics.figures(answers)
    assert found["rmse"] == pytest.approx(np.sqrt(25 / 3))
    assert found["mae"] == pytest.approx(7 / 3)
    assert found["coverage"] == 1.0
    assert found["mean_width"] == pytest.approx((2 + 2 + 0) / 3)
    low, high = metrics.intervals(answers)["rmse"]
    assert low <= found["rmse"] <= high
