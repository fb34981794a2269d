"""Features: rows on the grid become columns, the same function for training and for the device. NumPy only.

`columns(rows, view)` gives a row of columns for each place where the whole window is there (from `min_rows` rows on where
the view says so); a column at row t depends on the rows t − window_rows + 1 … t alone (causal by construction; a property
test changes later rows). A NaN anywhere in what a feature looks at makes its column NaN; the caller gives no score then,
it never fills in a number.

A column of constant input has a stated value, never NaN: kurtosis, skew, crest, corr of no variation are 0; the log of an
energy has a floor (`FLOOR`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edge_runtime.wire.series import BANDED, PAIRED, POOLED, Feature, FeatureView, Scaler, SeriesManifest

Array = NDArray[np.float64]
FLOOR = 1e-12
BLOCK_VALUES = 1 << 22  # the most values of windows at a time in a spectrum, so that long recordings fit in memory


def columns(rows: Array, view: FeatureView, newest: int | None = None) -> Array:
    """(n − window_rows + 1, columns) of raw rows (n, tags), or n − min_rows + 1 rows; none where n is smaller. `newest`:
    only so many of the last rows of it."""
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2 or rows.shape[1] != len(view.tags):
        raise ValueError(f"rows have shape {rows.shape}, expected (n, {len(view.tags)})")
    places = len(rows) - (view.min_rows or view.window_rows) + 1
    if newest is not None:
        places = min(places, newest)
    if places < 1:
        return np.empty((0, len(view.columns())))
    with np.errstate(invalid="ignore", over="ignore"):
        rows = signals(rows, view)
        parts = [_feature(rows, feature, view, places) for feature in view.features]
    return np.concatenate(parts, axis=1)


def signals(rows: Array, view: FeatureView) -> Array:
    """(n, tags and blends): what features look at, in the order of `view.signal_names`."""
    rows = normalised(rows, view)
    blends = [(rows @ np.array(blend.weights) + blend.offset)[:, None] for blend in view.blends]
    return np.concatenate([rows, *blends], axis=1) if blends else rows


def normalised(rows: Array, view: FeatureView) -> Array:
    """Each row by the mean and scale of its regime; NaN where a setting is missing. As they are without regimes."""
    if not view.regimes:
        return rows
    settings = rows[:, [view.tag_names.index(name) for name in view.settings]]
    centers = np.array([regime.center for regime in view.regimes]).reshape(len(view.regimes), -1)
    distance = (settings[:, None] - centers) / np.array(view.setting_scale)
    nearest = (distance**2).sum(-1).argmin(1)
    mean, spread = (np.array([getattr(regime, name) for regime in view.regimes]) for name in ("mean", "scale"))
    missing = np.isnan(settings).any(1, keepdims=True)
    return np.asarray(np.where(missing, np.nan, (rows - mean[nearest]) / spread[nearest]))


def scale(values: Array, scaler: Scaler) -> NDArray[np.float32]:
    scaled = (values - np.asarray(scaler.center)) / np.asarray(scaler.scale)
    return np.asarray(np.clip(scaled, -scaler.clip, scaler.clip), np.float32)


def model_input(window: Array, manifest: SeriesManifest) -> NDArray[np.float32] | None:
    """float32 (1, history, columns) of the last `view.rows` raw rows; None where something in it is missing."""
    view = manifest.view
    if len(window) < view.least_rows:
        raise ValueError(f"a window of {len(window)} rows, expected {view.least_rows}")
    found = filled(columns(window[-view.rows :], view, view.history_rows), view)[-view.history_rows :]
    if not np.isfinite(found).all():
        return None
    return np.ascontiguousarray(scale(found, manifest.scaler)[None])


def filled(found: Array, view: FeatureView) -> Array:
    """Columns with enough copies of the oldest row before it that the first row has a history; for `min_rows` alone."""
    if not view.min_rows or not len(found):
        return found
    return np.concatenate([np.repeat(found[:1], view.history_rows - 1, axis=0), found])


def sequences(scaled: NDArray[np.float32], history_rows: int) -> NDArray[np.float32]:
    """(n − history + 1, history, columns) view of scaled columns (n, columns): every input, in order."""
    if len(scaled) < history_rows:
        return np.empty((0, history_rows, scaled.shape[1]), np.float32)
    return sliding_window_view(scaled, history_rows, axis=0).transpose(0, 2, 1)


def _feature(rows: Array, feature: Feature, view: FeatureView, places: int) -> Array:
    length = 1 if feature.kind == "value" else feature.rows or view.window_rows
    tags = [view.signal_names.index(name) for name in feature.tags or view.tag_names]
    short = range(len(rows) - places + 1, min(length, len(rows) + 1))  # rows there are, where the window is not full
    if feature.kind in GROWING and len(short) > 1:
        started = [GROWING[feature.kind](rows[: short.stop - 1, tags], view.grid_s)[short.start - 1 :]]
    else:
        started = [_whole(rows[:count, tags], feature, view, count, 1) for count in short]
    if places > len(short):
        used = rows[len(rows) - (places - len(short)) - length + 1 :, tags]
        started.append(_whole(used, feature, view, length, places - len(short)))
    return np.concatenate(started)


def _whole(used: Array, feature: Feature, view: FeatureView, length: int, places: int) -> Array:
    """The columns of one feature at each of `places` where `length` rows are there."""
    windows = sliding_window_view(used, length, axis=0)  # (places, tags, length)
    if feature.kind in PAIRED or feature.kind in POOLED:
        return CROSS[feature.kind](windows)[:, None]
    if feature.kind in BANDED:
        block = max(1, BLOCK_VALUES // max(1, windows.shape[1] * length))
        band = (feature.low_hz, feature.high_hz, view.grid_s)
        spectrum = BANDS[feature.kind]
        return np.concatenate([spectrum(windows[i : i + block], *band) for i in range(0, places, block)])
    return np.asarray(SINGLE[feature.kind](windows, view.grid_s))


def _slope(x: Array, grid_s: float) -> Array:
    length = x.shape[-1]
    if length < 2:
        return np.where(np.isfinite(x[..., 0]), 0.0, np.nan)
    time = (np.arange(length) - (length - 1) / 2) * grid_s
    return np.asarray((x - x[..., :1]) @ time / (time @ time))


def _moment(x: Array, power: int) -> Array:
    """Standardised central moment; 0 where there is no variation beyond rounding."""
    mean = x.mean(-1, keepdims=True)
    centred = x - mean
    variance = (centred**2).mean(-1)
    flat = variance <= (1e-12 * np.maximum(np.abs(mean[..., 0]), FLOOR)) ** 2
    return np.asarray(np.where(flat, 0.0, (centred**power).mean(-1) / np.where(flat, 1.0, variance) ** (power / 2)))


def _kurtosis(x: Array, _: float) -> Array:
    moment = _moment(x, 4)
    return np.asarray(np.where(moment == 0.0, 0.0, moment - 3.0))


def _rms(x: Array, _: float) -> Array:
    return np.asarray(np.sqrt((x**2).mean(-1)))


def _crest(x: Array, _: float) -> Array:
    rms = _rms(x, 0.0)
    return np.asarray(np.where(rms == 0.0, 0.0, np.abs(x).max(-1) / np.where(rms == 0.0, 1.0, rms)))


def _corr(x: Array) -> Array:
    a, b = (x[:, i] - x[:, i].mean(-1, keepdims=True) for i in (0, 1))
    power = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.asarray(np.where(power <= FLOOR, 0.0, (a * b).sum(-1) / np.where(power <= FLOOR, 1.0, power)))


def _ratio(x: Array) -> Array:
    """Log of the ratio of the two means' sizes, with a floor: bounded and finite."""
    a, b = (np.log(np.abs(x[:, i].mean(-1)) + FLOOR) for i in (0, 1))
    return np.asarray(a - b)


