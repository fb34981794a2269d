"""The band around a prediction: where the truth lies, learned from units that the model has not seen.

Two curves over the predicted life, lower and upper, follow the local quantiles of what was truly left (`fit_curves`);
they make the band narrow where the model is sure. Then both ends move by one offset, so that the stated share of unseen
units is inside (`conformal_offset`; conformalised quantile regression, Romano et al. 2019). Units are what is
exchangeable: each counts once, its rows by the probability of a cut there. For the offset the curves are fitted without
the unit that is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

KNOTS = 17
BANDWIDTH = 0.07  # of the cap
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Scored:
    """One unit's rows: `predicted` by a model that has not seen it, what was truly left, and each row's `weight`."""

    predicted: Floats
    truth: Floats
    weight: Floats


@dataclass(frozen=True, eq=False)
class Band:
    """`lower`, `upper` at `knots` of the predicted life, straight between; `offset` widens both (it may narrow)."""

    knots: Floats
    lower: Floats
    upper: Floats
    offset: float
    coverage: float
    cap: float

    def ends(self, predicted: Floats) -> tuple[Floats, Floats]:
        """(lower, upper) for each prediction, limited as the device limits them."""
        p = np.clip(predicted, 0.0, self.cap)
        lower = np.clip(np.interp(p, self.knots, self.lower) - self.offset, 0.0, p)
        upper = np.clip(np.interp(p, self.knots, self.upper) + self.offset, p, self.cap)
        return lower, upper

    def bends(self) -> tuple[Floats, Floats, Floats]:
        """(start (2,), knots (k,), bends (k, 2)) of the curves: ends = start + Σ bend × max(predicted − knot, 0)."""
        ends = np.stack([self.lower, self.upper], 1)
        slopes = np.diff(ends, axis=0) / np.diff(self.knots)[:, None]
        return ends[0], self.knots[:-1], np.vstack([slopes[:1], np.diff(slopes, axis=0)])


def fit_band(units: Sequence[Scored], coverage: float, cap: float, seed: int = 0) -> Band:
    """The band that holds `coverage` of the cuts of units like these."""
    knots = np.linspace(0.0, cap, KNOTS)
    fold = np.random.default_rng(seed).permutation(len(units)) % FOLDS
    scores: list[Floats] = [np.empty(0)] * len(units)
    for k in range(min(FOLDS, len(units))):
        inside = [unit for unit, f in zip(units, fold, strict=True) if f != k] or list(units)
        lower, upper = fit_curves(inside, knots, coverage, cap)
        for i in np.flatnonzero(fold == k).tolist():
            scores[i] = misses(units[i], Band(knots, lower, upper, 0.0, coverage, cap))
    lower, upper = fit_curves(units, knots, coverage, cap)
    offset = conformal_offset(scores, [unit.weight for unit in units], coverage)
    return Band(knots, lower, upper, offset, coverage, cap)


def fit_curves(units: Sequence[Scored], knots: Floats, coverage: float, cap: float) -> tuple[Floats, Floats]:
    """Quantiles of the truth around each knot, weighted by nearness; never decreasing, and around the knot itself."""
    predicted, truth, weight = (
        np.concatenate([getattr(u, n) for u in units]) for n in ("predicted", "truth", "weight")
    )
    used = weight > 0
    predicted, truth, weight = predicted[used], truth[used], weight[used]
    order = np.argsort(truth - predicted, kind="stable")
    predicted, error, weight = predicted[order], (truth - predicted)[order], weight[order]
    ends = []
    for level in ((1 - coverage) / 2, (1 + coverage) / 2):
        curve = [_quantile(error, weight * _near(predicted, knot, cap), level) for knot in knots]
        ends.append(np.maximum.accumulate(knots + np.array(curve)))
    return np.minimum(ends[0], knots), np.maximum(ends[1], knots)


def misses(unit: Scored, band: Band) -> Floats:
    """At each row the offset that just holds the truth (below 0: the band may narrow by so much). The ends never cross the
    prediction, so that only the one on the truth's side counts, and a truth that is predicted is always held."""
    p = np.clip(unit.predicted, 0.0, band.cap)
    below = np.interp(p, band.knots, band.lower) - unit.truth
    above = unit.truth - np.interp(p, band.knots, band.upper)
    return np.asarray(np.select([unit.truth < p, unit.truth > p], [below, above], -np.inf))


def conformal_offset(scores: Sequence[Floats], weights: Sequence[Floats], coverage: float) -> float:
    """The smallest offset at which `coverage` × (n + 1) / n of the units' weight is inside; each unit weighs 1."""
    n = len(scores)
    score = np.concatenate(scores)
    weight = np.concatenate([w / w.sum() / n for w in weights])
    order = np.argsort(score, kind="stable")
    reached = np.cumsum(weight[order])
    wanted = min(coverage * (n + 1) / n, 1.0)
    place = min(int(np.searchsorted(reached, wanted - 1e-12)), len(order) - 1)
    offset = float(score[order][place])
    return offset if np.isfinite(offset) else 0.0


def _near(predicted: Floats, knot: float, cap: float) -> Floats:
    """Gaussian weight by distance; at least the nearest rows count where none is close."""
    distance = np.abs(predicted - knot) / (BANDWIDTH * cap)
    return np.asarray(np.exp(-0.5 * np.minimum(distance - distance.min(), 30.0) ** 2))


def _quantile(ordered: Floats, weight: Floats, level: float) -> float:
    reached = np.cumsum(weight)
    return float(ordered[min(int(np.searchsorted(reached, level * reached[-1])), len(ordered) - 1)])
