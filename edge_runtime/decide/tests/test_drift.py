"""Drift: the stated false-alarm rate holds on independent samples of any distribution; what has moved is found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_runtime.decide import drift
from edge_runtime.decide.asset_config import DriftSettings
from edge_runtime.decide.drift import BlockTest, Drift
from edge_runtime.infer.series_bundle import Reference

Floats = NDArray[np.float64]
LEVELS = np.linspace(0, 1, 201)
NORMAL = np.random.default_rng(1).normal(size=200_000)
GAMMA = np.random.default_rng(2).gamma(2.0, size=200_000)


def reference(*columns: Floats, scores: Floats | None = None) -> Reference:
    found = np.empty(0) if scores is None else np.quantile(scores, LEVELS)
    return Reference(LEVELS, np.stack([np.quantile(c, LEVELS) for c in columns], axis=1), found)


def blocks_of(detector: Drift, rows: Floats, scores: Floats | None = None) -> list[BlockTest]:
    found = (detector.add(row.tolist(), None if scores is None else scores[i]) for i, row in enumerate(rows))
    return [test for test in found if test]


def share(tests: list[BlockTest]) -> float:
    return sum(bool(t.drifted) for t in tests) / len(tests)


def within(found: float, rate: float, n: int) -> bool:
    """Four standard errors: one run in 16 000 falls outside by chance."""
    return abs(found - rate) <= 4 * math.sqrt(rate * (1 - rate) / n)


@pytest.mark.parametrize(("source", "draw"), [(NORMAL, "normal"), (GAMMA, "gamma")])
@pytest.mark.parametrize("samples", [50, 200])
def test_one_column_meets_its_rate(source: Floats, draw: str, samples: int) -> None:
    rng = np.random.default_rng(7)
    blocks, rate = 600, 0.1
    detector = Drift(reference(source), ["x"], DriftSettings(samples, rate), 1)
    size = (blocks * samples, 1)
    rows = rng.normal(size=size) if draw == "normal" else rng.gamma(2.0, size=size)
    assert within(share(blocks_of(detector, rows)), rate, blocks)


def test_many_columns_stay_below_their_rate_together() -> None:
    rng = np.random.default_rng(8)
    detector = Drift(reference(*[NORMAL] * 12, scores=GAMMA), [str(i) for i in range(12)], DriftSettings(100, 0.05), 1)
    found = blocks_of(detector, rng.normal(size=(40_000, 12)), rng.gamma(2.0, size=40_000))
    assert len(found) == 400
    assert share(found) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 400)


def test_tails_beyond_the_simulation_are_on_the_safe_side() -> None:
    """At a rate that the null cannot count, more simulations than it was made of find no more than the rate."""
    null, rng, rate = drift.null(100), np.random.default_rng(9), 2e-5
    level, found, blocks = null.level(rate), 0, 10
    for _ in range(blocks):
        u = rng.random((20_000, 100))
        k, p = drift.ks(u), drift.psi(u)
        worst = np.argsort(k)[-200:].tolist() + np.argsort(p)[-200:].tolist()
        found += sum(min(null.p_value(null.ks, k[i]), null.p_value(null.psi, p[i])) < level for i in set(worst))
    assert found <= rate * blocks * 20_000 + 3 * math.sqrt(rate * blocks * 20_000)


@pytest.mark.parametrize(
    "moved", [lambda x: x + 0.5, lambda x: x * 1.6, lambda x: np.full_like(x, 0.3), lambda x: x * 0]
)
def test_what_has_moved_is_found_and_named(moved: object) -> None:
    rng = np.random.default_rng(10)
    detector = Drift(reference(NORMAL, NORMAL), ["still", "moved"], DriftSettings(200, 0.01), 1)
    rows = rng.normal(size=(200, 2))
    rows[:, 1] = moved(rows[:, 1])  # type: ignore[operator]
    (test,) = blocks_of(detector, rows)
    assert [c.name for c in test.drifted] == ["moved"]


def test_constant_and_whole_numbers_do_not_drift_by_themselves() -> None:
    rng = np.random.default_rng(11)
    whole = np.round(NORMAL * 2)
    detector = Drift(reference(np.zeros(1000), whole), ["constant", "whole"], DriftSettings(200, 0.01), 1)
    rows = np.stack([np.zeros(40_000), np.round(rng.normal(size=40_000) * 2)], axis=1)
    assert share(blocks_of(detector, rows)) <= 0.01 + 4 * math.sqrt(0.01 / 200)
    (test,) = blocks_of(detector, rows[:200] + np.array([1e-3, 0.0]))
    assert [c.name for c in test.drifted] == ["constant"]


def test_one_row_in_a_stride_is_taken() -> None:
    detector = Drift(reference(NORMAL), ["x"], DriftSettings(30, 0.01), stride_rows=5)
    assert len(blocks_of(detector, np.zeros((30 * 5 - 4, 1)))) == 1
    detector = Drift(reference(NORMAL), ["x"], DriftSettings(30, 0.01), stride_rows=5)
    assert blocks_of(detector, np.zeros((30 * 5 - 5, 1))) == []


def test_psi_and_ks_of_known_samples() -> None:
    u = (np.arange(100) + 0.5) / 100
    assert drift.psi(u) == pytest.approx(0.0, abs=1e-12)
    assert drift.ks(u) == pytest.approx(0.005)
    half = u / 2  # all in the lower half: 0.2 a bin in five of ten
    expected = 5 * (0.1 * math.log(2)) + 5 * ((0.005 - 0.1) * math.log(0.05))
    assert drift.psi(half) == pytest.approx(expected)
    assert drift.ks(half) == pytest.approx(0.5025)
