"""`gudgeon evaluate skab`: the protocol of the Skoltech Anomaly Benchmark, and its baselines beside our model.

One model a file: fitted to the file's first 400 rows, then every later row is scored with what was known at that row. True
and false alarms are counted row by row and pooled over the files: F1, false alarms (FAR, % of normal rows), missed alarms
(MAR, % of anomalous rows). One set of settings (`SETTINGS`) for all files; no label is read before the counting.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from edge_runtime.errors import DataError, exit_code
from edge_runtime.wire.series import Feature, FeatureView, TagView
from tools.pdm import baselines, fit
from tools.pdm.fit import Settings
from tools.pdm.members import MEMBERS

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
TRAIN_ROWS = 400
LABEL, CHANGE, TIME = "anomaly", "changepoint", "datetime"
WINDOW_ROWS = 5
SETTINGS = Settings(rate=3e-4, method="pot")
OURS = "gudgeon"
SINGLE = ("distance", "pca", "forest", "dense", "conv")


@dataclass(frozen=True, eq=False)
class Experiment:
    """One file: `values` (rows, sensors), `labels` one a row."""

    name: str
    sensors: tuple[str, ...]
    values: Floats
    labels: Flags


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


def count(labels: Flags, alarms: Flags) -> Counts:
    tp, fp = int((alarms & labels).sum()), int((alarms & ~labels).sum())
    return Counts(tp, fp, int((~alarms & labels).sum()), int((~alarms & ~labels).sum()))


def read_folder(folder: Path) -> list[Experiment]:
    """Every labelled file below `folder`, by name; DataError where there is none or one is not as documented."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one laid out like SKAB (valve1/0.csv, …)")
    files = sorted(p for p in folder.rglob("*.csv") if "anomaly-free" not in p.parts)
    found = [read_file(p, str(p.relative_to(folder))) for p in files if LABEL in _header(p)]
    if not found:
        raise DataError(f"{folder}: no CSV file with a column {LABEL!r}; expected the layout of SKAB")
    return found


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return [name.strip() for name in stream.readline().strip().split(";")]


def read_file(path: Path, name: str) -> Experiment:
    header = _header(path)
    sensors = [i for i, column in enumerate(header) if column not in (LABEL, CHANGE, TIME)]
    values, labels = [], []
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, delimiter=";")
        next(reader)
        for number, cells in enumerate(reader, start=2):
            try:
                values.append([float(cells[i]) for i in sensors])
                labels.append(float(cells[header.index(LABEL)]) > 0)
            except (ValueError, IndexError) as error:
                raise DataError(f"{path}: row {number}: {error}; expected {len(header)} numbers") from error
    if len(values) <= TRAIN_ROWS:
        raise DataError(f"{path}: {len(values)} rows, expected more than the {TRAIN_ROWS} to train on")
    rows = np.array(values)
    if not np.isfinite(rows).all():
        raise DataError(f"{path}: a value is missing or not finite; the protocol scores every row")
    return Experiment(name, tuple(header[i] for i in sensors), rows, np.array(labels))


def view_of(experiment: Experiment, window_rows: int = WINDOW_ROWS) -> FeatureView:
    """Means of the last rows of each sensor that is not constant in the training rows."""
    width = np.ptp(experiment.values[:TRAIN_ROWS], axis=0)
    tags = tuple(TagView(s) for s, w in zip(experiment.sensors, width, strict=True) if w > 0)
    return FeatureView("skab", "1", tags, (Feature("mean"),), 1.0, window_rows)


def alarms_of(experiment: Experiment, settings: Settings, window_rows: int = WINDOW_ROWS) -> Flags:
    """Alarms of the rows after the training rows."""
    view = view_of(experiment, window_rows)
    rows = experiment.values[:, [experiment.sensors.index(tag) for tag in view.tag_names]]
    fitted = fit.fit([rows[:TRAIN_ROWS]], view, settings)
    return np.asarray(fit.scores_at(fitted, rows)[TRAIN_ROWS:] > fitted.calibration.threshold)


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
    experiments = read_folder(folder)
    compared = detectors(settings, every, window_rows)
    counts: dict[str, list[Counts]] = {name: [] for name in compared}
    for experiment in track(experiments, "one model a file", console=Console(stderr=True), disable=quiet):
        for name, detector in compared.items():
            counts[name].append(count(experiment.labels[TRAIN_ROWS:], detector(experiment)))
    files = [{"file": e.name, **c.figures()} for e, c in zip(experiments, counts[OURS], strict=True)]
    return {
        **pooled(counts[OURS]),
        "files": files,
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
        table = Table(title=title)
        for column in ("", "F1", "FAR %", "MAR %"):
            table.add_column(column, justify="right" if column else "left")
        for name, row in rows:
            table.add_row(name, f"{row['f1']:.3f}", f"{row['far']:.1f}", f"{row['mar']:.1f}")
        console.print(table)
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
