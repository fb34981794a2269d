"""From logits to a judgement: calibrated probabilities, thresholds, and a reason in words. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.wire.manifest import Manifest

PASS, REJECT, REVIEW = 1, 2, 3


@dataclass(frozen=True)
class Judgement:
    """`score` is the probability of any defect, 0–1; `label` the most probable class (the most probable defect where
    the result is not pass); `result` 1 pass, 2 reject, 3 review."""

    score: float
    label: str
    probabilities: tuple[float, ...]
    result: int
    reason: str

    @property
    def finite(self) -> bool:
        """Did the engine give numbers?"""
        return bool(self.probabilities)


def softmax(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Probabilities along the last axis, after temperature scaling (Guo et al., 2017)."""
    z = np.asarray(logits, np.float64) / temperature
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def judge(logits: NDArray[np.float32], manifest: Manifest) -> Judgement:
    """`logits`: (classes,). Logits that are not finite are never guessed at: review with score 1."""
    z = [value / manifest.temperature for value in logits.tolist()]  # a few numbers: plain floats beat arrays
    if not all(map(math.isfinite, z)):
        return Judgement(1.0, "", (), REVIEW, "the engine returned a value that is not finite")
    top = max(z)
    e = [math.exp(value - top) for value in z]
    total = sum(e)
    p = [value / total for value in e]
    ok = manifest.classes.index(manifest.ok_class)
    score = min(max(1.0 - p[ok], 0.0), 1.0)
    worst = max((q, i) for i, q in enumerate(p) if i != ok)[1]
    limits = manifest.thresholds
    for name, least in limits.class_min.items():
        q = p[manifest.classes.index(name)]
        if q >= least and name != manifest.ok_class:
            return Judgement(score, name, tuple(p), REJECT, f"{name} {q:.3f} >= {least:.3f}")
    label = manifest.classes[worst]
    if score >= limits.reject:
        return Judgement(score, label, tuple(p), REJECT, f"defect {score:.3f} >= {limits.reject:.3f}")
    if score >= limits.review:
        return Judgement(score, label, tuple(p), REVIEW, f"defect {score:.3f} in the review band")
    return Judgement(score, manifest.ok_class, tuple(p), PASS, f"defect {score:.3f} < {limits.review:.3f}")
