"""Fit an anomaly model to normal rows: scaler → members → one calibration of the whole. Pure: rows in, `Fitted` out.

Every number that says how scores are spread (the members' units, the threshold) comes from rows that the model which
scored them was not fitted to: contiguous blocks are held out in turn, with a gap of half a block, at least a window, on
both sides: rows are like their neighbours for longer than a window, and a threshold from rows right beside those that the
model was fitted to is too low. Then the model that ships is fitted to all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge_runtime.errors import DataError
from edge_runtime.infer import features
from edge_runtime.infer.series import smooth
from edge_runtime.wire.series import Calibration, FeatureView, Scaler
from tools.pdm import calibrate
from tools.pdm.graph import FLOOR, Builder, finish
from tools.pdm.members import HISTORY_ROWS, MEMBERS, Inputs, Member, Recipe

Floats = NDArray[np.float64]
Report = Callable[[str, int, int], None]
DRIFT_BLOCKS = 8
ROWS_MIN = 60
INPUTS_LIMIT_BYTES = 2 * 1024**3
LEVELS = ("low", "medium", "high", "critical")


@dataclass(frozen=True)
class Settings:
    """What can be chosen, the same for every recording. `drift`: how much of what a column wandered between blocks of
    the training rows counts as normal (`scaler`). `rate`: the stated share of normal rows above the threshold.
    `levels`: one rate each for low, medium, high, critical, none above `rate`."""

    members: tuple[str, ...] = ("distance", "dense", "conv")
    drift: float = 1.0
    folds: int = 4
    rate: float = 1e-3
    method: str = "auto"
    smoothing: str = "none"
    smooth_rows: int = 1
    levels: tuple[float, ...] = ()
    clip: float = 20.0
    seed: int = 0
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True, eq=False)
class Fitted:
    """`held_out`: the smoothed scores of each held-out block. `inputs`: the scaled columns it was fitted to."""

    view: FeatureView
    scaler: Scaler
    onnx: bytes
    calibration: Calibration
    held_out: tuple[Floats, ...]
    inputs: Inputs


def history_rows(members: Sequence[str]) -> int:
    return max((HISTORY_ROWS.get(name, 1) for name in members), default=1)


def fit(runs: Sequence[Floats], view: FeatureView, settings: Settings, report: Report = lambda *_: None) -> Fitted:
    """`runs`: raw rows on the grid (n, tags), each recorded in one go. DataError where they cannot give a model."""
    check(settings)
    view = replace(view, history_rows=history_rows(settings.members))
    columns = [features.columns(rows, view) for rows in runs]
    _check_rows(columns, view, settings)
    steps = settings.folds + 1
    errors: list[Floats] = []
    lengths: list[list[int]] = []
    for k in range(settings.folds):
        report("held-out block", k, steps)
        kept, held = _hold_out(columns, view.rows, k, settings.folds)
        if not _whole(held, view) or not _whole(kept, view):
            continue  # a long hole: what stands on its one side is held out by the other blocks
        members, scaler = _fit_members(kept, view, settings)
        parts = [_inputs([part], view, scaler) for part in held]
        lengths.append([len(part) for part in parts])
        errors.append(run(write_errors(members, view), np.concatenate(parts)))
    if len(errors) < 2:
        raise DataError(
            "the recordings have holes so long that no block of them can be held out from the others; give each part "
            "between holes as a file of its own"
        )
    report("all rows", settings.folds, steps)
    units = np.median(np.concatenate(errors), axis=0)
    members, scaler = _fit_members(columns, view, settings)
    scores = [_smoothed(_combined(e, units), n, settings) for e, n in zip(errors, lengths, strict=True)]
    calibration = calibration_of(scores, view, settings)
    report("done", steps, steps)
    return Fitted(view, scaler, write(members, units, view), calibration, tuple(scores), _inputs(columns, view, scaler))


def check(settings: Settings) -> None:
    if unknown := [name for name in settings.members if name not in MEMBERS]:
        raise DataError(f"no model {unknown[0]!r}; there are {', '.join(MEMBERS)}")
    if not settings.members:
        raise DataError(f"no model named; there are {', '.join(MEMBERS)}")
    if any(level > settings.rate for level in settings.levels):
        raise DataError(f"the rates of severities must not be above the false-alarm rate {settings.rate}")


def drift_scaler(columns: Floats, settings: Settings) -> Scaler:
    """Center: the median. Scale: √(variance + (drift × range of the means of `DRIFT_BLOCKS` blocks)²): a column that
    wanders by itself in the training rows is expected to wander on, and counts for less."""
    good = columns[np.isfinite(columns).all(1)]
    center = np.median(good, axis=0)
    blocks = np.stack([block.mean(0) for block in np.array_split(good, min(DRIFT_BLOCKS, len(good)))])
    with np.errstate(over="ignore"):
        scale = np.sqrt(good.var(0) + (settings.drift * np.ptp(blocks, axis=0)) ** 2)
    if not np.isfinite(scale).all():
        raise DataError(
            f"a value of {np.abs(good).max():g} is too large to be learned from; leave the rows with it out, or the tag"
        )
    floor = 1e-9 * np.maximum(np.abs(center), 1e-3)
    return Scaler(tuple(center.tolist()), tuple(np.maximum(scale, floor).tolist()), settings.clip)


def write(members: Sequence[Member], units: NDArray[np.float64], view: FeatureView) -> bytes:
    """The whole graph: [score, share of each tag]."""
    b = Builder()
    columns = len(view.columns())
    newest = b.last_row("x", view.history_rows, columns)
    written = [member.write(b, "x", newest) for member in members]
    output = finish(b, written, units.tolist(), tags_of_columns(view))
    return b.model(view.history_rows, columns, output, 1 + len(view.tags))


def write_errors(members: Sequence[Member], view: FeatureView) -> bytes:
    """A graph of the members' errors alone, for the held-out blocks."""
    b = Builder()
    columns = len(view.columns())
    newest = b.last_row("x", view.history_rows, columns)
    errors = [member.write(b, "x", newest)[0] for member in members]
    return b.model(view.history_rows, columns, b.add("Concat", errors, axis=1), len(errors))


