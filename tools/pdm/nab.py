"""`gudgeon evaluate nab`: one series of the Numenta Anomaly Benchmark, scored as its standard profile does.

The model is fitted to the probation rows (15 % of the rows, at most 750, as the benchmark has it), which are not scored;
every later row is scored with what was known then. A detection is a rise above the threshold after `QUIET_ROWS` rows
without one: an alarm, not every row that it lasts.

Scoring, for windows of labelled anomalies (Lavin and Ahmad 2015), A_TP = 1, A_FP = 0.11, A_FN = 1:

    σ(y) = 2 / (1 + e^(5y)) − 1, −1 beyond y = 3
    a window with a detection    + σ(y) / σ(−1) of its first one, y from −1 (its start) to 0 (its end)
    a window without             − A_FN
    a detection outside          + A_FP σ(y), y: rows since the last window's end over its width − 1; − A_FP before any

    score = 100 (sum + A_FN windows) / (2 windows): 0 for no detection at all, 100 for each window at its very start
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import DataError, exit_code
from edge_runtime.wire.series import Feature, FeatureView, TagView
from tools.pdm import fit
from tools.pdm.fit import Settings

Floats = NDArray[np.float64]
SERIES = "realKnownCause/machine_temperature_system_failure.csv"
WINDOWS = "labels/combined_windows.json"
PROBATION_SHARE, PROBATION_ROWS_MAX = 0.15, 750
TP, FP, FN = 1.0, 0.11, 1.0
ROWS = 12
ROWS_MIN = 500
QUIET_ROWS = 36
SETTINGS = Settings(members=("distance",), rate=1e-3, method="pot", drift=1.0)


@dataclass(frozen=True)
class Window:
    """Rows `first` to `last` of a labelled anomaly, both in it."""

    first: int
    last: int


def sigmoid(y: float) -> float:
    return -1.0 if y > 3.0 else 2.0 / (1.0 + math.exp(5.0 * y)) - 1.0


def score(detections: Sequence[int], windows: Sequence[Window], probation: int) -> dict[str, float]:
    """The standard profile's normalised score, with its raw sum and what it is made of."""
    counted = [w for w in windows if w.last >= probation]
    if not counted:
        raise DataError("no labelled window after the probation rows; the score has no meaning")
    found: dict[Window, float] = {}
    outside, false = 0.0, 0
    for row in sorted(d for d in detections if d >= probation):
        inside = next((w for w in counted if w.first <= row <= w.last), None)
        if inside is not None:
            y = -(inside.last - row + 1) / (inside.last - inside.first + 1)
            found.setdefault(inside, TP * sigmoid(y) / sigmoid(-1.0))
            continue
        false += 1
        before = [w for w in windows if w.last < row]
        if before:
            width = max(1, before[-1].last - before[-1].first)
            outside += FP * sigmoid((row - before[-1].last) / width)
        else:
            outside -= FP
    raw = sum(found.values()) - FN * (len(counted) - len(found)) + outside
    nothing, perfect = -FN * len(counted), TP * len(counted)
    normalised = 100.0 * (raw - nothing) / (perfect - nothing)
    return {
        "score": round(normalised, 2),
        "raw": round(raw, 4),
        "windows": len(counted),
        "found": len(found),
        "false_detections": false,
    }


def detections(scores: Floats, threshold: float, quiet_rows: int = QUIET_ROWS) -> list[int]:
    """Rows where an alarm is raised: above the threshold, after `quiet_rows` rows that were not."""
    rows = np.flatnonzero(np.nan_to_num(scores, nan=-np.inf) > threshold)
    if not len(rows):
        return []
    return rows[np.concatenate([[True], np.diff(rows) > quiet_rows])].tolist()  # type: ignore[no-any-return]


def view() -> FeatureView:
    """The mean of `ROWS` rows."""
    return FeatureView("nab", "1", (TagView("value"),), (Feature("mean"),), 300.0, ROWS)


def probation_rows(rows: int) -> int:
    return int(min(PROBATION_SHARE * rows, PROBATION_ROWS_MAX))


