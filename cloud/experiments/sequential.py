"""A comparison of shares that may be looked at after every part, and stopped at any look. Pure.

The test is the mixture sequential probability ratio test with a normal mixture (Johari, Koomen, Pekelis, Walsh: Always Valid
Inference, Operations Research 70(3), 2022). With θ the difference of two arms, V its variance and τ² the variance of the
mixture:

    Λ = √(V / (V + τ²)) · exp(τ² θ² / (2 V (V + τ²)))        p = min(p so far, 1 / Λ)

Under no difference the chance that p ever falls to α is α at most, in the limit of many parts. The interval is the same test
turned round, so it, too, holds at all looks together (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas: Time-uniform central limit
theory and asymptotic confidence sequences, 2021).

- Devices are what was randomised, and parts of one device are alike. So V is that of a ratio over devices (cluster-robust), and
  never below that of independent parts. With few devices the p-value is that of a difference made smaller, as Student's
  quantile is larger than the normal one.
- Before each arm has enough devices, parts and events nothing is told: the limit has not come near.
- The sample ratio is looked at on devices: who reports must be as many as the shares say. Where not (p < 0.001), something takes
  devices out of one arm, and the comparison means nothing, whatever it says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

LEAST_DEVICES, LEAST_PARTS, LEAST_EVENTS = 8, 100, 5
SAMPLE_RATIO_ALARM = 0.001


class Unit(NamedTuple):
    """One device: parts, and how many of them count as an event."""

    parts: int
    events: int


@dataclass(frozen=True)
class Rate:
    """Of one arm. `variance`: of `share`."""

    devices: int
    parts: int
    events: int
    share: float
    variance: float

    @property
    def enough(self) -> bool:
        return self.devices >= LEAST_DEVICES and self.parts >= LEAST_PARTS


class Comparison(NamedTuple):
    """`difference`: of the arm to the first one, with the interval that holds at all looks. `p` of this look; None: too early."""

    difference: float
    low: float
    high: float
    p: float | None


def rate(units: Sequence[Unit]) -> Rate:
    seen = [unit for unit in units if unit.parts > 0]
    parts, events = sum(u.parts for u in seen), sum(u.events for u in seen)
    if not parts:
        return Rate(0, 0, 0, 0.0, math.inf)
    share = events / parts
    independent = max(share * (1.0 - share), 1.0 / parts) / parts
    if len(seen) < 2:
        return Rate(len(seen), parts, events, share, math.inf)
    squares = sum((u.events - share * u.parts) ** 2 for u in seen)
    clustered = len(seen) / (len(seen) - 1) * squares / parts**2
    return Rate(len(seen), parts, events, share, max(independent, clustered))


def compare(first: Rate, other: Rate, effect: float, alpha: float) -> Comparison:
    """`effect`: τ, the scale of differences that are worth finding."""
    difference = other.share - first.share
    events = first.events + other.events
    rare = min(events, first.parts + other.parts - events) < LEAST_EVENTS
    if not (first.enough and other.enough) or rare:
        return Comparison(difference, -1.0, 1.0, None)
    variance = (first.variance + other.variance) * _few(first.devices + other.devices - 2)
    both = variance + effect**2
    log_ratio = 0.5 * math.log(variance / both) + effect**2 * difference**2 / (2.0 * variance * both)
    width = math.sqrt(variance * both / effect**2 * (2.0 * math.log(1.0 / alpha) + math.log(both / variance)))
    return Comparison(difference, difference - width, difference + width, min(1.0, math.exp(-log_ratio)))


def _few(freedom: int) -> float:
    """By how much the variance grows for so few devices: the square of Student's quantile to the normal one at a level that the
    test works at (|t| about 3), by the first terms of its expansion (Abramowitz and Stegun 26.7.5)."""
    z = 3.0
    t = z + (z**3 + z) / (4.0 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96.0 * freedom**2)
    return (t / z) ** 2


def sample_ratio_p(devices: Sequence[int], shares: Sequence[float]) -> float:
    """The chance of counts as uneven as these, if the shares hold: Pearson's chi-square test."""
    total = sum(devices)
    if not total:
        return 1.0
    chi2 = sum((n - total * share) ** 2 / (total * share) for n, share in zip(devices, shares, strict=True))
    return chi2_above(chi2, len(devices) - 1)


def chi2_above(value: float, freedom: int) -> float:
    """Upper tail of chi-square; exact, by recursion over two degrees of freedom at a time."""
    half = value / 2.0
    if freedom % 2:
        tail, term, n = math.erfc(math.sqrt(half)), math.exp(-half) * math.sqrt(half / math.pi) * 2.0, 3
    else:
        tail, term, n = math.exp(-half), math.exp(-half) * half, 4
    while n <= freedom:
        tail += term
        term *= half / (n / 2.0)
        n += 2
    return min(1.0, tail)