@lru_cache(maxsize=16)
def _hann(length: int) -> Array:
    return np.hanning(length + 2)[1:-1]


def _band(power: Array, low_hz: float, high_hz: float, resolution_hz: float) -> Array:
    hz = np.arange(power.shape[-1]) * resolution_hz
    chosen = power[..., (hz >= low_hz) & (hz < high_hz + 1e-9)]
    return np.asarray(np.log(chosen.sum(-1) + FLOOR))


def _log_energy(x: Array, low_hz: float, high_hz: float, grid_s: float) -> Array:
    length = x.shape[-1]
    window = _hann(length)
    centred = (x - x.mean(-1, keepdims=True)) * window
    power = np.abs(np.fft.rfft(centred)) ** 2 / (window**2).sum() / length
    return _band(power, low_hz, high_hz, 1 / (length * grid_s))


def envelope_spectrum(x: Array) -> Array:
    """Power spectrum of the envelope (size of the analytic signal), mean removed, along the last axis."""
    length = x.shape[-1]
    spectrum = np.fft.fft(x - x.mean(-1, keepdims=True))
    gain = np.zeros(length)
    gain[0] = 1.0
    gain[1 : (length + 1) // 2] = 2.0
    if length % 2 == 0:
        gain[length // 2] = 1.0
    envelope = np.abs(np.fft.ifft(spectrum * gain))
    window = _hann(length)
    centred = (envelope - envelope.mean(-1, keepdims=True)) * window
    return np.asarray(np.abs(np.fft.rfft(centred)) ** 2 / (window**2).sum() / length)


def _envelope(x: Array, low_hz: float, high_hz: float, grid_s: float) -> Array:
    return _band(envelope_spectrum(x), low_hz, high_hz, 1 / (x.shape[-1] * grid_s))


def _growing_mean(x: Array, _: float) -> Array:
    """(n, tags): of the first 1, 2, … n rows; as are the two below."""
    return np.asarray(x[0] + np.cumsum(x - x[0], 0) / np.arange(1, len(x) + 1)[:, None])


def _growing_std(x: Array, _: float) -> Array:
    count, shifted = np.arange(1, len(x) + 1)[:, None], x - x[0]
    return np.sqrt(np.maximum(np.cumsum(shifted**2, 0) / count - (np.cumsum(shifted, 0) / count) ** 2, 0.0))


def _growing_slope(x: Array, grid_s: float) -> Array:
    count, shifted = np.arange(1, len(x) + 1)[:, None], x - x[0]
    covariance = np.cumsum((count - 1) * shifted, 0) - (count - 1) / 2 * np.cumsum(shifted, 0)
    return np.asarray(covariance / np.where(count < 2, 1.0, count * (count**2 - 1) / 12) / grid_s)


# The kinds that have a formula for every length at once; the others are computed a length at a time.
GROWING: dict[str, Callable[[Array, float], Array]] = {
    "mean": _growing_mean,
    "std": _growing_std,
    "slope": _growing_slope,
}
SINGLE: dict[str, Callable[[Array, float], Any]] = {
    "value": lambda x, _: x[..., -1],
    "mean": lambda x, _: x.mean(-1),
    "std": lambda x, _: x.std(-1),
    "min": lambda x, _: x.min(-1),
    "max": lambda x, _: x.max(-1),
    "range": lambda x, _: x.max(-1) - x.min(-1),
    "median": lambda x, _: np.median(x, -1),
    "slope": _slope,
    "diff": lambda x, _: x[..., -1] - x[..., 0],
    "rms": _rms,
    "kurtosis": _kurtosis,
    "skew": lambda x, _: _moment(x, 3),
    "crest": _crest,
}
BANDS: dict[str, Callable[[Array, float, float, float], Array]] = {"log_energy": _log_energy, "envelope": _envelope}
CROSS: dict[str, Callable[[Array], Array]] = {
    "corr": _corr,
    "ratio": _ratio,
    "spread": lambda x: np.asarray(x.mean(-1).std(-1)),
}
