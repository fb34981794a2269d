"""`gudgeon evaluate skab`: the protocol of the Skoltech Anomaly Benchmark, and its baselines beside our model.

One model a file: fitted to the file's first 400 rows, then every later row is scored with what was known at that row. True
and false alarms are counted row by row and pooled over the files: F1, false alarms (FAR, % of normal rows), missed alarms
(MAR, % of anomalous rows). One set of settings (`SETTINGS`) for all files; no label is read before the counting.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from edge_runtime.errors import DataError, exit_code
from edge_runtime.wire.series import Feature, FeatureView, TagView
from tools.pdm import baselines, fit, table
from tools.pdm.fit import Settings
from tools.pdm.members import MEMBERS

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
TRAIN_ROWS = 400
LABEL = "anomaly"
WINDOW_ROWS = 5
SETTINGS = Settings(members=("distance", "dense"), rate=3e-4, method="pot")
OURS = "gudgeon"
SINGLE = ("distance", "pca", "forest", "dense", "conv")


@dataclass(frozen=True, eq=False)
class Experiment:
    """One file: `values` (rows, sensors), `labels` one a row, `counted` where there is a label. `held`: values that were
    missing, where the one before stands in."""

    name: str
    sensors: tuple[str, ...]
    values: Floats
    labels: Flags
    counted: Flags
    held: int = 0


@dataclass(frozen=True)
class Skipped:
    file: str
    reason: str


@dataclass(frozen=True)
class Counts:
    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    def figures(self) -> dict[str, float]:
        """f1 from 0 to 1; far and mar in percent; a share of nothing is 0."""
        f1 = 2 * self.tp / max(1, 2 * self.tp + self.fp + self.fn)
        far, mar = 100 * self.fp / max(1, self.fp + self.tn), 100 * self.fn / max(1, self.fn + self.tp)
        return {"f1": round(f1, 4), "far": round(far, 2), "mar": round(mar, 2)}


def count(experiment: Experiment, alarms: Flags) -> Counts:
    """Of the rows after the training rows; `alarms` is one a row of these."""
    counted = experiment.counted[TRAIN_ROWS:]
    labels, alarms = experiment.labels[TRAIN_ROWS:][counted], alarms[counted]
    tp, fp = int((alarms & labels).sum()), int((alarms & ~labels).sum())
    return Counts(tp, fp, int((~alarms & labels).sum()), int((~alarms & ~labels).sum()))


def read_folder(folder: Path) -> tuple[list[Experiment], list[Skipped]]:
    """Every file below `folder`, by name, and those that the protocol cannot be run on. DataError where it can be run on
    none, or where a file is not as documented."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one laid out like SKAB (valve1/0.csv, …)")
    read = [read_file(p, str(p.relative_to(folder))) for p in sorted(folder.rglob("*.csv"))]
    found = [one for one in read if isinstance(one, Experiment)]
    skipped = [one for one in read if isinstance(one, Skipped)]
    if not found:
        why = f": {skipped[0].file}: {skipped[0].reason}" if skipped else "; expected the layout of SKAB"
        raise DataError(f"{folder}: no CSV file that the protocol can be run on{why}")
    return found, skipped


def read_file(path: Path, name: str) -> Experiment | Skipped:
    """A missing value is the one before it (the protocol scores every row), a row without a label is not counted."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        head = stream.readline()
        delimiter = max(table.DELIMITERS, key=head.count)
        columns = [column.strip().lower() for column in head.split(delimiter)]
        if LABEL not in columns:
            return Skipped(name, f"no column {LABEL!r}")
        sensors = [i for i, c in enumerate(columns) if c not in (*table.LABEL_NAMES, *table.TIME_NAMES)]
        rows = []
        for number, cells in enumerate(csv.reader(stream, delimiter=delimiter), start=2):
            try:
                rows.append([_number(cells[i]) for i in (columns.index(LABEL), *sensors)])
            except (ValueError, IndexError) as error:
                raise DataError(f"{path}: row {number}: {error}; expected {len(columns)} columns, numbers") from error
    if len(rows) <= TRAIN_ROWS:
        return Skipped(name, f"{len(rows)} rows, expected more than the {TRAIN_ROWS} to train on")
    labels, values = np.array(rows)[:, 0], np.array(rows)[:, 1:]
    known = np.isfinite(values)
    used = (known[:TRAIN_ROWS] & (values[:TRAIN_ROWS] != _first_known(values))).any(0)
    if not used.any():
        return Skipped(name, f"no sensor changes in the first {TRAIN_ROWS} rows")
    names = [head.split(delimiter)[i].strip() for i in sensors]
    return Experiment(
        name,
        tuple(n for n, u in zip(names, used, strict=True) if u),
        held(values[:, used]),
        labels > 0,
        np.isfinite(labels),
        int((~known[:, used]).sum()),
    )


def _number(text: str) -> float:
    value = math.nan if text.strip().lower() in table.MISSING else float(text)
    return value if math.isfinite(value) else math.nan


def _first_known(values: Floats) -> Floats:
    """The first value of each column that is not NaN; NaN for a column without one."""
    return np.asarray(values[np.isfinite(values).argmax(0), np.arange(values.shape[1])])


def held(values: Floats) -> Floats:
    """Each NaN becomes the value above it; before a column's first value, that one."""
    known = np.isfinite(values)
    at = np.maximum.accumulate(np.where(known, np.arange(len(values))[:, None], 0), axis=0)
    found = np.take_along_axis(values, at, 0)
    return np.asarray(np.where(np.isfinite(found), found, _first_known(values)))


