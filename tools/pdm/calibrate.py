"""Thresholds from scores of held-out normal rows, so that the stated false-alarm rate is the one that is measured.

`conformal`: the ⌈(n + 1)(1 − rate)⌉-th smallest score; on exchangeable scores a new normal one is above it with at most
the stated probability. It needs n ≥ 1/rate − 1 scores. `pot` (peaks over threshold, Siffer et al. 2017): a generalised
Pareto distribution fitted to the excesses over a high quantile, for rates that are too small to be counted. `auto`
takes conformal where at least `CONFORMAL_MIN` scores lie above its threshold, else pot.

The scores of overlapping windows depend on one another; intervals count one independent score a window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import DataError

Floats = NDArray[np.float64]
METHODS = ("auto", "conformal", "pot")
CONFORMAL_MIN = 10
SCORES_MIN = 30
INITIAL_QUANTILE = 0.9
SHAPE_LIMIT = 0.5
SHAPE_PRIOR = 100


@dataclass(frozen=True)
class Threshold:
    method: str
    rate: float
    value: float


def threshold(scores: Floats, rate: float, method: str = "auto") -> Threshold:
    """The threshold for `rate` (share of normal scores above it); DataError where the scores cannot give one."""
    if method not in METHODS or not 0 < rate < 1:
        raise DataError(f"calibration {method!r} at rate {rate}: expected {', '.join(METHODS)} and a rate from 0 to 1")
    if not np.isfinite(scores).all():
        raise DataError("calibration: a score is not finite")
    if len(scores) < SCORES_MIN:
        raise DataError(f"calibration: {len(scores)} normal scores, expected at least {SCORES_MIN}; record longer")
    countable = len(scores) * rate >= CONFORMAL_MIN
    chosen = method if method != "auto" else ("conformal" if countable else "pot")
    value = conformal(scores, rate) if chosen == "conformal" else peaks_over_threshold(scores, rate)
    return Threshold(chosen, rate, value)


def conformal(scores: Floats, rate: float) -> float:
    rank = math.ceil((len(scores) + 1) * (1 - rate))
    if rank > len(scores):
        raise DataError(
            f"calibration: {len(scores)} normal scores cannot tell a rate of {rate:g}; record longer or use pot"
        )
    return float(np.sort(scores)[rank - 1])


def peaks_over_threshold(scores: Floats, rate: float) -> float:
    """The score that is exceeded at `rate` by the fitted tail; the quantile itself where `rate` can be read off."""
    start = float(np.quantile(scores, INITIAL_QUANTILE))
    above = scores > start
    excess = scores[above] - start
    share = rate * len(scores) / max(1, len(excess))
    if share >= 1 or len(excess) < 3 or excess.std() <= 1e-12 * max(1.0, abs(start)):
        return float(np.quantile(scores, 1 - rate))
    clusters = int(above[0]) + int((above[1:] & ~above[:-1]).sum())
    shape, size = pareto(excess, clusters)
    return start + (-size * math.log(share) if abs(shape) < 1e-9 else size / shape * (share**-shape - 1))


def pareto(excess: Floats, clusters: int) -> tuple[float, float]:
    """(shape, size) of a generalised Pareto distribution with the mean of `excess`.

    The shape is that of the moments (Hosking and Wallis 1987), shrunk towards 0, the exponential tail, by how few
    independent excursions (`clusters`) there are: a tail cannot be seen in a handful of them."""
    mean, variance = float(excess.mean()), float(excess.var())
    seen = clusters / (clusters + SHAPE_PRIOR)
    shape = seen * min(max(0.5 * (1 - mean * mean / variance), -SHAPE_LIMIT), SHAPE_LIMIT)
    return shape, mean * (1 - shape)


def cross_rate(folds: Sequence[Floats], rate: float, method: str, depends_rows: int) -> tuple[float, float, float]:
    """(measured rate, its 95 % interval) of held-out folds: each fold against the threshold of the others."""
    above = total = 0
    for i, fold in enumerate(folds):
        others = np.concatenate([f for j, f in enumerate(folds) if j != i])
        above += int((fold > threshold(others, rate, method).value).sum())
        total += len(fold)
    return (above / total, *interval(above, total, depends_rows))


def interval(above: int, total: int, depends_rows: int = 1) -> tuple[float, float]:
    """Clopper–Pearson 95 % interval of a share; `depends_rows` neighbouring rows count as one."""
    n = max(1.0, total / depends_rows)
    k = above / total * n
    low = 0.0 if k < 1 else _beta_quantile(0.025, k, n - k + 1)  # less than one independent row: anything down to none
    high = 1.0 if k >= n else _beta_quantile(0.975, k + 1, n - k)
    return low, high


def _beta_quantile(p: float, a: float, b: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _beta_cdf(middle, a, b) < p else (low, middle)
    return (low + high) / 2


def _beta_cdf(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function by its continued fraction (Lentz)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _beta_cdf(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    c, d = 1.0, 1.0 / _away(1.0 - (a + b) * x / (a + 1))
    result = d
    for m in range(1, 300):
        for top in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _away(1.0 + top * d)
            c = _away(1.0 + top / c)
            result *= d * c
        if abs(d * c - 1.0) < 1e-12:
            break
    return front * result


def _away(value: float) -> float:
    return value if abs(value) > 1e-300 else 1e-300
