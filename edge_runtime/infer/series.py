"""SeriesModel: a verified bundle of time series and the engine that runs it; from raw rows on the grid to an answer.

What was not there is never made up: where a window has a missing value there is no score, and the answer says so
(`quality` uncertain, `reason`). Smoothing restarts after such a gap, so that no score mixes times on both sides of it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edge_runtime.errors import BundleError
from edge_runtime.field.tag import Quality
from edge_runtime.infer import features, select, series_bundle
from edge_runtime.infer.engine import Engine
from edge_runtime.infer.select import Refusal
from edge_runtime.infer.series_bundle import Reference
from edge_runtime.wire.series import Calibration, Interval, SeriesManifest

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """`values` is None where the window's quality is not good; `reason` says why. `inputs`: the newest scaled columns,
    for drift. `steps_us`: time of features and infer in microseconds."""

    values: NDArray[np.float32] | None
    inputs: NDArray[np.float32] | None
    quality: Quality
    reason: str
    steps_us: dict[str, int]


@dataclass(frozen=True)
class Anomaly:
    """`score` is smoothed; `severity` the highest of the calibration's levels that it passes, empty below the threshold
    or where it names none. `shares`: what each tag adds, largest first, of the newest window."""

    score: float
    threshold: float
    anomalous: bool
    severity: str
    shares: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Remaining:
    remaining: float
    lower: float
    upper: float
    unit: str


class Smoother:
    """The last `smooth_rows` scores as one number. `reset` after a gap."""

    def __init__(self, calibration: Calibration) -> None:
        self._kind, self._rows = calibration.smoothing, calibration.smooth_rows
        self._recent: deque[float] = deque(maxlen=max(1, self._rows))
        self._ewma: float | None = None

    def add(self, score: float) -> float:
        if self._kind == "ewma":
            alpha = 2.0 / (self._rows + 1.0)
            self._ewma = score if self._ewma is None else self._ewma + alpha * (score - self._ewma)
            return self._ewma
        if self._kind == "none":
            return score
        self._recent.append(score)
        return float(np.median(self._recent) if self._kind == "median" else np.mean(self._recent))

    def reset(self) -> None:
        self._recent.clear()
        self._ewma = None


def smooth(scores: Floats, calibration: Calibration) -> Floats:
    """`Smoother` over a whole series at once, for training and evaluation: the same numbers, a NaN is a gap."""
    smoother = Smoother(calibration)
    out = np.full(len(scores), np.nan)
    for i, score in enumerate(scores):
        if np.isfinite(score):
            out[i] = smoother.add(float(score))
        else:
            smoother.reset()
    return out


def remaining(values: NDArray[np.float32], interval: Interval) -> Remaining:
    """A rul model's three values as an answer: ends widened, all limited to 0…cap and in order."""
    middle, low, high = (float(v) for v in values)
    middle = min(max(middle, 0.0), interval.cap)
    lower = min(max(low - interval.lower_offset, 0.0), middle)
    upper = max(min(high + interval.upper_offset, interval.cap), middle)
    return Remaining(middle, lower, upper, interval.unit)


