"""How the machine wears out. Everything about a life follows from the seed, before it begins.

- How long it lives: Weibull with shape 3 (wear-out) and the mean that is asked for.
- What fails: one of `MODES`, drawn, or the one that is asked for. `none` never fails.
- When the fault begins: at 50 to 80 % of the life.
- How it grows: u runs from 0 to 1 between begin and failure, in jumps (a gamma process, the usual model of wear that never heals;
  van Noortwijk, "A survey of the application of gamma processes in maintenance", RESS 94, 2009), and the severity is
  (exp(3u) − 1)/(exp(3) − 1): slow first, fast at the end. At 1 the machine fails and stops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MODES = ("outer", "inner", "ball", "unbalance", "looseness", "valve", "impeller")
SHAPE, GROWTH, JUMPS, VARIANCE = 3.0, 3.0, 400, 0.05
DAY_S = 86_400.0


@dataclass(frozen=True)
class Life:
    """Times in simulated seconds; `begin_s` and `failure_s` are infinite for a machine that never fails."""

    mode: str
    begin_s: float
    failure_s: float
    path: Floats  # u at JUMPS + 1 even times from begin to failure

    def severity(self, t_s: Floats) -> Floats:
        """0 to 1; stays 1 after the failure."""
        if not math.isfinite(self.failure_s):
            return np.zeros_like(t_s)
        at = (t_s - self.begin_s) / (self.failure_s - self.begin_s)
        u = np.interp(at, np.linspace(0, 1, len(self.path)), self.path)
        return np.asarray(np.expm1(GROWTH * u) / math.expm1(GROWTH))


def draw(seed: int, mean_days: float, mode: str = "") -> Life:
    """`mode` empty: drawn."""
    rng = np.random.default_rng([seed, 1])
    mode = mode or str(rng.choice(MODES))
    length_s = mean_days * DAY_S * float(rng.weibull(SHAPE)) / math.gamma(1 + 1 / SHAPE)
    length_s = max(length_s, 0.2 * mean_days * DAY_S)
    begin_s = length_s * float(rng.uniform(0.5, 0.8))
    steps = rng.gamma(1 / (VARIANCE * JUMPS), 1.0, JUMPS) + 0.2 / (VARIANCE * JUMPS)
    path = np.concatenate([[0.0], np.minimum(np.cumsum(steps) / steps.sum(), 1.0)])
    path[-1] = 1.0
    if mode == "none":
        begin_s = length_s = math.inf
    return Life(mode, begin_s, length_s, path)
