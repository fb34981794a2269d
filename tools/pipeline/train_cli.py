"""The training run itself, inside the training environment: data → network → INT8 → golden vectors → signed bundle.

Temperature and thresholds come from held-out folds of the training split; the shipped network is then trained on all of
it. Only the split named by `--split` is read.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from edge_runtime import __version__
from edge_runtime.errors import exit_code
from edge_runtime.infer.engine import Engine
from edge_runtime.infer.litert import LiteRtEngine
from edge_runtime.infer.onnx import OnnxEngine
from edge_runtime.infer.post import softmax
from edge_runtime.wire.manifest import Manifest
from tools.pipeline import calibrate, metrics, pack, quantise, tflite
from tools.pipeline.crossval import HeldOut, Loaded, cross_validate, load, with_settings
from tools.pipeline.train import Recipe, fit, quick

CALIBRATION_INPUTS = 200
Report = Callable[[str, int, int, float], None]


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gudgeon train surface", description="Train, quantise, pack and sign a bundle."
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a folder with labels.csv")
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE_DIR")
    parser.add_argument("--split", default="train", help="the split to train on (default: %(default)s)")
    parser.add_argument("--name", default="surface", help="the bundle's name (default: %(default)s)")
    parser.add_argument("--bundle-version", default=__version__, help="the bundle's version (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, help="passes over the training images (default: the recipe's)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one recipe entry")
    parser.add_argument("--folds", type=int, default=4, help="held-out folds to cut (default: %(default)s)")
    parser.add_argument("--max-folds", type=int, default=2, help="folds to run for calibration (default: %(default)s)")
    parser.add_argument("--golden", type=int, default=12, help="golden vectors (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="processor threads (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a tiny run that only proves the way")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    args = parser.parse_args(argv)
    if args.max_folds < 1 or args.folds < 2 or args.golden < 1 or args.seed < 0 or args.threads < 1:
        parser.error(
            "expected --max-folds, --golden and --threads of at least 1, --folds of at least 2, --seed 0 or more"
        )
    return args


def recipe_of(args: argparse.Namespace) -> Recipe:
    recipe = quick(Recipe()) if args.quick else Recipe()
    recipe = with_settings(recipe, args.set)
    return replace(recipe, epochs=args.epochs) if args.epochs else recipe


def main(argv: list[str]) -> int:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    with shown_progress(Console(stderr=True)) as report:
        summary = train(args, recipe_of(args), report)
    if args.json:
        print(json.dumps(summary, indent=2))
    else:
        for key, value in summary.items():
            print(f"{key}: {value}")
    return 0


@contextmanager
def shown_progress(console: Console) -> Iterator[Report]:
    """A bar for each stage on a terminal; elsewhere a line at every tenth of it."""
    if not console.is_terminal:

        def line(name: str, done: int, steps: int, loss: float) -> None:
            if done * 10 // steps != (done - 1) * 10 // steps:
                print(f"{name}: {done * 100 // steps} %, loss {loss:.3f}", file=sys.stderr, flush=True)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("loss {task.fields[loss]:.3f}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def bar(name: str, done: int, steps: int, loss: float) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=steps, loss=loss)
            bars.update(tasks[name], completed=done, loss=loss)

        yield bar


def train(
    args: argparse.Namespace, recipe: Recipe, report: Report | None = None, key: Ed25519PrivateKey | None = None
) -> dict[str, Any]:
    """Train and write the bundle `args.out`; returns the summary that is printed. DataError for data that does not fit."""
    pack.check_place(args.out)
    start = time.monotonic()
    data = load(args.data, args.split)
    held_out = cross_validate(data, recipe, args.folds, args.max_folds, args.seed, report)

    def step(done: int, steps: int, loss: float) -> None:
        if report:
            report("all parts", done, steps, loss)

    net = fit(data.samples, len(data.classes), recipe, args.seed, step)
    with tempfile.TemporaryDirectory(prefix="gudgeon-train-") as folder:
        work = Path(folder)
        rng = np.random.default_rng(args.seed)
        inputs = data.samples.inputs(recipe.input)
        quantise.export_fp32(net, recipe.height, recipe.width, work / pack.FP32)
        chosen = rng.permutation(len(inputs))[:CALIBRATION_INPUTS]
        quantise.quantise_int8(work / pack.FP32, work / pack.INT8, inputs[chosen])
        if python := tflite.convert_python():
            tflite.convert_int8(net, len(data.classes), recipe.architecture, inputs[chosen], work / pack.TFLITE, python)
        manifest = _pack(args, recipe, data, held_out, work, round(time.monotonic() - start, 1), key)
        sizes = {name: (args.out / name).stat().st_size for name in (pack.FP32, pack.INT8)}
    return {
        "bundle": str(args.out),
        "images": len(inputs),
        "classes": list(data.classes),
        "held_out": dict(manifest.metrics),
        "thresholds": {"review": manifest.thresholds.review, "reject": manifest.thresholds.reject},
        "file_bytes": sizes,
        "duration_s": round(time.monotonic() - start, 1),
    }


def _pack(
    args: argparse.Namespace,
    recipe: Recipe,
    data: Loaded,
    held_out: HeldOut,
    work: Path,
    duration_s: float,
    key: Ed25519PrivateKey | None,
) -> Manifest:
    temperature = calibrate.fit_temperature(held_out.logits, held_out.labels)
    p = softmax(held_out.logits, temperature)
    thresholds = calibrate.choose_thresholds(held_out.labels != 0, 1.0 - p[:, 0], args.seed)
    figures = metrics.figures(held_out.labels, p, 1.0 - p[:, 0] >= thresholds.review, 0)
    inputs = data.samples.inputs(recipe.input)
    answers = {name: quantise.run_onnx(work / name, inputs) for name in (pack.FP32, pack.INT8)}
    agreement = float((answers[pack.FP32].argmax(1) == answers[pack.INT8].argmax(1)).mean())
    golden = pack.choose_golden(data.samples.labels, answers[pack.INT8], args.golden, np.random.default_rng(args.seed))
    engines: dict[str, tuple[str, str, Engine]] = {
        pack.INT8: ("onnxruntime", "int8", OnnxEngine(work / pack.INT8, "int8")),
        pack.FP32: ("onnxruntime", "fp32", OnnxEngine(work / pack.FP32, "fp32")),
    }
    if (work / pack.TFLITE).is_file():
        engines[pack.TFLITE] = ("litert", "int8", LiteRtEngine(work / pack.TFLITE, "int8"))
    contents = pack.Contents(
        name=args.name,
        version=args.bundle_version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        classes=data.classes,
        ok_class=data.ok_class,
        temperature=temperature,
        input=recipe.input,
        thresholds=thresholds,
        golden=[data.samples.frames[i] for i in golden],
        train_frames=data.samples.frames,
        engines=engines,
        training={
            "data_digest": data.digest,
            "n": len(inputs),
            "seed": args.seed,
            "duration_s": duration_s,
            "recipe": json.loads(json.dumps(asdict(recipe))),
        },
        metrics={**figures, "held_out_n": len(held_out.index), "int8_class_agreement": agreement},
    )
    return pack.pack(args.out, work, contents, key)


if __name__ == "__main__":
    sys.exit(exit_code("gudgeon train", lambda: main(sys.argv[1:])))
