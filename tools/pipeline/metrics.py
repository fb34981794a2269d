"""Figures of a classifier, in NumPy: what `gudgeon evaluate` reports and what training selects by.

Labels are class numbers; `diverted` is what the line would do (reject or review); fractions throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Scores = NDArray[np.float64]
Flags = NDArray[np.bool_]

ECE_BINS = 15
BOOTSTRAPS = 1000
INTERVAL = (2.5, 97.5)


def accuracy(labels: Labels, predicted: Labels) -> float:
    return float((labels == predicted).mean())


def balanced_accuracy(defect: Flags, diverted: Flags) -> float:
    """Mean of the share of defective parts diverted and of sound parts passed; NaN without both kinds."""
    if defect.all() or not defect.any():
        return float("nan")
    return float((diverted[defect].mean() + (~diverted[~defect]).mean()) / 2)


def auroc(defect: Flags, score: Scores) -> float:
    """Chance that a defective part scores above a sound one, ties counting half; NaN without both kinds."""
    if defect.all() or not defect.any():
        return float("nan")
    values, index, counts = np.unique(score, return_inverse=True, return_counts=True)
    del values
    rank = (np.cumsum(counts) - (counts - 1) / 2)[index]
    bad = int(defect.sum())
    return float((rank[defect].sum() - bad * (bad + 1) / 2) / (bad * (len(defect) - bad)))


def per_class(labels: Labels, predicted: Labels, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 (0 where undefined) and support of each class."""
    table = {}
    for number, name in enumerate(classes):
        is_it, said_it = labels == number, predicted == number
        hit = int((is_it & said_it).sum())
        precision, recall = _ratio(hit, int(said_it.sum())), _ratio(hit, int(is_it.sum()))
        f1 = _ratio(2 * hit, int(said_it.sum()) + int(is_it.sum()))
        table[name] = {"precision": precision, "recall": recall, "f1": f1, "support": int(is_it.sum())}
    return table


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def macro_f1(labels: Labels, predicted: Labels, classes: int) -> float:
    """Mean F1 over the classes that occur in `labels` or `predicted`."""
    values = []
    for number in range(classes):
        is_it, said_it = labels == number, predicted == number
        if is_it.any() or said_it.any():
            values.append(2 * int((is_it & said_it).sum()) / (int(is_it.sum()) + int(said_it.sum())))
    return float(np.mean(values)) if values else float("nan")


def ece(labels: Labels, probabilities: Scores, bins: int = ECE_BINS) -> float:
    """Expected calibration error of the most probable class, in equal-width bins of its probability."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    total = np.bincount(place, minlength=bins)
    gap = np.abs(np.bincount(place, right, bins) - np.bincount(place, confidence, bins))
    return float(gap[total > 0].sum() / len(labels))


def figures(labels: Labels, probabilities: Scores, diverted: Flags, ok: int) -> dict[str, float]:
    """Everything but the intervals. `probabilities`: (n, classes)."""
    defect, predicted = labels != ok, probabilities.argmax(1)
    return {
        "accuracy": accuracy(labels, predicted),
        "balanced_accuracy": balanced_accuracy(defect, diverted),
        "auroc": auroc(defect, 1.0 - probabilities[:, ok]),
        "macro_f1": macro_f1(labels, predicted, probabilities.shape[1]),
        "ece": ece(labels, probabilities),
    }


def intervals(
    labels: Labels, probabilities: Scores, diverted: Flags, ok: int, seed: int = 0, repeats: int = BOOTSTRAPS
) -> dict[str, list[float]]:
    """95 % intervals of the figures: bootstrap within each class, so that every class keeps its number of parts."""
    rng = np.random.default_rng(seed)
    places = [np.nonzero(labels == number)[0] for number in np.unique(labels)]
    drawn: dict[str, list[float]] = {"accuracy": [], "balanced_accuracy": [], "auroc": [], "macro_f1": []}
    for _ in range(repeats):
        index = np.concatenate([rng.choice(place, len(place)) for place in places])
        sample = figures(labels[index], probabilities[index], diverted[index], ok)
        for name, values in drawn.items():
            values.append(sample[name])
    return {name: [float(v) for v in np.percentile(values, INTERVAL)] for name, values in drawn.items()}


def report(labels: Labels, probabilities: Scores, diverted: Flags, ok: int) -> dict[str, Any]:
    return {
        **figures(labels, probabilities, diverted, ok),
        "ci95": intervals(labels, probabilities, diverted, ok),
    }