def run(graph: bytes, inputs: Inputs) -> Floats:
    """The graph's values for many inputs at once."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    parts = [session.run(None, {"x": np.ascontiguousarray(part)})[0] for part in _parts(inputs, 4096)]
    return np.concatenate(parts).astype(np.float64)


def values_at(fitted: Fitted, rows: Floats) -> Floats:
    """[score, shares] at every row of a recording, (n, 1 + tags), NaN where there is no answer."""
    view = fitted.view
    out = np.full((len(rows), 1 + len(view.tags)), np.nan)
    found = features.columns(rows, view)
    usable = _usable(found, view.history_rows)
    if usable.any():
        scaled = features.scale(np.nan_to_num(found), fitted.scaler)
        places = np.flatnonzero(usable)
        values = run(fitted.onnx, features.sequences(scaled, view.history_rows)[places])
        out[len(rows) - len(usable) + places] = values
    return out


def scores_at(fitted: Fitted, rows: Floats) -> Floats:
    """Smoothed scores at every row, NaN where there is none: what the device compares with the threshold."""
    return smooth(values_at(fitted, rows)[:, 0], fitted.calibration)


def tags_of_columns(view: FeatureView) -> NDArray[np.float32]:
    matrix = np.zeros((len(view.columns()), len(view.tags)), np.float32)
    for i, (_, tags) in enumerate(view.columns()):
        for tag in tags:
            matrix[i, view.tag_names.index(tag)] = 1.0 / len(tags)
    return matrix


def calibration_of(scores: Sequence[Floats], view: FeatureView, settings: Settings) -> Calibration:
    pooled = np.concatenate(scores)
    found = calibrate.threshold(pooled, settings.rate, settings.method)
    rates = dict(zip(LEVELS, settings.levels, strict=False))
    levels = {n: max(found.value, calibrate.threshold(pooled, r, settings.method).value) for n, r in rates.items()}
    measured = calibrate.cross_rate(scores, settings.rate, settings.method, view.rows)
    return Calibration(
        method=found.method,
        false_alarm_rate=settings.rate,
        threshold=found.value,
        smoothing=settings.smoothing,
        smooth_rows=settings.smooth_rows,
        rows=len(pooled),
        measured_rate=measured[0],
        measured_low=measured[1],
        measured_high=measured[2],
        levels=levels,
    )


def _check_rows(columns: Sequence[Floats], view: FeatureView, settings: Settings) -> None:
    usable = _whole(columns, view)
    needed = max(ROWS_MIN, 2 * settings.folds * view.rows)
    if settings.folds < 2:
        raise DataError(f"{settings.folds} held-out blocks, expected at least 2")
    size_bytes = 4 * usable * view.history_rows * len(view.columns())
    if size_bytes > INPUTS_LIMIT_BYTES:
        raise DataError(
            f"{usable} windows of {view.history_rows} × {len(view.columns())} values are {size_bytes} bytes, over the limit "
            f"of {INPUTS_LIMIT_BYTES}; choose a coarser grid or fewer rows"
        )
    if usable < needed:
        raise DataError(
            f"{usable} whole windows of {view.rows} rows in the training rows, expected at least {needed}; record longer "
            "or fill the holes"
        )


def _whole(columns: Sequence[Floats], view: FeatureView) -> int:
    """How many whole histories of columns there are."""
    return sum(int(_usable(part, view.history_rows).sum()) for part in columns)


def _hold_out(columns: Sequence[Floats], rows: int, k: int, folds: int) -> tuple[list[Floats], list[Floats]]:
    """(what is kept, what is held out) of block `k` of every recording, with a gap on both sides of it; a window has `rows`."""
    kept, held = [], []
    for run_columns in columns:
        edges = np.linspace(0, len(run_columns), folds + 1).astype(int)
        start, end = int(edges[k]), int(edges[k + 1])
        gap = max(rows, (end - start) // 2)
        held.append(run_columns[start:end])
        kept += [run_columns[: max(0, start - gap)], run_columns[end + gap :]]
    return [part for part in kept if len(part)], held


def _fit_members(columns: Sequence[Floats], view: FeatureView, settings: Settings) -> tuple[list[Member], Scaler]:
    scaler = drift_scaler(np.concatenate(columns), settings)
    inputs = _inputs(columns, view, scaler)
    return [MEMBERS[name](inputs, settings.recipe, settings.seed) for name in settings.members], scaler


def _inputs(columns: Sequence[Floats], view: FeatureView, scaler: Scaler) -> Inputs:
    """Every whole history of the recordings, scaled: (n, history, columns)."""
    parts = [np.empty((0, view.history_rows, len(view.columns())), np.float32)]
    for run_columns in columns:
        usable = _usable(run_columns, view.history_rows)
        scaled = features.scale(np.nan_to_num(run_columns), scaler)
        parts.append(features.sequences(scaled, view.history_rows)[usable])
    return np.concatenate(parts)


def _combined(errors: Floats, units: Floats) -> Floats:
    """The score of members' errors, as the graph computes it (`graph.finish`)."""
    return np.asarray((errors / np.maximum(units, FLOOR)).mean(1))


def _smoothed(scores: Floats, lengths: Sequence[int], settings: Settings) -> Floats:
    """Smoothed within each recording, so that no score mixes two of them."""
    calibration = Calibration(settings.method, settings.rate, 0.0, settings.smoothing, settings.smooth_rows)
    pieces = np.split(scores, np.cumsum(lengths)[:-1])
    return np.concatenate([smooth(piece, calibration) for piece in pieces])


def _parts(inputs: Inputs, size: int) -> list[Inputs]:
    return [inputs[i : i + size] for i in range(0, len(inputs), size)]


def _usable(columns: Floats, history: int) -> NDArray[np.bool_]:
    """Where a whole history of columns without a hole ends."""
    good = np.asarray(np.isfinite(columns).all(1))
    if len(good) < history:
        return np.zeros(0, bool)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(good, history).all(-1))
