"""`gudgeon train pdm`, inside the training environment: recordings of normal running → view → models → signed bundle.

The rows given are taken as normal; what is known to be abnormal stays out (`--normal-rows`, or other files).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from edge_runtime import __version__
from edge_runtime.errors import DataError, exit_code
from edge_runtime.field.window import align
from edge_runtime.wire.series import Feature, FeatureView, SeriesManifest, TagView, parse_view
from tools.pdm import fit, pack, quantise
from tools.pdm.calibrate import METHODS
from tools.pdm.fit import Fitted, Report, Settings
from tools.pdm.members import MEMBERS, Recipe
from tools.pdm.table import Recording, read_all
from tools.pipeline.pack import check_place

Floats = NDArray[np.float64]
FP32, INT8 = "model.fp32.onnx", "model.int8.onnx"
NS = 1_000_000_000
INT8_ERROR_MAX = 0.05  # of the threshold


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gudgeon train pdm",
        description="Train an anomaly model on recordings of normal running; pack and sign it.",
    )
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        required=True,
        metavar="CSV|DIR",
        help="a CSV with a time column and tags, or a folder of them",
    )
    add("--out", type=Path, required=True, metavar="BUNDLE_DIR")
    add("--name", default="pdm", help="the bundle's name (default: %(default)s)")
    add("--bundle-version", default=__version__, help="the bundle's version (default: %(default)s)")
    add("--time", metavar="COLUMN", help="the time column (default: datetime, timestamp, time, …)")
    add("--ignore", action="append", default=[], metavar="COLUMN", help="a column that is no tag; may be repeated")
    add("--normal-rows", type=int, metavar="N", help="train on the first N rows of each file (default: all)")
    add("--view", type=Path, metavar="VIEW.toml", help="a feature view (default: means over --window-rows)")
    add("--window-rows", type=int, default=5, help="rows that a mean looks at (default: %(default)s)")
    add("--grid-s", type=float, help="seconds between rows (default: the median step of the data)")
    add("--hold-s", type=float, help="how long a value stands in for missing ones (default: five steps)")
    add("--models", default=",".join(Settings().members), help=f"of {', '.join(MEMBERS)} (default: %(default)s)")
    add(
        "--rate",
        type=float,
        default=Settings().rate,
        help="share of normal rows above the threshold (default: %(default)s)",
    )
    add("--calibration", choices=METHODS, default="auto", help="default: %(default)s")
    add(
        "--drift",
        type=float,
        default=Settings().drift,
        help="how much wandering counts as normal (default: %(default)s)",
    )
    add("--smooth-rows", type=int, default=1, help="median of the last N scores (default: %(default)s)")
    add("--epochs", type=int, default=Recipe().epochs, help="passes over the rows (default: %(default)s)")
    add(
        "--int8",
        choices=("auto", "always", "never"),
        default="auto",
        help="auto: where its file is smaller and its error small (default)",
    )
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--threads", type=int, default=1, help="processor threads (default: %(default)s)")
    add("--json", action="store_true", help="print the summary as JSON")
    args = parser.parse_args(argv)
    if min(args.window_rows, args.smooth_rows, args.epochs, args.threads) < 1 or args.seed < 0 or args.drift < 0:
        parser.error(
            "expected --window-rows, --smooth-rows, --epochs, --threads of 1 or more, --seed, --drift of 0 or more"
        )
    if not 0 < args.rate < 0.5:
        parser.error(f"--rate is {args.rate}, expected between 0 and 0.5")
    if any(v is not None and not 0 < v < float("inf") for v in (args.grid_s, args.hold_s, args.normal_rows)):
        parser.error("expected --grid-s, --hold-s and --normal-rows above 0")
    return args


def main(argv: list[str]) -> int:
    from tools.pdm import networks

    args = parse(argv)
    networks.limit_threads(args.threads)
    with shown_progress(Console(stderr=True)) as report:
        summary = train(args, time.time(), report)
    if args.json:
        print(json.dumps(summary, indent=2))
    else:
        show(summary, args.out)
    return 0


def train(
    args: argparse.Namespace, now_s: float, report: Report, key: Ed25519PrivateKey | None = None
) -> dict[str, Any]:
    """Read, fit, quantise, pack; the summary that `--json` prints."""
    check_place(args.out)
    started = time.perf_counter()
    recordings = read_all(args.data, args.time, args.ignore, now_s)
    if args.normal_rows:
        recordings = [r.first(args.normal_rows) for r in recordings]
    given = read_view(args.view) if args.view else None
    recordings, left_out = usable_tags(recordings, given)
    view = given or default_view(args, recordings)
    runs = [on_grid(r, view) for r in recordings]
    settings = Settings(
        members=tuple(name.strip() for name in args.models.split(",") if name.strip()),
        drift=args.drift,
        rate=args.rate,
        method=args.calibration,
        smoothing="median" if args.smooth_rows > 1 else "none",
        smooth_rows=args.smooth_rows,
        levels=tuple(args.rate / by for by in (1, 3, 10, 30)),
        seed=args.seed,
        recipe=replace(Recipe(), epochs=args.epochs),
    )
    fitted = fit.fit(runs, view, settings, report)
    models, int8_figures = variants_of(fitted, args.int8)
    training = {
        "files": [r.name for r in recordings][:100],
        "rows": int(sum(len(run) for run in runs)),
        "left_out": list(left_out),
        "seed": args.seed,
        "duration_s": round(time.perf_counter() - started, 1),
        "settings": json.loads(json.dumps(asdict(settings))),
    }
    draft = manifest_of(args, fitted, settings, training, int8_figures)
    windows = pack.golden_windows(runs, fitted.view.rows, 12, np.random.default_rng(args.seed))
    reference = pack.quantiles(fitted.inputs, np.concatenate(fitted.held_out))
    manifest = pack.pack(args.out, draft, models, windows, reference, key)
    return summary_of(args.out, manifest)


def variants_of(fitted: Fitted, wanted: str) -> tuple[list[pack.Model], dict[str, float]]:
    """FP32, and INT8 where it is wanted or pays; what it costs is measured on the training inputs in any case."""
    models = [pack.Model(FP32, "fp32", fitted.onnx)]
    int8 = None if wanted == "never" else quantise.quantised(fitted.onnx, fitted.inputs)
    if int8 is None:
        return models, {}
    single, small = (fit.run(graph, fitted.inputs)[:, 0] for graph in (fitted.onnx, int8))
    error = float(np.abs(small - single).max())
    pays = len(int8) < len(fitted.onnx) and error <= INT8_ERROR_MAX * fitted.calibration.threshold
    if wanted == "always" or pays:
        models.append(pack.Model(INT8, "int8", int8))
    return models, {
        "int8_score_error": round(error, 5),
        "fp32_score_max": round(float(single.max()), 5),
        "fp32_bytes": len(fitted.onnx),
        "int8_bytes": len(int8),
    }


def usable_tags(recordings: list[Recording], view: FeatureView | None) -> tuple[list[Recording], tuple[str, ...]]:
    """The recordings with the tags that can be learned, and those left out because they never change (they say nothing
    about normal). A tag without any value is an error, and so is a constant one that the view asks for."""
    tags = view.tag_names if view else recordings[0].tags
    if missing := [tag for tag in tags if tag not in recordings[0].tags]:
        raise DataError(f"no column {missing[0]!r} for the view; there are {', '.join(recordings[0].tags)}")
    recordings = [r.only(tags) for r in recordings]
    everything = np.concatenate([r.values for r in recordings])
    empty = [tag for tag, column in zip(tags, everything.T, strict=True) if not np.isfinite(column).any()]
    if empty:
        raise DataError(f"{', '.join(empty)}: not one value in the training rows; leave it out with --ignore")
    spread = np.nanmax(everything, axis=0) - np.nanmin(everything, axis=0)
    constant = tuple(tag for tag, width in zip(tags, spread, strict=True) if width == 0)
    if constant and (view is not None or len(constant) == len(tags)):
        raise DataError(f"{', '.join(constant)}: constant in the training rows, so that nothing can be learned from it")
    kept = [tag for tag in tags if tag not in constant]
    return [r.only(kept) for r in recordings], constant


def default_view(args: argparse.Namespace, recordings: Sequence[Recording]) -> FeatureView:
    step_s = float(np.median(np.concatenate([np.diff(r.times_s) for r in recordings])))
    grid_s = args.grid_s or step_s
    hold_s = args.hold_s or 5.0 * max(grid_s, step_s)
    tags = tuple(TagView(tag, hold_s=hold_s) for tag in recordings[0].tags)
    return FeatureView(args.name, args.bundle_version, tags, (Feature("mean"),), grid_s, args.window_rows)


def read_view(path: Path) -> FeatureView:
    import tomllib

    try:
        return parse_view(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error


def on_grid(recording: Recording, view: FeatureView) -> Floats:
    """Raw rows (n, tags) of one recording; row times are counted from its first sample."""
    times = np.rint((recording.times_s - recording.times_s[0]) * NS).astype(np.int64)
    grid_ns = round(view.grid_s * NS)
    if times[-1] // grid_ns > 10_000_000:
        raise DataError(
            f"{recording.name}: {times[-1] // grid_ns} rows on a grid of {view.grid_s:g} s; choose --grid-s"
        )
    columns = {tag: (times, recording.values[:, i]) for i, tag in enumerate(recording.tags)}
    return align(columns, view, 0, int(times[-1]) // grid_ns * grid_ns)


def manifest_of(
    args: argparse.Namespace, fitted: Fitted, settings: Settings, training: dict[str, Any], metrics: dict[str, Any]
) -> SeriesManifest:
    return SeriesManifest(
        kind="anomaly",
        name=args.name,
        version=args.bundle_version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        view=fitted.view,
        view_sha256=fitted.view.digest(),
        scaler=fitted.scaler,
        variants=(),
        files={},
        calibration=fitted.calibration,
        members=settings.members,
        training=training,
        metrics=metrics,
    )


def summary_of(out: Path, manifest: SeriesManifest) -> dict[str, Any]:
    assert manifest.calibration is not None
    return {
        "bundle": str(out),
        "tags": list(manifest.view.tag_names),
        "left_out": manifest.training["left_out"],
        "models": list(manifest.members),
        "rows": manifest.training["rows"],
        "grid_s": manifest.view.grid_s,
        "view_sha256": manifest.view_sha256,
        "calibration": asdict(manifest.calibration),
        "variants": {v.name: (out / v.file).stat().st_size for v in manifest.variants},
        "quantised": dict(manifest.metrics),
        "duration_s": manifest.training["duration_s"],
    }


def show(summary: dict[str, Any], out: Path) -> None:
    c = summary["calibration"]
    print(f"{out}: {', '.join(summary['models'])} on {len(summary['tags'])} tags, {summary['rows']} rows")
    if summary["left_out"]:
        print(f"left out, constant in the training rows: {', '.join(summary['left_out'])}")
    print(
        f"threshold {c['threshold']:.4g} by {c['method']}: stated {c['false_alarm_rate']:g} of normal rows, measured on "
        f"held-out rows {c['measured_rate']:.3g} (95 %: {c['measured_low']:.3g} – {c['measured_high']:.3g})"
    )
    if c["measured_low"] > c["false_alarm_rate"]:
        print(
            "the recordings are not alike from block to block: expect more alarms than stated, or record more of normal"
        )
    print(", ".join(f"{name} {size:,} bytes" for name, size in summary["variants"].items()))


@contextmanager
def shown_progress(console: Console) -> Iterator[Report]:
    """A bar on a terminal, a line a step elsewhere."""
    if not console.is_terminal:
        yield lambda name, done, steps: console.print(f"{name}: {done} of {steps}")
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=None)
        yield lambda name, done, steps: progress.update(task, description=name, completed=done, total=steps)


if __name__ == "__main__":
    sys.exit(exit_code("gudgeon train pdm", lambda: main(sys.argv[1:])))
