"""Cross-validation by unit: what a recipe reaches on machines that it has not seen, cut as running machines are.

Outer folds answer; inside each, inner folds give the band its unseen predictions. Everything that is learned (view,
regimes, health index, scaler, model, band) is learned from the units of that fold's training side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.pdm.rul import band as bands
from tools.pdm.rul import cuts, metrics
from tools.pdm.rul.band import Band, Scored
from tools.pdm.rul.data import Unit, remaining
from tools.pdm.rul.metrics import Answers
from tools.pdm.rul.model import Fitted, Recipe, fit

Floats = NDArray[np.float64]
Advance = Callable[[str, int, int], None]

INNER_FOLDS = 20  # the band is learned from models of 19/20 of the units: with fewer they err more, and it is wider
CUTS_EACH = 50


@dataclass(frozen=True, eq=False)
class Whole:
    """A point model and the band around it."""

    fitted: Fitted
    band: Band


def fold_of(count: int, folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each unit: equal sizes, drawn by `seed`."""
    return np.asarray(np.random.default_rng(seed).permutation(count) % folds, np.int64)


def unseen(
    units: Sequence[Unit], recipe: Recipe, folds: int, seed: int, advance: Advance | None = None, name: str = "folds"
) -> list[Floats]:
    """For each unit the predictions at every row by a model trained without it."""
    folds = min(folds, len(units))
    of = fold_of(len(units), folds, seed)
    answers: list[Floats] = [np.empty(0)] * len(units)
    for k in range(folds):
        model = fit([unit for unit, f in zip(units, of, strict=True) if f != k], recipe, seed + k)
        for i in np.flatnonzero(of == k).tolist():
            answers[i] = model.predict(units[i])
        if advance:
            advance(name, k + 1, folds)
    return answers


def fit_whole(
    units: Sequence[Unit],
    recipe: Recipe,
    seed: int,
    folds: int = INNER_FOLDS,
    advance: Advance | None = None,
    name: str = "",
) -> Whole:
    """The model of all `units`, with a band from predictions for units that were held out in turn."""
    answers = unseen(units, recipe, folds, seed, advance, f"{name}calibration")
    fitted = fit(units, recipe, seed)
    if advance:
        advance(f"{name}all units", 1, 1)
    return Whole(fitted, band_of(units, answers, recipe, seed))


def band_of(units: Sequence[Unit], answers: Sequence[Floats], recipe: Recipe, seed: int) -> Band:
    scored = [
        Scored(predicted, remaining(unit, recipe.cap), cuts.weights(len(unit)))
        for unit, predicted in zip(units, answers, strict=True)
    ]
    return bands.fit_band(scored, recipe.coverage, recipe.cap, seed)


def cross_validate(
    units: Sequence[Unit],
    recipe: Recipe,
    folds: int,
    seed: int,
    inner: int = INNER_FOLDS,
    advance: Advance | None = None,
) -> dict[str, Any]:
    """The report: pooled and by fold, with the cuts of `cuts.DISTRIBUTIONS`; intervals by drawing whole units."""
    of = fold_of(len(units), folds, seed)
    found: dict[str, list[tuple[int, Answers]]] = {name: [] for name in cuts.DISTRIBUTIONS}
    rng = np.random.default_rng(seed)
    for k in range(folds):
        inside = [unit for unit, f in zip(units, of, strict=True) if f != k]
        whole = fit_whole(inside, recipe, seed + k, inner, advance, f"fold {k + 1} of {folds}: ")
        for i in np.flatnonzero(of == k).tolist():
            predicted = whole.fitted.predict(units[i])
            for name in found:
                at = cuts.draw(len(units[i]), CUTS_EACH, rng, name)
                found[name].append((k, answers_at(units[i], predicted, at, whole.band)))
    report = {name: _report(parts, recipe.cap, seed) for name, parts in found.items()}
    return {
        "units": len(units),
        "folds": folds,
        "inner_folds": inner,
        "cuts_each": CUTS_EACH,
        "cap": recipe.cap,
        "interval": recipe.coverage,
        "model": recipe.model,
        **report["recent"],
        "cuts_over_life": {k: v for k, v in report["life"].items() if k != "by_fold"},
    }


def answers_at(unit: Unit, predicted: Floats, at: NDArray[np.int64], band: Band, rul: float | None = None) -> Answers:
    """The answers after the rows `at`; `rul`: what is truly left, where the unit's own end does not say it."""
    lower, upper = band.ends(predicted[at])
    truth = remaining(unit, band.cap)[at] if rul is None else np.full(len(at), min(rul, band.cap))
    return Answers(predicted[at], lower, upper, truth, np.full(len(at), unit.number))


def joined(parts: Sequence[Answers]) -> Answers:
    predicted, lower, upper, truth = (
        np.concatenate(column) for column in zip(*(p.columns for p in parts), strict=True)
    )
    return Answers(predicted, lower, upper, truth, np.concatenate([part.unit for part in parts]))


def _report(parts: Sequence[tuple[int, Answers]], cap: float, seed: int) -> dict[str, Any]:
    pooled = joined([part for _, part in parts]).capped(cap)
    by_fold = []
    for k in sorted({fold for fold, _ in parts}):
        values = metrics.figures(joined([part for fold, part in parts if fold == k]).capped(cap))
        by_fold.append({name: round(values[name], 3) for name in ("rmse", "coverage", "mean_width")})
    rmse = [fold["rmse"] for fold in by_fold]
    return {
        "n": len(pooled.truth),
        **{name: round(value, 4) for name, value in metrics.figures(pooled).items()},
        "ci95": {name: [round(v, 3) for v in pair] for name, pair in metrics.intervals(pooled, seed).items()},
        "rmse_fold_sd": round(float(np.std(rmse, ddof=1)), 3) if len(rmse) > 1 else 0.0,
        "by_fold": by_fold,
    }
