"""Kalman smoothing of a remaining life on the device: between two answers of the model one row passes, so one is gone.

The state is the remaining life with a drift of −1 a row; an answer of the model is a measurement of it. `life_variance`
is how much the true pace differs from one row a row (a machine that is run harder), `answer_variance` how far the
model's answers scatter. An answer at the cap says only "the cap or more": there the state is held at the cap and nothing
drifts until answers come below it. Plain floats, no arrays: a step is a few multiplications.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DRIFT = -1.0
AT_CAP = 0.98  # of the cap: answers above it tell no number
# Standard deviations as shares of the cap: as accurate as the answers alone, with a third of their jitter
# (docs/explain/remaining-useful-life.md).
LIFE_SHARE, ANSWER_SHARE = 0.025, 0.08


@dataclass(frozen=True)
class Noise:
    """Variances in squared units of life, both > 0."""

    life_variance: float
    answer_variance: float


def noise_of(cap: float) -> Noise:
    """What suits a model whose answers end at `cap`."""
    return Noise((LIFE_SHARE * cap) ** 2, (ANSWER_SHARE * cap) ** 2)


@dataclass(frozen=True)
class State:
    """`life` with its `variance`; both in units of life."""

    life: float
    variance: float


def step(state: State | None, answer: float | None, noise: Noise, cap: float) -> State | None:
    """The state after one more row; `answer` is None where the model gave none, and the life then only drifts.

    ValueError for an answer that is not finite or a variance that is not positive."""
    if not (noise.life_variance > 0 and noise.answer_variance > 0):
        raise ValueError(f"noise {noise}: expected variances > 0")
    if answer is not None and not math.isfinite(answer):
        raise ValueError(f"answer is {answer}, expected a finite number")
    if state is None:
        return None if answer is None else State(_limited(answer, cap), noise.answer_variance)
    held = state.life >= AT_CAP * cap
    life = state.life if held else state.life + DRIFT
    variance = state.variance + noise.life_variance
    if answer is None:
        return State(_limited(life, cap), variance)
    gain = variance / (variance + noise.answer_variance)
    return State(_limited(life + gain * (answer - life), cap), (1.0 - gain) * variance)


def smooth(answers: list[float | None], noise: Noise, cap: float) -> list[float | None]:
    """`step` over a whole series: the life after each row from the answers up to it."""
    state: State | None = None
    out: list[float | None] = []
    for answer in answers:
        state = step(state, answer, noise, cap)
        out.append(None if state is None else state.life)
    return out


def _limited(life: float, cap: float) -> float:
    return min(max(life, 0.0), cap)
