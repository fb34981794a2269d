"""Fitted: a point model of remaining life and all that it learned from its training units, and nothing of others.

`fit` is what every fold calls, so that scaling, choice of sensors, regimes and health index are inside the fold. The
answer is limited to 0…cap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import DataError
from edge_runtime.infer import features
from edge_runtime.wire.series import FeatureView, Scaler
from tools.pdm.rul import trees, view
from tools.pdm.rul.data import Unit, remaining
from tools.pdm.rul.nets import Net, NetRecipe, fit_net
from tools.pdm.rul.trees import TreeRecipe

Floats = NDArray[np.float64]
MODELS = ("trees", "tcn", "lstm", "blend")
UNITS_LEAST = 3
STEP = 4  # every how many rows of a unit is learned from: neighbours say nearly the same


@dataclass(frozen=True)
class Recipe:
    """`model`: which of `MODELS`; blend is the mean of trees and TCN, `net_share` of the latter. `tree_members` forests
    with different seeds are averaged."""

    model: str = "trees"
    cap: float = 125.0
    coverage: float = 0.9
    tree_members: int = 2
    net_share: float = 0.5
    trees: TreeRecipe = field(default_factory=TreeRecipe)
    net: NetRecipe = field(default_factory=NetRecipe)

    @property
    def history_rows(self) -> int:
        return 1 if self.model == "trees" else self.net.history_rows


@dataclass(frozen=True, eq=False)
class Fitted:
    view: FeatureView
    scaler: Scaler
    forests: tuple[Any, ...]
    nets: tuple[Net, ...]
    recipe: Recipe

    def predict(self, unit: Unit) -> Floats:
        """The predicted life at every row of a unit, from the rows up to it."""
        return self.predict_inputs(self.inputs(unit))

    def inputs(self, unit: Unit) -> NDArray[np.float32]:
        """(n, history, columns): what the device makes at every row of a unit."""
        found = features.filled(view.columns(unit, self.view), self.view)
        return features.sequences(features.scale(found, self.scaler), self.view.history_rows)

    def predict_inputs(self, inputs: NDArray[np.float32]) -> Floats:
        """`inputs` (n, history, columns)."""
        parts = []
        if self.forests:
            newest = np.ascontiguousarray(inputs[:, -1])
            parts.append(np.mean([forest.predict(newest) for forest in self.forests], 0))
        if self.nets:
            parts.append(np.mean([net.predict(inputs) for net in self.nets], 0))
        shares = (1.0 - self.recipe.net_share, self.recipe.net_share) if len(parts) == 2 else (1.0,)
        mixed = np.sum([share * part for share, part in zip(shares, parts, strict=True)], 0)
        return np.asarray(np.clip(mixed, 0.0, self.recipe.cap))


def fit(units: Sequence[Unit], recipe: Recipe, seed: int, note: Callable[[str], None] | None = None) -> Fitted:
    """DataError where there are too few units."""
    if len(units) < UNITS_LEAST:
        raise DataError(f"{len(units)} units to learn from, expected at least {UNITS_LEAST}")
    chosen = view.make_view(units, recipe.cap, recipe.history_rows)
    tables = [view.columns(unit, chosen) for unit in units]
    scaler = view.fit_scaler(np.concatenate(tables))
    scaled = [features.scale(features.filled(table, chosen), scaler) for table in tables]
    inputs = [features.sequences(table, chosen.history_rows) for table in scaled]
    truth = [remaining(unit, recipe.cap) for unit in units]
    forests: tuple[Any, ...] = ()
    nets: tuple[Net, ...] = ()
    if recipe.model in ("trees", "blend"):
        x = np.concatenate([part[::STEP, -1] for part in inputs])
        y = np.concatenate([part[::STEP] for part in truth])
        forests = tuple(trees.fit(x, y, recipe.trees, seed + i) for i in range(recipe.tree_members))
    if recipe.model != "trees":
        kind = "lstm" if recipe.model == "lstm" else "tcn"
        nets = (fit_net(kind, inputs, truth, chosen, recipe.net, recipe.cap, seed, note),)
    return Fitted(chosen, scaler, forests, nets, recipe)
