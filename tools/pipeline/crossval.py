"""Grouped cross-validation: the figures that a recipe reaches on parts it has not seen. Chooses; never touches `test`.

Exposures of one tile stay on one side of a fold (`data.similar_groups`). `python -m tools.pipeline.crossval --data DIR`
prints what docs/explain/surface-detector.md shows; `--set KEY=VALUE` changes one entry of the recipe.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from edge_runtime.errors import UsageError, exit_code
from edge_runtime.infer.post import softmax
from tools.pipeline import calibrate, metrics
from tools.pipeline.data import (
    class_names,
    data_digest,
    grouped_folds,
    load_image,
    load_mask,
    read_labels,
    similar_groups,
)
from tools.pipeline.train import Recipe, Samples, fit, logits_of

Progress = Callable[[str, int, int, float], None]
R = TypeVar("R")


@dataclass(frozen=True)
class Loaded:
    """A labelled folder in memory; `groups`: which images show the same part."""

    samples: Samples
    classes: tuple[str, ...]
    ok_class: str
    groups: NDArray[np.int64]
    digest: str


@dataclass(frozen=True)
class HeldOut:
    """Logits of the samples `index` by networks that were trained without their groups."""

    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    fold: NDArray[np.int64]

    def figures(self) -> dict[str, float]:
        """Figures at the best temperature; balanced accuracy at the best threshold (optimistic) and at the chosen one."""
        temperature = calibrate.fit_temperature(self.logits, self.labels)
        p = softmax(self.logits, temperature)
        score, defect = 1.0 - p[:, 0], self.labels != 0
        chosen = calibrate.choose_thresholds(defect, score)
        best = score >= calibrate.best_threshold(defect, score)
        return {
            **metrics.figures(self.labels, p, score >= chosen.review, 0),
            "balanced_accuracy_best": metrics.balanced_accuracy(defect, best),
        }

    def fold_auroc(self) -> list[float]:
        """AUROC fold by fold: with few tiles a class the folds differ more than the recipes do."""
        score = 1.0 - softmax(self.logits, 1.0)[:, 0]
        folds = np.unique(self.fold)
        return [round(metrics.auroc(self.labels[self.fold == f] != 0, score[self.fold == f]), 4) for f in folds]

    def confusion(self) -> list[list[int]]:
        """Row: what it is; column: what the network says."""
        table = np.zeros((self.logits.shape[1],) * 2, int)
        np.add.at(table, (self.labels, self.logits.argmax(1)), 1)
        found: list[list[int]] = table.tolist()
        return found


def load(folder: Path, split: str) -> Loaded:
    rows = read_labels(folder, split)
    classes, ok = class_names(rows)
    frames = [load_image(row.path) for row in rows]
    masks = [load_mask(row, frame.shape) if row.defect else None for row, frame in zip(rows, frames, strict=True)]
    labels = np.array([classes.index(row.label) for row in rows])
    return Loaded(Samples(frames, masks, labels), classes, ok, similar_groups(frames), data_digest(rows))


def cross_validate(
    data: Loaded, recipe: Recipe, folds: int, max_folds: int, seed: int, progress: Progress | None = None
) -> HeldOut:
    """Train on all folds but one and answer for that one, for the first `max_folds` of `folds`."""
    rng = np.random.default_rng(seed)
    fold_of = grouped_folds(data.samples.labels, data.groups, folds, rng.shuffle)
    places, answers = [], []
    for fold in range(min(max_folds, folds)):
        inside, outside = np.nonzero(fold_of != fold)[0], np.nonzero(fold_of == fold)[0]

        def step(done: int, steps: int, loss: float, name: str = f"fold {fold + 1}") -> None:
            if progress:
                progress(name, done, steps, loss)

        net = fit(data.samples.take(inside), len(data.classes), recipe, seed + fold, step)
        answers.append(logits_of(net, data.samples.take(outside).inputs(recipe.input)))
        places.append(outside)
    index = np.concatenate(places)
    return HeldOut(index, data.samples.labels[index], np.concatenate(answers), fold_of[index])


def with_settings(recipe: R, settings: Sequence[str]) -> R:
    """`recipe` with `key=value` changed; nested entries as `augmentation.noise=0.1`. UsageError names a wrong key."""
    for setting in settings:
        key, _, text = setting.partition("=")
        recipe = _set(recipe, key.split("."), text, key)
    return recipe


def _set(settings: Any, path: list[str], text: str, key: str) -> Any:
    names = [f.name for f in fields(settings)]
    if path[0] not in names:
        raise UsageError(f"--set {key}: unknown entry {path[0]!r}, expected one of {', '.join(names)}")
    old = getattr(settings, path[0])
    if is_dataclass(old) and len(path) > 1:
        return replace(settings, **{path[0]: _set(old, path[1:], text, key)})
    try:
        new = json.loads(text)
        if isinstance(old, tuple):
            new = tuple(new)
        if len(path) > 1 or isinstance(new, bool) != isinstance(old, bool):
            raise ValueError
        new = type(old)(new)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--set {key}={text}: expected a value like {old!r}") from error
    return replace(settings, **{path[0]: new})


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.pipeline.crossval", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--split", default="train")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--max-folds", type=int, default=0, help="stop after so many (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change one entry of the recipe"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    console = Console(stderr=True, quiet=args.json)
    recipe = with_settings(Recipe(), args.set)

    def progress(name: str, done: int, steps: int, loss: float) -> None:
        if done % 50 == 0:
            console.print(f"{name}: step {done} of {steps}, loss {loss:.3f}")

    start = time.monotonic()
    held_out = cross_validate(
        load(args.data, args.split), recipe, args.folds, args.max_folds or args.folds, args.seed, progress
    )
    result = {
        "settings": args.set,
        "n": len(held_out.index),
        **held_out.figures(),
        "fold_auroc": held_out.fold_auroc(),
        "confusion": held_out.confusion(),
        "duration_s": round(time.monotonic() - start, 1),
    }
    print(json.dumps(result) if args.json else "\n".join(f"{k}: {v}" for k, v in result.items()))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code("crossval", lambda: main(sys.argv[1:])))
