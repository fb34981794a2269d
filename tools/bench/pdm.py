"""`gudgeon bench pdm`: what each anomaly and remaining-life model costs on this board: a window from raw rows to an answer,
against a bare engine call on the same input in the same run; memory, file size, and what INT8 changes.

The bundles are trained at the start on a generated recording of eight tags (seconds each), by `gudgeon train pdm`, and
on a made-up fleet of machines by `gudgeon train rul`.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.errors import GudgeonError
from edge_runtime.infer import series_bundle
from edge_runtime.infer.select import open_engine
from edge_runtime.infer.series import SeriesModel
from edge_runtime.infer.series_bundle import SeriesBundle
from tools.bench.figures import row
from tools.bench.loop import WARM, timed
from tools.pdm.rul import simulate
from tools.pdm.rul.simulate import Fleet
from tools.pipeline import launch

KINDS = {
    "distance": "distance",
    "pca": "pca",
    "forest": "forest",
    "dense": "dense",
    "conv": "conv",
    "all": "distance,dense,conv",
}
LIVES = {f"life {model}": model for model in ("trees", "tcn", "lstm", "blend")}
TAGS, ROWS = 8, 1500
FLEET_UNITS = 20

RSS = """
import sys
from pathlib import Path
import numpy as np
def rss():
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmRSS"))
from edge_runtime.infer import series, series_bundle, onnx
from edge_runtime.infer.select import open_engine
before = rss()
bundle = series_bundle.load(Path(sys.argv[1]))
model = series.SeriesModel(bundle.manifest, bundle.digest, open_engine(bundle, bundle.variants[0]))
for i in range(50):
    model.answer(bundle.golden.windows[i % len(bundle.golden.windows)])
