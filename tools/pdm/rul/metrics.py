"""Figures of predicted remaining lives. Pure; both sides capped the same way.

NASA's score adds exp(−d/13) − 1 for a prediction that is d too low and exp(d/10) − 1 for one that is too high (Saxena et
al. 2008): being late costs more than being early.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EARLY, LATE = 13.0, 10.0
RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Answers:
    """Predictions and truth, row by row; `unit` says which rows belong together."""

    predicted: Floats
    lower: Floats
    upper: Floats
    truth: Floats
    unit: NDArray[np.int64]

    def capped(self, cap: float) -> Answers:
        predicted, lower, upper, truth = (np.clip(x, 0.0, cap) for x in self.columns)
        return Answers(predicted, lower, upper, truth, self.unit)

    @property
    def columns(self) -> tuple[Floats, Floats, Floats, Floats]:
        return self.predicted, self.lower, self.upper, self.truth

    @property
    def inside(self) -> NDArray[np.bool_]:
        return np.asarray((self.truth >= self.lower) & (self.truth <= self.upper))


def figures(answers: Answers) -> dict[str, float]:
    error = answers.predicted - answers.truth
    return {
        "rmse": float(np.sqrt((error**2).mean())),
        "mae": float(np.abs(error).mean()),
        "bias": float(error.mean()),
        "nasa_score": nasa_score(error),
        "nasa_score_mean": nasa_score(error) / len(error),
        "coverage": float(answers.inside.mean()),
        "mean_width": float((answers.upper - answers.lower).mean()),
    }


def nasa_score(error: Floats) -> float:
    """`error`: predicted − true."""
    return float((np.exp(np.where(error < 0, -error / EARLY, error / LATE)) - 1.0).sum())


def intervals(answers: Answers, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals of RMSE and coverage, drawing whole units."""
    units = np.unique(answers.unit)
    places = np.searchsorted(units, answers.unit)
    rows = np.bincount(places)
    squares = np.bincount(places, (answers.predicted - answers.truth) ** 2)
    inside = np.bincount(places, answers.inside)
    drawn = np.random.default_rng(seed).integers(0, len(units), (RESAMPLES, len(units)))
    count = rows[drawn].sum(1)
    samples = {"rmse": np.sqrt(squares[drawn].sum(1) / count), "coverage": inside[drawn].sum(1) / count}
    return {name: (float(np.quantile(v, 0.025)), float(np.quantile(v, 0.975))) for name, v in samples.items()}
