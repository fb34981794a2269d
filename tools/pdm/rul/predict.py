"""`gudgeon predict rul`: a packed bundle on a file of running units, through the very functions that the device runs.

One row a unit, in the file's order, at its last cycle: `unit,rul,lower,upper`. Needs ONNX Runtime and NumPy alone.
"""

from __future__ import annotations

import argparse
import csv
import io
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from edge_runtime.durable import replace_file
from edge_runtime.errors import BundleError, DataError
from edge_runtime.infer import features, select
from edge_runtime.infer.series import Remaining, SeriesModel, load_series_model
from edge_runtime.infer.series_bundle import SeriesBundle
from tools.pdm.rul.data import TAGS, Unit, read_units

HEADER = ("unit", "rul", "lower", "upper")
COST_RUNS = 200


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="gudgeon predict rul", description="How many cycles each unit of a file has left, with a band."
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE_DIR")
    parser.add_argument("--test", type=Path, required=True, metavar="F", help="a C-MAPSS file, plain or gzip")
    parser.add_argument("--out", type=Path, required=True, metavar="CSV", help="unit,rul,lower,upper: a row a unit")
    args = parser.parse_args(argv)
    units = read_units(args.test)
    with open_model(args.bundle) as model:
        shown = track(units, f"running {model.engine.variant}", console=Console(stderr=True), transient=True)
        rows = [(unit.number, answer(model, unit)) for unit in shown]
    write(args.out, rows)
    print(f"{len(rows)} units: {args.out}")
    return 0


@contextmanager
def open_model(bundle_dir: Path) -> Iterator[SeriesModel]:
    """The bundle's model with the variant that is fastest here; BundleError where it is not one of remaining life."""
    with tempfile.TemporaryDirectory(prefix="gudgeon-predict-") as folder:
        model = load_series_model(bundle_dir, Path(folder) / "engines.json")
        if model.manifest.kind != "rul":
            raise BundleError(f"bundle {bundle_dir} is of kind {model.manifest.kind}, expected rul")
        if unknown := [name for name in model.manifest.view.tag_names if name not in TAGS]:
            raise BundleError(f"bundle {bundle_dir} needs the tag {unknown[0]!r}, which a C-MAPSS file does not have")
        yield model


def answer(model: SeriesModel, unit: Unit) -> Remaining:
    """What is left after the unit's last row."""
    view = model.manifest.view
    rows = unit.rows[-view.rows :, [TAGS.index(name) for name in view.tag_names]]
    found = model.answer(rows)
    left = model.remaining(found)
    if left is None:
        raise DataError(f"unit {unit.number}: no answer: {found.reason}")
    return left


def write(path: Path, rows: Sequence[tuple[int, Remaining]]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(HEADER)
    for number, left in rows:
        table.writerow([number, *(f"{value:.3f}" for value in (left.remaining, left.lower, left.upper))])
    replace_file(path, text.getvalue().encode())


def edge_cost(bundle: SeriesBundle) -> dict[str, Any]:
    """For each variant on one core: p50 of features and of the engine, file size, and the error to FP32 in cycles."""
    cost: dict[str, Any] = {}
    windows = bundle.golden.windows
    for variant in bundle.variants:
        engine = select.open_engine(bundle, variant)
        spent: dict[str, list[int]] = {"features": [], "infer": []}
        worst = 0.0
        for i in range(COST_RUNS):
            t0 = time.perf_counter_ns()
            x = features.model_input(windows[i % len(windows)], bundle.manifest)
            t1 = time.perf_counter_ns()
            if x is None:
                continue
            values = engine.infer(x)
            t2 = time.perf_counter_ns()
            spent["features"].append(t1 - t0)
            spent["infer"].append(t2 - t1)
            worst = max(worst, float(np.abs(values - bundle.expected[i % len(windows)])[0]))
        engine.close()
        cost[variant.precision] = {
            **{f"{name}_p50_us": round(statistics.median(times) / 1000, 1) for name, times in spent.items()},
            "file_bytes": (bundle.path / variant.file).stat().st_size,
            "largest_error_cycles": round(worst, 4),
        }
    return cost
