"""Recordings for the tests: tags that follow a common cause, and a fault in one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.wire.series import Feature, FeatureView, TagView

TAGS = ("flow", "pressure", "current", "temperature")


def rows(count: int, seed: int = 0) -> NDArray[np.float64]:
    """Stationary: first-order, one cause in all tags, of very different sizes."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count + 50, 5))
    for i in range(1, len(noise)):
        noise[i] += 0.6 * noise[i - 1]
    values = noise[50:, :1] * np.array([1.0, -0.5, 0.3, 0.0]) + noise[50:, 1:]
    return np.asarray(values * np.array([1e-3, 1.0, 1e6, 5.0]) + np.array([0.0, 20.0, 1e9, 60.0]))


def view(window_rows: int = 5) -> FeatureView:
    return FeatureView("made", "1", tuple(TagView(t) for t in TAGS), (Feature("mean"),), 1.0, window_rows)


def write_csv(path: Path, values: NDArray[np.float64], header: tuple[str, ...] = TAGS) -> Path:
    lines = [",".join(["time", *header])]
    lines += [",".join([str(i), *("" if np.isnan(v) else repr(float(v)) for v in row)]) for i, row in enumerate(values)]
    path.write_text("\n".join(lines) + "\n")
    return path
