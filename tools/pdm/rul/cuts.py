"""Where a unit that ran to failure is cut, to stand for one that still runs: the distribution that everything is judged by.

`recent`: the life that remains after the cut is uniform on 1…150 cycles, and at least 30 cycles have been seen.
`life`: the cut is uniform over the life, at least 30 cycles seen and 1 left. Both use no answer of a test file; how close
each comes to the lengths of a test file is what `length_distance` says (Kolmogorov and Smirnov's distance). `recent` is
the one that intervals are calibrated for. A unit too short for either may be cut anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tools.pdm.rul.data import Unit

Floats = NDArray[np.float64]

SEEN_LEAST = 30
LEFT_MOST = 150


def _recent(seen: NDArray[np.int64], left: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray((seen >= SEEN_LEAST) & (left >= 1) & (left <= LEFT_MOST))


def _life(seen: NDArray[np.int64], left: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray((seen >= SEEN_LEAST) & (left >= 1))


DISTRIBUTIONS: dict[str, Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]] = {
    "recent": _recent,
    "life": _life,
}


def weights(life: int, name: str = "recent") -> Floats:
    """The probability of a cut after each of a unit's `life` rows; sums to 1."""
    seen = np.arange(1, life + 1)
    allowed = DISTRIBUTIONS[name](seen, life - seen)
    if not allowed.any():
        allowed = np.ones(life, bool)
    return np.asarray(allowed / allowed.sum())


def draw(life: int, count: int, rng: np.random.Generator, name: str = "recent") -> NDArray[np.int64]:
    """`count` rows to cut after, as indices, with replacement."""
    return rng.choice(life, count, p=weights(life, name))


def length_distance(units: Sequence[Unit], lengths: Sequence[int], name: str) -> float:
    """The largest difference between two distributions of lengths: of the cuts of `units`, and of `lengths`."""
    longest = max(max(len(unit) for unit in units), max(lengths))
    mass = np.zeros(longest + 1)
    for unit in units:
        mass[1 : len(unit) + 1] += weights(len(unit), name) / len(units)
    seen = np.bincount(np.asarray(lengths), minlength=longest + 1) / len(lengths)
    return float(np.abs(np.cumsum(mass) - np.cumsum(seen)).max())