print(before, rss())
"""


def make_recording(path: Path, rng: np.random.Generator) -> Path:
    """Eight tags that follow three slow causes, with noise of their own."""
    causes = np.zeros((ROWS, 3))
    for i in range(1, ROWS):
        causes[i] = 0.9 * causes[i - 1] + rng.normal(size=3)
    values = causes @ rng.normal(size=(3, TAGS)) + rng.normal(size=(ROWS, TAGS)) + 20.0
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["time", *(f"tag{i}" for i in range(TAGS))])
        writer.writerows([i, *np.round(values[i], 5)] for i in range(ROWS))
    return path


def train(folder: Path, kind: str, data: Path) -> Path:
    out = folder / kind
    args = [
        "pdm",
        "--data",
        str(data),
        "--out",
        str(out),
        "--models",
        KINDS[kind],
        "--epochs",
        "20",
        "--int8",
        "always",
    ]
    return launched(kind, args, out)


def train_life(folder: Path, kind: str, fleet: Path) -> Path:
    """The cost of a model does not depend on how well it learned: few passes, two folds."""
    out = folder / kind
    model = ["--model", LIVES[kind], "--inner-folds", "2", "--set", "net.epochs=2"]
    return launched(kind, ["rul", "--train", str(fleet), "--out", str(out), *model], out)


def launched(kind: str, args: list[str], out: Path) -> Path:
    command = [sys.executable, "-m", "tools.pipeline.launch", *args, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=launch.REPOSITORY)
    if done.returncode:
        raise GudgeonError(f"training {kind}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else '?'}")
    return out


def run(folder: Path, count: int, kinds: tuple[str, ...] = (*KINDS, *LIVES)) -> dict[str, Any]:
    launch.train_python()
    data = make_recording(folder / "tags.csv", np.random.default_rng(0))
    fleet = folder / "fleet.txt"
    fleet.write_text(simulate.text(simulate.make_units(Fleet(FLEET_UNITS), 0)))
    bundles = {k: train_life(folder, k, fleet) if k in LIVES else train(folder, k, data) for k in kinds}
    measured = [measure(kind, bundle_dir, count) for kind, bundle_dir in bundles.items()]
    return {"bench": "pdm", "floor": "bare engine call, each model's own", "count": count, "rows": measured}


def measure(kind: str, bundle_dir: Path, count: int) -> dict[str, Any]:
    """A window through `SeriesModel.answer` and the bare engine on its input, taking turns; INT8 beside them."""
    bundle = series_bundle.load(bundle_dir)
    engine = open_engine(bundle, bundle.variants[0])
    model = SeriesModel(bundle.manifest, bundle.digest, engine)
    windows, inputs = bundle.golden.windows, bundle.golden_inputs()
    small = [v for v in bundle.variants if v.precision == "int8"]
    quantised = open_engine(bundle, small[0]) if small else None
    whole: list[int] = []
    bare: list[int] = []
    int8: list[int] = []
    for i in range(WARM + count):
        place = i % len(windows)
        taken = (timed(model.answer, windows[place]), timed(engine.infer, inputs[place]))
        extra = timed(quantised.infer, inputs[place]) if quantised is not None else 0
        if i >= WARM:
            whole.append(taken[0])
            bare.append(taken[1])
            int8.append(extra)
    result = row(kind, whole, bare)
    result["bare_us_p50"] = round(float(np.median(bare)) / 1000, 1)
    result["int8_us_p50"] = round(float(np.median(int8)) / 1000, 1) if small else None
    result["bytes"] = {v.precision: (bundle_dir / v.file).stat().st_size for v in bundle.variants}
    result["int8_error"] = score_error(bundle, inputs) if small else None
    before, after = memory(bundle_dir)
    result["rss"] = {"runtime_bytes": before, "model_bytes": after - before}
    return result


def score_error(bundle: SeriesBundle, inputs: list[Any]) -> float:
    """Largest difference over the golden windows: of the score in units of the threshold, of a life in units of the cap."""
    manifest = bundle.manifest
    unit = (
        manifest.calibration.threshold if manifest.calibration else manifest.interval.cap if manifest.interval else 1.0
    )
    int8 = next(v for v in bundle.variants if v.precision == "int8")
    engine = open_engine(bundle, int8)
    scores = np.array([engine.infer(x)[0] for x in inputs])
    return round(float(np.abs(scores - bundle.golden.outputs[:, 0]).max()) / unit, 4)


def memory(bundle_dir: Path) -> tuple[int, int]:
    """Resident bytes of a fresh process with NumPy and ONNX Runtime, and with the model at work."""
    done = subprocess.run([sys.executable, "-c", RSS, str(bundle_dir)], capture_output=True, text=True, check=True)
    before, after = done.stdout.split()
    return int(before), int(after)


def table(result: dict[str, Any]) -> str:
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=f"pdm (floor: {result['floor']})")
    for column in (
        "",
        "window p50 µs",
        "p99 µs",
        "bare µs",
        "÷ bare",
        "INT8 µs",
        "FP32 B",
        "INT8 B",
        "INT8 error",
        "RSS",
    ):
        shown.add_column(column, justify="right" if column else "left")
    for r in result["rows"]:
        none = "–"
        shown.add_row(
            r["name"], f"{r['us']['p50']:.0f}", f"{r['us']['p99']:.0f}", f"{r['bare_us_p50']:.0f}", f"{r['ratio_p50']:.2f}",
            none if r["int8_us_p50"] is None else f"{r['int8_us_p50']:.0f}", f"{r['bytes']['fp32']:,}",
            none if "int8" not in r["bytes"] else f"{r['bytes']['int8']:,}",
            none if r["int8_error"] is None else f"{r['int8_error']:.1%}", f"+{r['rss']['model_bytes'] / 2**20:.1f} MiB",
        )  # fmt: skip
    console = Console(width=140)
    with console.capture() as capture:
        console.print(shown)
        runtime = max(r["rss"]["runtime_bytes"] for r in result["rows"]) / 2**20
        console.print(
            f"INT8 error: of the score in units of the threshold, of a life in units of the cap. NumPy and ONNX Runtime "
            f"alone: {runtime:.1f} MiB"
        )
    return capture.get()
