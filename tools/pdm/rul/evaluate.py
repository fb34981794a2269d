"""`gudgeon evaluate rul`: predictions against what was truly left: RMSE, MAE, NASA's score, coverage and width of the band.

Both sides are capped. The truth is one number a line, in the order of the predictions, or a CSV with the column `rul`;
where that has a column `unit` too, rows are matched by unit.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.errors import DataError
from tools.pdm.rul import data, metrics
from tools.pdm.rul.metrics import Answers


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="gudgeon evaluate rul", description="Score predicted remaining lives.")
    parser.add_argument("--predictions", type=Path, required=True, metavar="F", help="CSV unit,rul,lower,upper")
    parser.add_argument("--truth", type=Path, required=True, metavar="F", help="a number a line, or a CSV with rul")
    parser.add_argument("--cap", type=float, default=125.0, help="the most cycles that count (default: %(default)g)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args(argv)
    if not args.cap > 0:
        parser.error("expected --cap over 0")
    result = evaluate(args.predictions, args.truth, args.cap)
    print(json.dumps(result, indent=2) if args.json else "\n".join(f"{k}: {v}" for k, v in result.items()))
    return 0


def evaluate(predictions: Path, truth: Path, cap: float) -> dict[str, Any]:
    """DataError where the two do not name the same units."""
    units, values = data.read_predictions(predictions)
    true = data.read_truth(truth)
    if named := data.truth_units(truth):
        by_unit = dict(zip(named, true, strict=True))
        if missing := [unit for unit in units if unit not in by_unit]:
            raise DataError(f"{truth}: has no row for unit {missing[0]} of {predictions}")
        true = np.array([by_unit[unit] for unit in units])
    if len(true) != len(units):
        raise DataError(f"{truth}: {len(true)} remaining lives for {len(units)} predictions of {predictions}")
    answers = Answers(values[:, 0], values[:, 1], values[:, 2], true, np.array(units)).capped(cap)
    return {
        "n": len(units),
        "cap": cap,
        **{name: round(value, 4) for name, value in metrics.figures(answers).items()},
        "ci95": {name: [round(v, 3) for v in pair] for name, pair in metrics.intervals(answers).items()},
    }
