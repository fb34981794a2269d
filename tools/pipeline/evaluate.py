"""`gudgeon evaluate`: a packed bundle on labelled images, through the very functions that the device runs.

Both ONNX variants are run frame by frame: `infer.pre.preprocess`, the engine, `infer.post.judge`. Defect / ok figures use
the bundle's own thresholds, review counted as diverted. Needs no PyTorch.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from edge_runtime.errors import BundleError, DataError
from edge_runtime.infer import bundle as bundles
from edge_runtime.infer import select
from edge_runtime.infer.post import PASS, judge
from edge_runtime.infer.pre import preprocess
from edge_runtime.wire.manifest import Variant
from tools.pipeline import metrics
from tools.pipeline.data import Row, load_image, read_labels

PRECISIONS = ("fp32", "int8")
SHOWN = ("accuracy", "balanced_accuracy", "auroc", "macro_f1", "ece")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="gudgeon evaluate", description="Score a packed bundle on labelled images.")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE_DIR")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a folder with labels.csv")
    parser.add_argument("--split", default="test", help="a split named in labels.csv (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args(argv)
    result = evaluate(args.bundle, args.data, args.split, quiet=args.json)
    print(json.dumps(result, indent=2)) if args.json else show(result)
    return 0


def evaluate(bundle_dir: Path, data: Path, split: str, quiet: bool = True) -> dict[str, Any]:
    """The report that `--json` prints; `per_class` is of the INT8 variant, which is the one that normally runs."""
    bundle = bundles.load(bundle_dir)
    variants = {precision: _variant(bundle, precision) for precision in PRECISIONS}
    rows = read_labels(data, split)
    classes = bundle.manifest.classes
    labels = _labels(rows, classes, bundle.manifest.ok_class)
    ok = classes.index(bundle.manifest.ok_class)
    result: dict[str, Any] = {"n": len(rows), "classes": list(classes)}
    for precision, variant in variants.items():
        probabilities, diverted = _answers(bundle, variant, rows, quiet)
        if precision == "int8":
            result["per_class"] = metrics.per_class(labels, probabilities.argmax(1), classes)
        result[precision] = metrics.report(labels, probabilities, diverted, ok)
    result["file_bytes"] = {p: (bundle_dir / v.file).stat().st_size for p, v in variants.items()}
    return result


def _variant(bundle: bundles.Bundle, precision: str) -> Variant:
    for variant in bundle.manifest.variants:
        if variant.precision == precision and variant.file.endswith(".onnx"):
            return variant
    raise BundleError(f"bundle {bundle.path}: no {precision} variant in ONNX; train it again with `gudgeon train`")


def _labels(rows: list[Row], classes: tuple[str, ...], ok_class: str) -> NDArray[np.int64]:
    for row in rows:
        if row.label not in classes:
            raise DataError(f"class {row.label!r} of {row.path.name} is not in the bundle; it has {', '.join(classes)}")
        if row.defect == (row.label == ok_class):
            raise DataError(f"{row.path.name}: defect = {int(row.defect)} for class {row.label!r}, but the bundle's "
                            f"sound class is {ok_class!r}")  # fmt: skip
    return np.array([classes.index(row.label) for row in rows])


def _answers(
    bundle: bundles.Bundle, variant: Variant, rows: list[Row], quiet: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(probabilities (n, classes), diverted (n,)) as this variant answers; not finite counts as diverted."""
    engine = select.open_engine(bundle, variant)
    probabilities = np.empty((len(rows), len(bundle.manifest.classes)))
    diverted = np.empty(len(rows), bool)
    for i, row in enumerate(track(rows, f"running {variant.name}", console=Console(stderr=True), disable=quiet)):
        logits = engine.infer(preprocess(load_image(row.path), bundle.manifest.input))
        judgement = judge(logits, bundle.manifest)
        probabilities[i] = judgement.probabilities or 1.0 / probabilities.shape[1]
        diverted[i] = judgement.result != PASS
    engine.close()
    return probabilities, diverted


def show(result: dict[str, Any]) -> None:
    console = Console()
    table = Table(title=f"{result['n']} images")
    for column in ("", "FP32", "INT8", "INT8, 95 % interval"):
        table.add_column(column, justify="right" if column else "left")
    for name in SHOWN:
        low, high = result["int8"]["ci95"].get(name, (None, None))
        interval = "" if low is None else f"{low:.3f} – {high:.3f}"
        table.add_row(name, f"{result['fp32'][name]:.4f}", f"{result['int8'][name]:.4f}", interval)
    table.add_row("file bytes", *(f"{result['file_bytes'][p]:,}" for p in PRECISIONS), "")
    console.print(table)
    classes = Table(title="INT8 by class")
    for column in ("class", "precision", "recall", "F1", "images"):
        classes.add_column(column, justify="left" if column == "class" else "right")
    for name, row in result["per_class"].items():
        figures = (f"{row[k]:.3f}" for k in ("precision", "recall", "f1"))
        classes.add_row(name, *figures, str(row["support"]))
    console.print(classes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
