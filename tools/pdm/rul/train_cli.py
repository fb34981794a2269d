"""`gudgeon train rul`: a run-to-failure file → view, model, band → ONNX → signed bundle. Runs in the training environment.

`--validate` keeps the units that its CSV names out of everything and answers for them at their cuts. `--cross-validate`
packs nothing: it reports what the recipe reaches on units that it has not seen (tools/pdm/rul/crossval.py).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

from edge_runtime import __version__
from edge_runtime.errors import DataError, exit_code
from edge_runtime.infer.series import SeriesModel
from edge_runtime.infer.series_bundle import load as load_bundle
from tools.pdm.rul import crossval, cuts, data, export, metrics, pack
from tools.pdm.rul.crossval import Advance, Whole
from tools.pdm.rul.data import Cut, Unit, remaining
from tools.pdm.rul.model import MODELS, Recipe, fit
from tools.pdm.rul.predict import answer, edge_cost, open_model
from tools.pipeline.crossval import with_settings
from tools.pipeline.pack import check_place

CALIBRATION_INPUTS = 300


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="gudgeon train rul",
        description="Train, calibrate, pack and sign a bundle that says how many cycles a machine has left.",
        epilog="F is a C-MAPSS file (26 columns: unit, cycle, 3 settings, 21 sensors), plain or gzip, of units that ran "
        "until they failed.",
    )
    parser.add_argument("--train", type=Path, required=True, metavar="F", help="a run-to-failure file")
    parser.add_argument("--validate", type=Path, metavar="V", help="CSV unit,cut_cycle,rul: keep these units out, test")
    parser.add_argument("--out", type=Path, metavar="BUNDLE_DIR", help="where the bundle goes")
    parser.add_argument("--cross-validate", action="store_true", help="report on unseen units, pack nothing")
    parser.add_argument("--like", type=Path, metavar="F", help="with it: how far the cuts are from F's lengths")
    parser.add_argument("--model", choices=MODELS, default=Recipe.model, help="default: %(default)s")
    parser.add_argument("--cap", type=float, default=Recipe.cap, help="the most cycles told (default: %(default)g)")
    parser.add_argument("--interval", type=float, default=Recipe.coverage, help="share inside (default: %(default)g)")
    parser.add_argument("--folds", type=int, default=5, help="of --cross-validate, by unit (default: %(default)s)")
    parser.add_argument(
        "--inner-folds",
        type=int,
        default=crossval.INNER_FOLDS,
        help="that the interval is learned from (default: %(default)s)",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one recipe entry")
    parser.add_argument("--name", default="remaining-life", help="the bundle's name (default: %(default)s)")
    parser.add_argument("--bundle-version", default=__version__, help="the bundle's version (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--threads", type=int, default=1, help="small trees gain little from more (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    args = parser.parse_args(argv)
    if (args.out is None) != args.cross_validate:
        parser.error("expected one of --out BUNDLE_DIR and --cross-validate")
    if (args.cross_validate and args.validate) or (args.like and not args.cross_validate):
        parser.error("--validate does not go with --cross-validate, --like goes with it alone")
    if not (
        args.cap > 0
        and 0 < args.interval < 1
        and min(args.folds, args.inner_folds) >= 2
        and args.seed >= 0
        and args.threads >= 1
    ):
        parser.error(
            "expected --cap over 0, --interval from 0 to 1, folds of 2 or more, --seed 0 or more, --threads 1 or more"
        )
    return args


def recipe_of(args: argparse.Namespace) -> Recipe:
    return with_settings(replace(Recipe(), model=args.model, cap=args.cap, coverage=args.interval), args.set)


def main(argv: list[str]) -> int:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    recipe = recipe_of(args)
    units = data.read_units(args.train)
    with shown_progress(Console(stderr=True)) as advance, threadpool_limits(args.threads):
        if args.cross_validate:
            start = time.monotonic()
            folds = _folds(args.folds, units)
            summary = crossval.cross_validate(units, recipe, folds, args.seed, args.inner_folds, advance)
            if args.like:
                lengths = [len(unit) for unit in data.read_units(args.like)]
                summary["length_distance"] = {
                    name: round(cuts.length_distance(units, lengths, name), 3) for name in cuts.DISTRIBUTIONS
                }
            summary |= {"seed": args.seed, "duration_s": round(time.monotonic() - start, 1)}
        else:
            summary = train(args, units, recipe, advance)
    print(json.dumps(summary, indent=2) if args.json else "\n".join(f"{k}: {v}" for k, v in summary.items()))
    return 0


def _folds(folds: int, units: Sequence[Unit]) -> int:
    if len(units) < 2 * folds:
        raise DataError(f"{len(units)} units for {folds} folds, expected at least {2 * folds}; choose fewer --folds")
    return folds


def train(
    args: argparse.Namespace,
    units: Sequence[Unit],
    recipe: Recipe,
    advance: Advance | None,
    key: Ed25519PrivateKey | None = None,
) -> dict[str, Any]:
    """Train and write the bundle `args.out`; returns the summary that is printed."""
    check_place(args.out)
    start = time.monotonic()
    held = data.read_cuts(args.validate, units) if args.validate else []
    names = {cut.unit for cut in held}
    inside = [unit for unit in units if unit.number not in names]
    answers = crossval.unseen(inside, recipe, args.inner_folds, args.seed, advance, "units held out in turn")
    band = crossval.band_of(inside, answers, recipe, args.seed)
    if advance:
        advance("all training units", 0, 1)
    whole = Whole(fit(inside, recipe, args.seed), band)
    if advance:
        advance("all training units", 1, 1)
    held_out = {"held_out_rmse": round(_weighted_rmse(inside, answers, recipe.cap), 3), "held_out_units": len(inside)}
    validation = validate(whole, units, held) if held else {}
    about = pack.About(
        name=args.name,
        version=args.bundle_version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        training={
            "data_digest": data.digest(args.train),
            "units": len(inside),
            "rows": sum(map(len, inside)),
            "seed": args.seed,
            "duration_s": round(time.monotonic() - start, 1),
            "recipe": json.loads(json.dumps(asdict(recipe))),
        },
        metrics={**held_out, **{f"validate_{k}": v for k, v in validation.items()}},
    )
    with tempfile.TemporaryDirectory(prefix="gudgeon-train-") as folder:
        work = Path(folder)
        export.export_fp32(whole, work / pack.FP32)
        if whole.fitted.nets:
            ranges = pack.calibration_inputs(whole, inside, CALIBRATION_INPUTS, args.seed)
            export.quantise_int8(work / pack.FP32, work / pack.INT8, ranges)
        pack.pack(args.out, work, whole, inside, about, key)
    loaded = load_bundle(args.out)
    return {
        "bundle": str(args.out),
        "units": len(inside),
        "model": recipe.model,
        "sensors": sum(name.startswith("sensor") for name in whole.fitted.view.tag_names),
        "ways_of_running": len(whole.fitted.view.regimes),
        **held_out,
        **({"validate": {**validation, "packed": _packed_agrees(args.out, whole, units, held)}} if held else {}),
        "edge_cost": edge_cost(loaded),
        "bundle_bytes": sum(p.stat().st_size for p in args.out.iterdir()),
        "duration_s": round(time.monotonic() - start, 1),
    }


def _weighted_rmse(units: Sequence[Unit], answers: Sequence[Any], cap: float) -> float:
    """Over the distribution of cuts, each unit once."""
    squares = [
        float((cuts.weights(len(unit)) * (predicted - remaining(unit, cap)) ** 2).sum())
        for unit, predicted in zip(units, answers, strict=True)
    ]
    return float(np.sqrt(np.mean(squares)))


def validate(whole: Whole, units: Sequence[Unit], held: Sequence[Cut]) -> dict[str, Any]:
    """Figures for the units that were kept out, at their cuts."""
    by_number = {unit.number: unit for unit in units}
    parts = []
    for cut in held:
        seen = by_number[cut.unit].until(cut.cycle)
        predicted = whole.fitted.predict(seen)
        parts.append(crossval.answers_at(seen, predicted, np.array([len(seen) - 1]), whole.band, cut.rul))
    answers = crossval.joined(parts).capped(whole.band.cap)
    return {"n": len(held), **{k: round(v, 4) for k, v in metrics.figures(answers).items()}}


def _packed_agrees(bundle_dir: Path, whole: Whole, units: Sequence[Unit], held: Sequence[Cut]) -> dict[str, float]:
    """The largest difference, in cycles, between the trained model and the packed one at the cuts."""
    by_number = {unit.number: unit for unit in units}
    worst = 0.0
    with open_model(bundle_dir) as model:
        for cut in held:
            seen = by_number[cut.unit].until(cut.cycle)
            worst = max(worst, abs(_packed(model, seen) - float(whole.fitted.predict(seen)[-1])))
    return {"largest_difference": round(worst, 4)}


def _packed(model: SeriesModel, unit: Unit) -> float:
    return answer(model, unit).remaining


@contextmanager
def shown_progress(console: Console) -> Iterator[Advance]:
    """A bar for each stage on a terminal; elsewhere a line a step."""
    if not console.is_terminal:

        def line(name: str, done: int, steps: int) -> None:
            print(f"{name}: {done} of {steps}", file=sys.stderr, flush=True)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} of {task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def bar(name: str, done: int, steps: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=steps)
            bars.update(tasks[name], completed=done)

        yield bar


if __name__ == "__main__":
    sys.exit(exit_code("gudgeon train rul", lambda: main(sys.argv[1:])))
