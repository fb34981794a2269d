"""Drift: do inputs and scores still look like what the model was trained and calibrated on? PSI and KS, with a null that
was simulated for the number of samples, so that the stated false-alarm rate is the one that is met. Pure.

The bundle's `reference.npz` holds quantiles. Each value becomes its place among them, u from 0 to 1; where the reference
is as it was, u is uniform whatever the distribution, so one null serves every column: `samples` uniform numbers, drawn
`SIMULATIONS` times with a fixed seed.

    KS    largest distance between the share of values below u and u itself
    PSI   Σ (share − expected) · ln(share / expected) over `BINS` bins of equal reference share, shares with a floor

A column has drifted where the smaller of its two p-values is below the level at which, under the null, at most `rate` of
the tests of the whole block find anything: `rate` over the number of columns (Bonferroni), found in the simulated joint
distribution of both. Beyond what the simulation can count the tail is continued exponentially, which is on the safe side
for both statistics.

Samples must be independent for this. Neighbouring rows are not, so one value is taken every `stride_rows`, the length of
a window, and a slow process needs a larger `[assets.drift] stride_rows`. Equal reference quantiles (a column that hardly
changes) are a jump in u; the place within it is drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge_runtime.decide.asset_config import DriftSettings
from edge_runtime.infer.series_bundle import Reference

Floats = NDArray[np.float64]
SIMULATIONS = 20_000
BINS = 10
TAIL = 0.005  # share of the simulations beyond which the tail is continued


def places(values: Floats, quantiles: Floats, levels: Floats, rng: np.random.Generator) -> Floats:
    """u of each value: its place among the reference's quantiles, drawn at random within a jump, and beyond the ends."""
    unique, first, count = np.unique(quantiles, return_index=True, return_counts=True)
    low, high = np.append(levels[first], 1.0), np.append(0.0, levels[first + count - 1])  # of the jump at each quantile
    after = np.searchsorted(unique, values, side="right")  # 0: below all
    before = np.searchsorted(unique, values, side="left")
    jump = after > before  # exactly on a quantile
    start, end = high[before], low[before]
    left, right = unique[np.maximum(before - 1, 0)], unique[np.minimum(before, len(unique) - 1)]
    width = np.where(right > left, right - left, 1.0)
    inside = (before > 0) & (before < len(unique))
    share = np.where(inside, (values - left) / width, rng.random(len(values)))
    between = start + share * (end - start)
    on_low, on_high = low[before], high[after]
    return np.asarray(np.where(jump, on_low + rng.random(len(values)) * (on_high - on_low), between))


def ks(u: Floats) -> Floats:
    """Along the last axis."""
    n = u.shape[-1]
    ordered = np.sort(u, axis=-1)
    upper = np.arange(1, n + 1) / n
    return np.asarray(np.maximum(upper - ordered, ordered - (upper - 1 / n)).max(-1))


def psi(u: Floats) -> Floats:
    """Along the last axis."""
    n = u.shape[-1]
    bins = np.minimum((u * BINS).astype(np.int64), BINS - 1)
    counts = np.stack([(bins == b).sum(-1) for b in range(BINS)], axis=-1)
    share = np.maximum(counts, 0.5) / n
    return np.asarray(((share - 1 / BINS) * np.log(share * BINS)).sum(-1))


@dataclass(frozen=True)
class Null:
    """The two statistics, sorted, as they come where nothing has drifted, and the smaller p-value of each pair."""

    ks: Floats
    psi: Floats
    least: Floats

    def p_value(self, sorted_null: Floats, statistic: float) -> float:
        above = len(sorted_null) - int(np.searchsorted(sorted_null, statistic, side="left"))
        if above >= TAIL * len(sorted_null):
            return (above + 1) / (len(sorted_null) + 1)
        tail = sorted_null[-int(TAIL * len(sorted_null)) :]
        size = max(float((tail - tail[0]).mean()), 1e-12)
        return float(TAIL * np.exp(-(statistic - tail[0]) / size))

    def level(self, rate: float) -> float:
        """The smaller p-value must be below this, so that `rate` of the tests of one column find something."""
        if rate >= 2 / len(self.least):
            return float(np.quantile(self.least, rate))
        return rate / 2


@lru_cache(maxsize=4)
def null(samples: int) -> Null:
    rng = np.random.default_rng(20_260_101)
    block = max(1, 1_000_000 // samples)
    found_ks, found_psi = [], []
    for start in range(0, SIMULATIONS, block):
        u = rng.random((min(block, SIMULATIONS - start), samples))
        found_ks.append(ks(u))
        found_psi.append(psi(u))
    all_ks, all_psi = np.concatenate(found_ks), np.concatenate(found_psi)
    sorted_ks, sorted_psi = np.sort(all_ks), np.sort(all_psi)
    made = Null(sorted_ks, sorted_psi, np.empty(0))
    least = np.array(
        [
            min(made.p_value(sorted_ks, k), made.p_value(sorted_psi, p))
            for k, p in zip(all_ks.tolist(), all_psi.tolist(), strict=True)
        ]
    )
    return Null(sorted_ks, sorted_psi, np.sort(least))


@dataclass(frozen=True)
class Column:
    """One tested column: `p` the smaller of the two p-values."""

    name: str
    ks: float
    psi: float
    p: float


@dataclass(frozen=True)
class BlockTest:
    """One block. `drifted`: columns whose p is below `level`, the worst first."""

    samples: int
    rate: float
    level: float
    columns: tuple[Column, ...]

    @property
    def drifted(self) -> tuple[Column, ...]:
        return tuple(sorted((c for c in self.columns if c.p < self.level), key=lambda c: c.p))


class Drift:
    """Collects one row of columns and one score at a time; a `BlockTest` each time a block is full."""

    def __init__(
        self, reference: Reference, names: Sequence[str], settings: DriftSettings, stride_rows: int, seed: int = 0
    ) -> None:
        self._settings, self._stride_rows = settings, max(1, settings.stride_rows or stride_rows)
        has_scores = len(reference.scores) > 0
        self._levels = reference.levels
        self._quantiles = [*reference.inputs.T, *([reference.scores] if has_scores else [])]
        self._names = [*names, *(["score"] if has_scores else [])]
        self._has_scores = has_scores
        self._null = null(settings.samples)
        self._level = self._null.level(settings.rate / len(self._names))
        self._rng = np.random.default_rng(seed)
        self._block: list[list[float]] = []
        self._skipped = 0

    def add(self, inputs: Sequence[float], score: float | None) -> BlockTest | None:
        """`inputs`: the newest scaled columns; `score`: smoothed, None for a model without one."""
        self._skipped += 1
        if self._skipped < self._stride_rows and self._block:
            return None
        self._skipped = 0
        row = [*map(float, inputs), *([float(score or 0.0)] if self._has_scores else [])]
        self._block.append(row)
        if len(self._block) < self._settings.samples:
            return None
        values, self._block = np.array(self._block).T, []
        columns = tuple(
            self._test(name, found, quantiles)
            for name, found, quantiles in zip(self._names, values, self._quantiles, strict=True)
        )
        return BlockTest(self._settings.samples, self._settings.rate, self._level, columns)

    def _test(self, name: str, values: Floats, quantiles: Floats) -> Column:
        u = places(values, quantiles, self._levels, self._rng)
        k, p = float(ks(u)), float(psi(u))
        least = min(self._null.p_value(self._null.ks, k), self._null.p_value(self._null.psi, p))
        return Column(name, round(k, 4), round(p, 4), least)