def view_of(experiment: Experiment, window_rows: int = WINDOW_ROWS) -> FeatureView:
    """Means of the last rows of each sensor."""
    tags = tuple(TagView(sensor) for sensor in experiment.sensors)
    return FeatureView("skab", "1", tags, (Feature("mean"),), 1.0, window_rows)


def alarms_of(experiment: Experiment, settings: Settings, window_rows: int = WINDOW_ROWS) -> Flags:
    """Alarms of the rows after the training rows."""
    fitted = fit.fit([experiment.values[:TRAIN_ROWS]], view_of(experiment, window_rows), settings)
    return np.asarray(fit.scores_at(fitted, experiment.values)[TRAIN_ROWS:] > fitted.calibration.threshold)


Detector = Callable[[Experiment], Flags]


def _baseline(alarms: Callable[[Floats, Floats], Flags]) -> Detector:
    return lambda experiment: alarms(experiment.values[:TRAIN_ROWS], experiment.values[TRAIN_ROWS:])


def detectors(settings: Settings, every: bool, window_rows: int) -> dict[str, Detector]:
    """What is compared, by name; `every`: also each model by itself, with the same view and calibration."""
    found: dict[str, Detector] = {OURS: lambda e: alarms_of(e, settings, window_rows)}
    found |= {name: _baseline(alarms) for name, alarms in baselines.BASELINES.items()}
    if every:
        for name in SINGLE:
            alone = replace(settings, members=(name,))
            found[f"{name} alone"] = lambda e, alone=alone: alarms_of(e, alone, window_rows)  # type: ignore[misc]
    return found


def evaluate(
    folder: Path,
    settings: Settings = SETTINGS,
    every: bool = False,
    window_rows: int = WINDOW_ROWS,
    quiet: bool = True,
) -> dict[str, Any]:
    """The report that `--json` prints: the pooled figures of our model, each file's, and the table of all detectors."""
    started = time.perf_counter()
    experiments, skipped = read_folder(folder)
    compared = detectors(settings, every, window_rows)
    counts: dict[str, list[Counts]] = {name: [] for name in compared}
    for experiment in track(experiments, "one model a file", console=Console(stderr=True), disable=quiet):
        for name, detector in compared.items():
            counts[name].append(count(experiment, detector(experiment)))
    files = [
        {"file": e.name, **c.figures(), "rows": int(e.counted[TRAIN_ROWS:].sum()), "held_values": e.held}
        for e, c in zip(experiments, counts[OURS], strict=True)
    ]
    return {
        **pooled(counts[OURS]),
        "files": files,
        "skipped": [asdict(one) for one in skipped],
        "table": {name: pooled(found) for name, found in counts.items()},
        "even_files": pooled(counts[OURS][::2]),
        "odd_files": pooled(counts[OURS][1::2]),
        "models": list(settings.members),
        "window_rows": window_rows,
        "drift": settings.drift,
        "rate": settings.rate,
        "seed": settings.seed,
        "duration_s": round(time.perf_counter() - started, 1),
    }


def pooled(counts: Sequence[Counts]) -> dict[str, float]:
    return sum(counts, Counts(0, 0, 0, 0)).figures()


def show(result: dict[str, Any]) -> None:
    console = Console()
    for title, rows in (
        ("pooled over the files", [(name, row) for name, row in result["table"].items()]),
        (f"{OURS}, by file", [(row["file"], row) for row in result["files"]]),
    ):
        shown = Table(title=title)
        for column in ("", "F1", "FAR %", "MAR %"):
            shown.add_column(column, justify="right" if column else "left")
        for name, row in rows:
            shown.add_row(name, f"{row['f1']:.3f}", f"{row['far']:.1f}", f"{row['mar']:.1f}")
        console.print(shown)
    for one in result["skipped"]:
        console.print(f"not scored: {one['file']}: {one['reason']}")
    console.print(f"{result['duration_s']:.0f} s")


def main(argv: list[str]) -> int:
    from tools.pdm import networks

    parser = argparse.ArgumentParser(
        prog="gudgeon evaluate skab", description="The protocol of SKAB on a folder of it."
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="a folder laid out like SKAB")
    add("--models", default=",".join(SETTINGS.members), help=f"of {', '.join(MEMBERS)} (default: %(default)s)")
    add("--rate", type=float, default=SETTINGS.rate, help="stated false-alarm rate (default: %(default)s)")
    add(
        "--drift", type=float, default=SETTINGS.drift, help="how much wandering counts as normal (default: %(default)s)"
    )
    add("--window-rows", type=int, default=WINDOW_ROWS, help="rows that a mean looks at (default: %(default)s)")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--every", action="store_true", help="also each model by itself")
    add("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args(argv)
    if not 0 < args.rate < 0.5 or args.drift < 0 or args.seed < 0 or not 1 <= args.window_rows <= 60:
        parser.error("expected --rate between 0 and 0.5, --drift, --seed of 0 or more, --window-rows from 1 to 60")
    networks.limit_threads(1)
    members = tuple(name.strip() for name in args.models.split(",") if name.strip())
    settings = replace(SETTINGS, members=members, rate=args.rate, drift=args.drift, seed=args.seed)
    result = evaluate(args.data, settings, args.every, args.window_rows, quiet=args.json)
    print(json.dumps(result, indent=2)) if args.json else show(result)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code("gudgeon evaluate skab", lambda: main(sys.argv[1:])))
