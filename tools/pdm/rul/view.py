"""The feature view of a fleet: which sensors say something, how many ways of running there are, and what is normal there.

Learned from the training units alone (inside a fold: from that fold's). A sensor with no more than two different values
in every regime is dropped. Regimes are groups of operating settings: the fewest groups that leave less than a thousandth
of the settings' spread inside them; where even twelve leave more, the settings are noise around one way of running.
The health index is one linear blend of the sensors, by ridge regression on the capped remaining life (1: new or far from
its end, 0: at its end); its means and slopes over many windows carry most of what is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import DataError
from edge_runtime.infer import features
from edge_runtime.wire.series import Blend, Feature, FeatureView, Regime, Scaler, TagView
from tools.pdm.rul.data import SENSORS, SETTINGS, TAGS, Unit, remaining

Floats = NDArray[np.float64]

VERSION = "1"
MEAN_ROWS = (5, 15, 40, 160)
SLOPE_ROWS = (20, 60, 160)
HEALTH = "health"
HEALTH_MEAN_ROWS = (3, 5, 10, 20, 40, 80, 160)
HEALTH_SLOPE_ROWS = (10, 20, 40, 80, 160)
HEALTH_SPREAD_ROWS = 20
RIDGE = 1.0
REGIMES_MOST = 12
SPREAD_LEFT = 1e-3
ROWS_FOR_REGIMES = 2000
RESTARTS = 4
ROUNDS = 20
FLAT = 1e-9  # of the mean: less standard deviation than this is rounding
CLIP = 1e6  # the cycle is a column like any other


@dataclass(frozen=True, eq=False)
class Grouping:
    """`centers` (k, settings used) in the units of the file; `of` the group of each row."""

    settings: tuple[str, ...]
    scale: Floats
    centers: Floats
    of: NDArray[np.int64]


def make_view(units: Sequence[Unit], cap: float, history_rows: int = 1, seed: int = 0) -> FeatureView:
    """DataError where no sensor varies."""
    rows = np.concatenate([unit.rows for unit in units])
    grouping = group_settings(rows, seed)
    sensors = informative(rows, grouping)
    if not sensors:
        raise DataError("no sensor has more than two different values, so nothing can be learned from this file")
    tags = ("cycle", *grouping.settings, *sensors)
    plain = FeatureView(
        name="remaining-life",
        version=VERSION,
        tags=tuple(TagView(name) for name in tags),
        features=(
            Feature("value", ("cycle",)),
            *(Feature("mean", sensors, length) for length in MEAN_ROWS),
            *(Feature("slope", sensors, length) for length in SLOPE_ROWS),
            *(Feature("mean", (HEALTH,), length) for length in HEALTH_MEAN_ROWS),
            *(Feature("slope", (HEALTH,), length) for length in HEALTH_SLOPE_ROWS),
            Feature("std", (HEALTH,), HEALTH_SPREAD_ROWS),
        ),
        grid_s=1.0,
        window_rows=max(*MEAN_ROWS, *SLOPE_ROWS, *HEALTH_MEAN_ROWS, *HEALTH_SLOPE_ROWS),
        history_rows=history_rows,
        min_rows=1,
        settings=grouping.settings,
        setting_scale=tuple(grouping.scale.tolist()),
        regimes=_regimes(rows, grouping, tags),
    )
    return replace(plain, blends=(_health(units, plain, sensors, cap),))


def raw_rows(unit: Unit, view: FeatureView) -> Floats:
    """The rows of a unit in the view's order of tags."""
    return unit.rows[:, [TAGS.index(name) for name in view.tag_names]]


def columns(unit: Unit, view: FeatureView) -> Floats:
    """The columns at every row of a unit."""
    return features.columns(raw_rows(unit, view), view)


def fit_scaler(found: Floats) -> Scaler:
    """Center and scale of each column; a column without spread keeps its size."""
    spread = found.std(0)
    flat = spread <= FLAT * np.maximum(1.0, np.abs(found.mean(0)))
    return Scaler(tuple(found.mean(0).tolist()), tuple(np.where(flat, 1.0, spread).tolist()), CLIP)