class SeriesModel:
    """`answer` is free of state; `judge` smooths, so that one SeriesModel follows one asset. `refused` are the variants
    that failed their golden vectors on this board."""

    def __init__(
        self,
        manifest: SeriesManifest,
        digest: str,
        engine: Engine,
        reference: Reference | None = None,
        refused: tuple[Refusal, ...] = (),
    ) -> None:
        self.manifest, self.digest, self.engine = manifest, digest, engine
        self.reference, self.refused = reference, refused
        self._smoother = Smoother(manifest.calibration) if manifest.calibration else None

    def answer(
        self, window: Floats, stale: tuple[str, ...] = (), timer: Callable[[], int] = time.perf_counter_ns
    ) -> Answer:
        """Run the model on the newest `view.rows` raw rows (rows, tags). Fewer than `least_rows` or a missing
        value: no values; nor where a tag is `stale` (`field.window.Aligner.stale`), though its value is still held.

        Raises `errors.BundleError` where the engine fails."""
        view = self.manifest.view
        if stale:
            return Answer(None, None, Quality.UNCERTAIN, f"nothing new from {', '.join(stale)}", {})
        if len(window) < view.least_rows:
            return Answer(None, None, Quality.UNCERTAIN, f"{len(window)} of {view.least_rows} rows so far", {})
        t0 = timer()
        x = features.model_input(window, self.manifest)
        t1 = timer()
        if x is None:
            return Answer(None, None, Quality.UNCERTAIN, self._missing(window), {"features": (t1 - t0) // 1000})
        values = self.engine.infer(x)
        steps = {"features": (t1 - t0) // 1000, "infer": (timer() - t1) // 1000}
        if values.shape != (self.manifest.values,) or not np.isfinite(values).all():
            raise BundleError(
                f"engine {self.engine.name}: gave {values}, expected {self.manifest.values} finite numbers"
            )
        return Answer(values, x[0, -1], Quality.GOOD, "", steps)

    def judge(self, answer: Answer) -> Anomaly | None:
        """The verdict of an anomaly model, or None where there is no answer (the smoothing then restarts)."""
        calibration = self.manifest.calibration
        if calibration is None or self._smoother is None:
            raise BundleError(f"bundle {self.manifest.name} is of kind {self.manifest.kind}, expected anomaly")
        if answer.values is None:
            self._smoother.reset()
            return None
        score = self._smoother.add(float(answer.values[0]))
        named = sorted(zip(self.manifest.view.tag_names, answer.values[1:].tolist(), strict=True), key=lambda s: -s[1])
        passed = [(level, name) for name, level in calibration.levels.items() if score > level]
        severity = max(passed)[1] if passed else ""
        return Anomaly(score, calibration.threshold, score > calibration.threshold, severity, tuple(named))

    def remaining(self, answer: Answer) -> Remaining | None:
        """The answer of a rul model, or None where there is none."""
        if self.manifest.interval is None:
            raise BundleError(f"bundle {self.manifest.name} is of kind {self.manifest.kind}, expected rul")
        return None if answer.values is None else remaining(answer.values, self.manifest.interval)

    def _missing(self, window: Floats) -> str:
        recent = window[-self.manifest.view.rows :]
        holes = np.isnan(recent).sum(0)
        gaps = [name for name, hole in zip(self.manifest.view.tag_names, holes, strict=True) if hole]
        return f"missing values of {', '.join(gaps)}" if gaps else "a feature is not finite"


def run_many(manifest: SeriesManifest, engine: Engine, rows: Floats) -> Floats:
    """The engine's values at every row of a long recording, NaN where there is no answer: float64 (n, values)."""
    view = manifest.view
    out = np.full((len(rows), manifest.values), np.nan)
    found = features.filled(features.columns(rows, view), view)
    first = len(rows) - len(found)  # below 0 where the history was filled
    usable = np.asarray(np.isfinite(found).all(1))
    scaled = np.where(usable[:, None], features.scale(found, manifest.scaler), 0.0).astype(np.float32)
    if len(found) < view.history_rows:
        return out
    whole = sliding_window_view(usable, view.history_rows).sum(-1)
    inputs = features.sequences(scaled, view.history_rows)
    for i in np.flatnonzero(whole == view.history_rows):
        out[first + view.history_rows - 1 + i] = engine.infer(np.ascontiguousarray(inputs[i][None]))
    return out


def load_series_model(bundle_dir: Path, cache_path: Path, prefer: str = "auto") -> SeriesModel:
    """Verify the bundle, take the fastest variant that passes its golden vectors here, and warm it up.

    Raises `errors.BundleError` where the bundle is refused."""
    bundle = series_bundle.load(bundle_dir)
    choice = select.choose(bundle, cache_path, prefer)
    for x in bundle.golden_inputs(3):
        choice.engine.infer(x)
    return SeriesModel(bundle.manifest, bundle.digest, choice.engine, bundle.reference, choice.refused)