@dataclass(frozen=True, eq=False)
class Series:
    """One file, row by row as it stands: some of NAB's have repeated times. `values`: (rows, 1)."""

    times_s: Floats
    values: Floats


def read_series(path: Path) -> Series:
    """`timestamp,value` of a file; DataError names the row that is not so."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a series of NAB")
    times, values = [], []
    with path.open(encoding="utf-8-sig", newline="") as stream:
        for number, cells in enumerate(csv.reader(stream), start=1):
            if number == 1 and cells == ["timestamp", "value"]:
                continue
            try:
                times.append(_seconds(cells[0]))
                values.append([float(cells[1])])
            except (ValueError, IndexError) as error:
                raise DataError(f"{path}: row {number}: {error}; expected timestamp,value") from error
    if len(values) < ROWS_MIN:
        raise DataError(f"{path}: {len(values)} rows, expected at least {ROWS_MIN}")
    return Series(np.array(times), np.array(values))


def read_windows(folder: Path, series: str, times_s: Floats) -> list[Window]:
    path = folder / WINDOWS
    try:
        labelled = json.loads(path.read_text())[series]
        spans = [[_seconds(text) for text in span] for span in labelled]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no readable windows of {series!r}: {error}") from error
    inside = [np.flatnonzero((times_s >= first) & (times_s <= last)) for first, last in spans]
    return [Window(int(rows[0]), int(rows[-1])) for rows in inside if len(rows)]


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def evaluate(folder: Path, series: str = SERIES, settings: Settings = SETTINGS) -> dict[str, Any]:
    """The report that `--json` prints: the score at the calibrated threshold, and the best that any threshold would give
    (the benchmark itself tunes it on the labels)."""
    started = time.perf_counter()
    recording = read_series(folder / series)
    windows = read_windows(folder, series, recording.times_s)
    rows, probation = recording.values, probation_rows(len(recording.values))
    if np.ptp(rows[:probation]) == 0 or not np.isfinite(rows).all():
        raise DataError(f"{series}: constant in its probation rows, or a value is missing; nothing can be learned")
    fitted = fit.fit([rows[:probation]], view(), settings)
    scores = fit.scores_at(fitted, rows)
    threshold = fitted.calibration.threshold
    calibrated = detections(scores, threshold)
    candidates = np.unique(np.quantile(scores[probation:][np.isfinite(scores[probation:])], np.linspace(0.5, 1.0, 300)))
    best = max((score(detections(scores, float(t)), windows, probation)["score"], float(t)) for t in candidates)
    return {
        "series": series,
        "rows": len(rows),
        "probation_rows": probation,
        **score(calibrated, windows, probation),
        "threshold": round(threshold, 4),
        "best_threshold_score": best[0],
        "best_threshold": round(best[1], 4),
        "detections": [_when(recording.times_s[row]) for row in calibrated if row >= probation],
        "models": list(settings.members),
        "rate": settings.rate,
        "duration_s": round(time.perf_counter() - started, 1),
    }


def _when(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M")


def main(argv: list[str]) -> int:
    from tools.pdm import networks

    parser = argparse.ArgumentParser(
        prog="gudgeon evaluate nab", description="A series of NAB by its standard profile."
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="a folder laid out like NAB's (series and labels)")
    add("--series", default=SERIES, help="a CSV below it (default: %(default)s)")
    add("--models", default=",".join(SETTINGS.members), help="default: %(default)s")
    add("--rate", type=float, default=SETTINGS.rate, help="stated false-alarm rate (default: %(default)s)")
    add("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args(argv)
    if not 0 < args.rate < 0.5:
        parser.error(f"--rate is {args.rate}, expected between 0 and 0.5")
    networks.limit_threads(1)
    members = tuple(name.strip() for name in args.models.split(",") if name.strip())
    result = evaluate(args.data, args.series, replace(SETTINGS, members=members, rate=args.rate))
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"{result['series']}: score {result['score']:.1f} at the calibrated threshold")
        print(
            f"{result['found']} of {result['windows']} windows found, {result['false_detections']} false detections; the "
            f"best threshold would score {result['best_threshold_score']:.1f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(exit_code("gudgeon evaluate nab", lambda: main(sys.argv[1:])))
