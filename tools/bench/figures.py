"""Figures of a benchmark: percentiles, and the ratio of a subject to its floor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def percentiles_us(times_ns: Sequence[int]) -> dict[str, float]:
    """p50, p90, p99 and max in microseconds."""
    us = np.asarray(times_ns, np.float64) / 1000.0
    p50, p90, p99 = np.percentile(us, (50, 90, 99))
    return {"p50": round(p50, 1), "p90": round(p90, 1), "p99": round(p99, 1), "max": round(float(us.max()), 1)}


def row(name: str, times_ns: Sequence[int], floor_ns: Sequence[int], per: int = 1) -> dict[str, Any]:
    """One line of a result: `per` is how many operations each time covers. `ratio` is p50 over the floor's p50."""
    each = [t // per for t in times_ns]
    ratio = float(np.median(each)) / float(np.median(floor_ns))
    return {"name": name, "us": percentiles_us(each), "ratio_p50": round(ratio, 3)}
