"""Plain detectors that a model must be better than: each row by itself, thresholds from quantiles of the training rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
QUANTILE = 0.999
PCA_VARIANCE = 0.8


def always(train: Floats, test: Floats) -> Flags:
    return np.ones(len(test), bool)


def t2(train: Floats, test: Floats) -> Flags:
    """Hotelling's T² of the standardised rows."""
    axes, variance = _components(_standard(train, train))
    scores = [((_standard(train, rows) @ axes) ** 2 / variance).sum(1) for rows in (train, test)]
    return np.asarray(scores[1] > np.quantile(scores[0], QUANTILE))


def pca_t2_q(train: Floats, test: Floats) -> Flags:
    """T² in the components of `PCA_VARIANCE` of the variance, or Q in the rest, above its own quantile."""
    axes, variance = _components(_standard(train, train))
    kept = int(np.searchsorted(np.cumsum(variance) / variance.sum(), PCA_VARIANCE)) + 1
    axes, variance = axes[:, :kept], variance[:kept]
    alarms = np.zeros(len(test), bool)
    inside = [_standard(train, rows) @ axes for rows in (train, test)]
    outside = [((_standard(train, r) - p @ axes.T) ** 2).sum(1) for r, p in zip((train, test), inside, strict=True)]
    for known, new in (([(p**2 / variance).sum(1) for p in inside]), outside):
        alarms |= new > np.quantile(known, QUANTILE)
    return alarms


def isolation_forest(train: Floats, test: Floats) -> Flags:
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(random_state=0, n_jobs=1).fit(train)
    return np.asarray(-forest.score_samples(test) > np.quantile(-forest.score_samples(train), QUANTILE))


def _standard(train: Floats, rows: Floats) -> Floats:
    width = train.std(0)
    return np.asarray((rows - train.mean(0)) / np.where(width > 0, width, 1.0))


def _components(rows: Floats) -> tuple[Floats, Floats]:
    """(axes as columns, variance along each), those without variance left out."""
    _, sizes, axes = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    kept = sizes > 1e-9 * sizes[0]
    return axes[kept].T, sizes[kept] ** 2 / len(rows)


BASELINES: dict[str, Callable[[Floats, Floats], Flags]] = {
    "always anomalous": always,
    "T2": t2,
    "PCA T2+Q": pca_t2_q,
    "isolation forest": isolation_forest,
}
