"""Temperature and thresholds, chosen on parts that the network was not trained on.

Both come from out-of-fold logits of `train` only. The review threshold is where parts begin to be diverted; the reject
threshold is where hardly any sound part is left, so that what lies between them is worth a second look.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_runtime.infer.post import softmax
from edge_runtime.wire.manifest import Thresholds
from tools.pipeline import metrics

TEMPERATURES = np.exp(np.linspace(np.log(0.2), np.log(8.0), 200))
RESAMPLES = 200
REJECT_OVERKILL = 0.01


def negative_log_likelihood(logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float) -> float:
    p = softmax(logits, temperature)[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(p, 1e-12)).mean())


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """The temperature of least negative log-likelihood on held-out logits (Guo et al., 2017)."""
    losses = [negative_log_likelihood(logits, labels, float(t)) for t in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def best_threshold(defect: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """The score of greatest balanced accuracy: the middle of the best gap between two neighbouring scores."""
    values = np.unique(score)
    cuts = np.concatenate([[0.0], (values[1:] + values[:-1]) / 2, [1.0]])
    recall = 1.0 - np.searchsorted(np.sort(score[defect]), cuts) / max(int(defect.sum()), 1)
    passed = np.searchsorted(np.sort(score[~defect]), cuts) / max(int((~defect).sum()), 1)
    return float(cuts[int(np.argmax(recall + passed))])


def choose_thresholds(defect: NDArray[np.bool_], score: NDArray[np.float64], seed: int = 0) -> Thresholds:
    """`review`: median over resamples of the best threshold, so that no single part decides it. `reject`: the smallest
    score that at most `REJECT_OVERKILL` of the sound parts reach, and never below `review`."""
    rng = np.random.default_rng(seed)
    bad, sound = np.nonzero(defect)[0], np.nonzero(~defect)[0]
    if not len(bad) or not len(sound):
        return Thresholds(reject=0.5, review=0.5)
    found = []
    for _ in range(RESAMPLES):
        index = np.concatenate([rng.choice(bad, len(bad)), rng.choice(sound, len(sound))])
        found.append(best_threshold(defect[index], score[index]))
    review = float(np.clip(np.median(found), 0.02, 0.98))
    reject = float(np.quantile(score[~defect], 1.0 - REJECT_OVERKILL, method="higher")) + 1e-4
    return Thresholds(reject=round(min(max(review, reject), 0.999), 4), review=round(min(review, 0.999), 4))


def held_out_figures(
    logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float, thresholds: Thresholds
) -> dict[str, float]:
    """The figures of held-out parts at the chosen temperature and thresholds; class 0 is the sound one."""
    p = softmax(logits, temperature)
    return metrics.figures(labels, p, 1.0 - p[:, 0] >= thresholds.review, 0)