def group_settings(rows: Floats, seed: int = 0) -> Grouping:
    """The ways of running; one group without settings where the settings do not fall into groups."""
    one = Grouping((), np.empty(0), np.empty((1, 0)), np.zeros(len(rows), np.int64))
    settings = rows[:, [TAGS.index(name) for name in SETTINGS]]
    spread = settings.std(0)
    used = spread > FLAT * np.maximum(1.0, np.abs(settings.mean(0)))
    if not used.any():
        return one
    scale = spread[used]
    x = settings[:, used] / scale
    rng = np.random.default_rng(seed)
    sample = x[rng.permutation(len(x))[:ROWS_FOR_REGIMES]]
    total = float(((sample - sample.mean(0)) ** 2).sum())
    for k in range(2, REGIMES_MOST + 1):
        centers, left = min((_cluster(sample, k, rng) for _ in range(RESTARTS)), key=lambda found: found[1])
        if left < SPREAD_LEFT * total:
            names = tuple(name for name, u in zip(SETTINGS, used, strict=True) if u)
            return Grouping(names, scale, centers * scale, _nearest(x, centers))
    return one


def informative(rows: Floats, grouping: Grouping) -> tuple[str, ...]:
    """Sensors with more than two different values in some regime."""
    places = {name: TAGS.index(name) for name in SENSORS}
    groups = [rows[grouping.of == g] for g in np.unique(grouping.of)]
    return tuple(name for name, at in places.items() if any(len(np.unique(group[:, at])) > 2 for group in groups))


def _health(units: Sequence[Unit], view: FeatureView, sensors: tuple[str, ...], cap: float) -> Blend:
    at = [view.tag_names.index(name) for name in sensors]
    x = np.concatenate([features.normalised(raw_rows(unit, view), view)[:, at] for unit in units])
    y = np.concatenate([remaining(unit, cap) for unit in units]) / cap
    centred = x - x.mean(0)
    solved = np.linalg.solve(centred.T @ centred + RIDGE * np.eye(len(at)), centred.T @ (y - y.mean()))
    weights = np.zeros(len(view.tags))
    weights[at] = solved
    return Blend(HEALTH, tuple(weights.tolist()), float(y.mean() - x.mean(0) @ solved))


def _regimes(rows: Floats, grouping: Grouping, tags: tuple[str, ...]) -> tuple[Regime, ...]:
    """Mean and standard deviation of each sensor in each regime; cycle and settings stay as they are. Where a sensor
    stands still in one regime it is divided by its standard deviation over the others."""
    at = [TAGS.index(name) for name in tags]
    sensor = np.array([name in SENSORS for name in tags])
    groups = [rows[grouping.of == g][:, at] for g in range(len(grouping.centers))]
    spread = np.array([group.std(0) if len(group) > 1 else np.zeros(len(at)) for group in groups])
    mean = np.array([group.mean(0) if len(group) else rows[:, at].mean(0) for group in groups])
    flat = spread <= FLAT * np.maximum(1.0, np.abs(mean))
    pooled = np.sqrt((spread**2).mean(0))
    spread = np.where(flat, np.where(pooled > 0, pooled, 1.0), spread)
    return tuple(
        Regime(
            center=tuple(grouping.centers[g].tolist()),
            mean=tuple(np.where(sensor, mean[g], 0.0).tolist()),
            scale=tuple(np.where(sensor, spread[g], 1.0).tolist()),
        )
        for g in range(len(groups))
    )


def _nearest(x: Floats, centers: Floats) -> NDArray[np.int64]:
    return np.asarray(((x[:, None] - centers) ** 2).sum(-1).argmin(1), np.int64)


def _cluster(x: Floats, k: int, rng: np.random.Generator) -> tuple[Floats, float]:
    """(centers, squared distance left) of k-means with k-means++ starts."""
    centers = x[[int(rng.integers(len(x)))]]
    while len(centers) < k:
        distance = ((x[:, None] - centers) ** 2).sum(-1).min(1)
        if distance.sum() == 0:  # fewer different settings than groups
            break
        centers = np.vstack([centers, x[rng.choice(len(x), p=distance / distance.sum())]])
    for _ in range(ROUNDS):
        of = _nearest(x, centers)
        moved = np.array([x[of == g].mean(0) if (of == g).any() else centers[g] for g in range(len(centers))])
        if np.allclose(moved, centers):
            break
        centers = moved
    return centers, float(((x - centers[_nearest(x, centers)]) ** 2).sum())
