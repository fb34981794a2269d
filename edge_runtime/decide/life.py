"""The remaining life of one asset, smoothed over its rows (`infer.kalman`). Pure.

How far an answer scatters is what its own interval says: the interval of coverage c is taken as ± z(c) standard deviations.
"""

from __future__ import annotations

from statistics import NormalDist

from edge_runtime.decide.asset_config import RemainingLevels
from edge_runtime.infer import kalman
from edge_runtime.infer.kalman import Noise, State
from edge_runtime.infer.series import Remaining
from edge_runtime.wire.series import SeriesManifest

LEAST_SD_ROWS = 0.5


class Life:
    """`value`: in the bundle's unit; None before the first answer."""

    def __init__(self, settings: RemainingLevels, manifest: SeriesManifest) -> None:
        interval = manifest.interval
        assert interval is not None
        row_h = manifest.view.grid_s * manifest.view.step_rows * settings.times_faster / 3600
        self._rows_per_unit = settings.hours_per_unit / row_h
        self._cap = interval.cap * self._rows_per_unit
        self._z = NormalDist().inv_cdf(0.5 + interval.coverage / 2)
        self._life_variance = settings.pace**2
        self._state: State | None = None

    @property
    def value(self) -> float | None:
        return None if self._state is None else self._state.life / self._rows_per_unit

    def add(self, answer: Remaining | None) -> float | None:
        """One row more; None for a row without an answer, on which the life goes on as before."""
        if answer is None:
            noise = Noise(self._life_variance, 1.0)
            self._state = kalman.step(self._state, None, noise, self._cap)
            return self.value
        half_rows = (answer.upper - answer.lower) / 2 * self._rows_per_unit
        noise = Noise(self._life_variance, max(half_rows / self._z, LEAST_SD_ROWS) ** 2)
        self._state = kalman.step(self._state, answer.remaining * self._rows_per_unit, noise, self._cap)
        return self.value
