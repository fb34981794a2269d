"""Lives of the simulated pump as a device sees them: `SAMPLES_PER_ROW` readings a row, a row an hour of the pump's life.

The simulator runs `SPEED` times faster than the clock of the device, so that an hour of the pump is `GRID_S` seconds of
the device: the bundles are made for `gudgeon demo pdm`, and the same bundles are what `make lead-time` measures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.field.window import align
from edge_runtime.wire.series import FeatureView
from firmware_sim.pump import generate

Floats = NDArray[np.float64]
SPEED = 7200.0
ROW_H = 1.0
GRID_S = ROW_H * 3600 / SPEED
SAMPLES_PER_ROW = 3
STEP_S = ROW_H * 3600 / SAMPLES_PER_ROW  # of the pump's time
MEAN_LIFE_DAYS = 21.0
#: what a model may look at; speed tells whether the pump runs, and operating_s would tell its age
TAGS = (
    "valve", "flow", "suction", "discharge", "current", "bearing_temp", "motor_temp", "ambient_temp",
    "vib_rms", "vib_peak", "vib_kurtosis", "vib_velocity", "vib_envelope",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Life:
    """One life. `times_ns`: of the readings, on the device's clock from 0; `values` by tag. `begin_s`, `failure_s`: in the
    device's seconds, infinite where nothing fails."""

    seed: int
    mode: str
    times_ns: NDArray[np.int64]
    values: dict[str, Floats]
    begin_s: float
    failure_s: float


def life(seed: int, mode: str = "", days: float | None = None, dirt_per_week: float = 0.0) -> Life:
    """`days` None: until the failure."""
    run = generate.run(seed, STEP_S, days, MEAN_LIFE_DAYS, mode, dirt_per_week)
    times_ns = np.rint(run.t_s / SPEED * 1e9).astype(np.int64)
    return Life(seed, run.mode, times_ns, run.values, run.begin_s / SPEED, run.failure_s / SPEED)


def rows(found: Life, view: FeatureView) -> Floats:
    """(n, tags) on the grid, as the device makes them."""
    grid_ns = round(view.grid_s * 1e9)
    end_ns = int(found.times_ns[-1]) // grid_ns * grid_ns
    return align({name: (found.times_ns, found.values[name]) for name in view.tag_names}, view, grid_ns, end_ns)


def remaining_h(found: Life, view: FeatureView, cap: float) -> Floats:
    """What is left at each of `rows`, in hours of the pump, limited to the cap."""
    count = len(rows(found, view))
    at_s = (np.arange(count) + 1) * view.grid_s
    return np.asarray(np.clip((found.failure_s - at_s) / view.grid_s * ROW_H, 0.0, cap))
