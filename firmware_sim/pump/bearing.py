"""Vibration of the bearing housing, in g: defect frequencies, one wave, and the figures of many waves without making them.

Defect frequencies of a rolling bearing with a fixed outer race, n balls of diameter d on a pitch circle D, contact angle φ, at
shaft rate f (Randall & Antoni, "Rolling element bearing diagnostics: a tutorial", MSSP 25, 2011):

    FTF  = f/2 · (1 − d/D · cos φ)              the cage
    BPFO = n · FTF                              a ball passes a spot on the outer race
    BPFI = n · f/2 · (1 + d/D · cos φ)          … on the inner race
    BSF  = f · D/(2d) · (1 − (d/D · cos φ)²)    a ball turns; its spot hits a race twice a turn

A spot gives an impact each time it is passed, and each impact rings the housing: A · exp(−αt) · sin(2π·f₀·t). The rollers
slip, so the times jitter by about 1 %. A spot on the inner race passes through the load zone once a turn: A is modulated by
(1 + cos 2πft)/2; one on a ball, by the cage.

Unbalance is a sine at f whose size grows with f²; looseness adds f/2 and the harmonics 2f to 5f with falling size; the rest is
noise. `figures` gives mean square and kurtosis of such a sum from the cumulants of its parts, which add: a sine of size A has
A²/2 and −3A⁴/8; an impact train at rate λ has λ·A²/(4α) and λ·3A⁴/(32α) − 3·(λA²/4α)²; noise has σ² and 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
UNBALANCE_G = 0.05  # at the nominal speed, of a healthy machine
LOOSENESS_SHARES = ((0.5, 0.5), (2.0, 1.0), (3.0, 0.7), (4.0, 0.45), (5.0, 0.3))  # (order, share of the size)
RESONANCE_HZ, DECAY_PER_S, SLIP = 2900.0, 900.0, 0.01
INNER_MODULATION = (3 / 8, 35 / 128)  # means of ((1 + cos)/2)² and ⁴
BEARING_MODES = ("outer", "inner", "ball")


@dataclass(frozen=True)
class Geometry:
    """The default is a 6205."""

    balls: int = 9
    ball_mm: float = 7.94
    pitch_mm: float = 39.04
    contact_deg: float = 0.0

    def __post_init__(self) -> None:
        if not (self.balls >= 3 and 0 < self.ball_mm < self.pitch_mm and 0 <= self.contact_deg < 90):
            raise ValueError("expected at least 3 balls, 0 < ball_mm < pitch_mm and contact_deg from 0 to 90")


class Rates(NamedTuple):
    """Defect frequencies in Hz."""

    ftf: float
    bpfo: float
    bpfi: float
    bsf: float


def rates(geometry: Geometry, shaft_hz: float) -> Rates:
    ratio = geometry.ball_mm / geometry.pitch_mm * np.cos(np.radians(geometry.contact_deg))
    ftf = shaft_hz / 2 * (1 - ratio)
    bsf = shaft_hz * geometry.pitch_mm / (2 * geometry.ball_mm) * (1 - ratio**2)
    return Rates(
        float(ftf), float(geometry.balls * ftf), float(geometry.balls * shaft_hz / 2 * (1 + ratio)), float(bsf)
    )


def impact_hz(geometry: Geometry, mode: str, shaft_hz: float) -> float:
    """How often the defect of this mode is struck."""
    found = rates(geometry, shaft_hz)
    return {"outer": found.bpfo, "inner": found.bpfi, "ball": 2 * found.bsf}[mode]


class Sizes(NamedTuple):
    """What the parts of the vibration measure now: `impact_g` first swing of an impact of `mode`."""

    unbalance_g: float
    looseness_g: float
    impact_g: float
    noise_g: float
    mode: str


def wave(
    sizes: Sizes, geometry: Geometry, shaft_hz: float, count: int, rate_hz: float, rng: np.random.Generator
) -> Floats:
    """`count` samples of acceleration, taken at `rate_hz`."""
    t = np.arange(count) / rate_hz
    phase = rng.uniform(0, 2 * np.pi)
    out = sizes.unbalance_g * np.sin(2 * np.pi * shaft_hz * t + phase) + rng.normal(0, sizes.noise_g, count)
    for order, share in LOOSENESS_SHARES:
        turn = 2 * np.pi * order * shaft_hz * t
        out += sizes.looseness_g * share * np.sin(turn + rng.uniform(0, 2 * np.pi))
    if sizes.impact_g > 0:
        out += _impacts(sizes, geometry, shaft_hz, t, rng)
    return out


def _impacts(sizes: Sizes, geometry: Geometry, shaft_hz: float, t: Floats, rng: np.random.Generator) -> Floats:
    period_s = 1 / impact_hz(geometry, sizes.mode, shaft_hz)
    before_s = 8 / DECAY_PER_S  # impacts that still ring at the start
    number = int((t[-1] + before_s) / period_s) + 2
    at = np.cumsum(period_s * (1 + SLIP * rng.standard_normal(number))) - before_s - rng.uniform(0, period_s)
    size = sizes.impact_g * modulation(sizes.mode, geometry, shaft_hz, at, rng.uniform(0, 2 * np.pi))
    since = t[None, :] - at[:, None]
    ring = np.where(
        since >= 0, np.exp(-DECAY_PER_S * np.maximum(since, 0)) * np.sin(2 * np.pi * RESONANCE_HZ * since), 0
    )
    return np.asarray(size @ ring)


def modulation(mode: str, geometry: Geometry, shaft_hz: float, at: Floats, phase: float) -> Floats:
    if mode == "outer":
        return np.ones_like(at)
    turn_hz = shaft_hz if mode == "inner" else rates(geometry, shaft_hz).ftf
    return np.asarray((1 + np.cos(2 * np.pi * turn_hz * at + phase)) / 2)


class Figures(NamedTuple):
    """Of many waves, one entry each: RMS and peak in g, kurtosis (3 for noise), velocity RMS in mm/s of the turning parts, and
    the RMS of what rings (the envelope's size) in g."""

    rms_g: Floats
    peak_g: Floats
    kurtosis: Floats
    velocity_mm_s: Floats
    ringing_g: Floats


def figures(
    unbalance_g: Floats,
    looseness_g: Floats,
    impact_g: Floats,
    noise_g: Floats,
    mode: str,
    geometry: Geometry,
    shaft_hz: Floats,
) -> Figures:
    """What a vibration sensor reports of waves of these sizes, in the mean."""
    per_turn = impact_hz(geometry, mode, 1.0) if mode in BEARING_MODES else 1.0
    square, fourth = (1.0, 1.0) if mode not in ("inner", "ball") else INNER_MODULATION
    train = per_turn * shaft_hz * square * impact_g**2 / (4 * DECAY_PER_S)
    train4 = per_turn * shaft_hz * fourth * 3 * impact_g**4 / (32 * DECAY_PER_S) - 3 * train**2
    mean_square, cumulant4 = noise_g**2 + train, np.asarray(train4)
    velocity = np.zeros_like(shaft_hz)
    for order, size in ((1.0, unbalance_g), *((o, share * looseness_g) for o, share in LOOSENESS_SHARES)):
        mean_square = mean_square + size**2 / 2
        cumulant4 = cumulant4 - 3 / 8 * size**4
        velocity = velocity + (size * 9810 / (2 * np.pi * order * np.maximum(shaft_hz, 1.0))) ** 2 / 2
    peak = unbalance_g + looseness_g + np.maximum(3.3 * noise_g, impact_g * 0.9)
    return Figures(
        np.sqrt(mean_square),
        peak,
        3 + cumulant4 / np.maximum(mean_square, 1e-9) ** 2,
        np.sqrt(velocity),
        np.sqrt(train),
    )
