"""The machine: from time, load and wear to what each sensor would read. Vectorised over time; `Machine.block` gives the next
stretch, so that a run of weeks is one call and a live server takes a few steps at a time.

Hydraulics (textbook curves of a centrifugal pump; flow Q in m³/h, head H in m, n the share of the nominal speed):

    pump   H = n²·H0 − K·Q²             affinity law for the speed
    plant  H = HS + R·Q²/v²             static lift, and a valve that is open by v
    so     Q = √((n²·H0 − HS) / (K + R/v²))
    power  P = ρ·g·Q·H / η(Q)           η has its best point at QB

Heat: each temperature follows ambient plus its source with a first-order lag. Ambient and load have a daily rhythm and a slow
random part (AR(1)). Readings have the noise of their sensor. A failed machine stands: no flow, no vibration, and it cools down.

What wear of 1 does: bearing faults ring with up to `IMPACT_G` and heat the bearing; unbalance grows eightfold; looseness brings
harmonics; a worn valve opens only 55 % as far as told and sticks; a worn impeller has lost 30 % of its head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firmware_sim.pump import bearing
from firmware_sim.pump.bearing import BEARING_MODES, Geometry, Sizes
from firmware_sim.pump.life import DAY_S, Life

Floats = NDArray[np.float64]
NOMINAL_RPM, SLIP_RPM = 1500.0, 45.0
H0_M, HS_M, K, R, QB, BEST = 32.0, 8.0, 0.004, 0.002, 55.0, 0.75
GRAVITY, BAR_PER_M = 9.81, 0.0981
IMPACT_G = 6.0
PLAN_S = 4 * 3600.0  # the production plan changes the load this often
TAU_BEARING_S, TAU_MOTOR_S, TAU_WEATHER_S, TAU_LOAD_S = 1200.0, 2400.0, 6 * 3600.0, 900.0
NOISE = {
    "speed": 0.8, "valve": 0.15, "flow": 0.25, "suction": 0.01, "discharge": 0.015, "current": 0.05,
    "bearing_temp": 0.15, "motor_temp": 0.2, "ambient_temp": 0.1,
}  # fmt: skip
VIBRATION_NOISE = 0.04  # of a vibration figure, as a share: one wave is not like the next


@dataclass(frozen=True)
class Block:
    """`values`: what sensors read at `t_s`, by tag; `severity` 0 to 1. `shaft_hz` and `parts` are what a wave is made from."""

    t_s: Floats
    values: dict[str, Floats]
    severity: Floats
    shaft_hz: Floats
    parts: dict[str, Floats]


class Machine:
    def __init__(self, life: Life, geometry: Geometry, seed: int, step_s: float) -> None:
        self.life, self.geometry, self.step_s = life, geometry, step_s
        self._rng = np.random.default_rng([seed, 2])
        plan = np.random.default_rng([seed, 3])
        self._plan = plan.choice([0.72, 0.78, 0.84, 0.9], 4096)
        self._t_s = 0.0
        self._lagged: dict[str, float] = {}

    @property
    def now_s(self) -> float:
        """Where the next block begins."""
        return self._t_s

    def begin_at(self, t_s: float) -> None:
        """Skip to this time of the life, before the first block."""
        self._t_s = t_s

    def block(self, count: int) -> Block:
        t: Floats = np.asarray(self._t_s + self.step_s * np.arange(count), dtype=np.float64)
        self._t_s += self.step_s * count
        severity = self.life.severity(t)
        running = np.where(t < self.life.failure_s, 1.0, 0.0)
        ambient = 22 + 4 * np.sin(2 * np.pi * (t / DAY_S - 0.35)) + self._drift("weather", count, TAU_WEATHER_S, 1.2)
        load = self._plan[(t // PLAN_S).astype(int) % len(self._plan)] + 0.02 * np.sin(2 * np.pi * t / DAY_S)
        valve = np.clip(self._lag("valve", load, 60.0) + self._drift("load", count, TAU_LOAD_S, 0.01), 0.3, 1.0)
        water = self._water(valve, severity, running)
        heat = self._heat(water, ambient, severity, running)
        parts = self._vibration(water, severity, running)
        values = {**water, **heat, "valve": valve * 100}
        shaft_hz = water["speed"] / 60
        for name, noise in NOISE.items():
            values[name] = values[name] + self._rng.normal(0, noise, count)
        values.update(self._figures(parts, shaft_hz, count))
        values["operating_s"] = np.minimum(t, self.life.failure_s)
        return Block(t, values, severity, shaft_hz, parts)

    def sizes(self, block: Block, at: int) -> Sizes:
        """The parts of the vibration at one place of the block."""
        p = {name: float(series[at]) for name, series in block.parts.items()}
        return Sizes(p["unbalance"], p["looseness"], p["impact"], p["noise"], self.life.mode)

    def _water(self, valve: Floats, severity: Floats, running: Floats) -> dict[str, Floats]:
        mode = self.life.mode
        stick = severity * 0.03 * self._drift("stick", len(valve), 300.0, 1.0)
        opening = np.clip(valve * (1 - 0.45 * severity) + stick, 0.1, 1.0) if mode == "valve" else valve
        speed = (NOMINAL_RPM - SLIP_RPM * valve) * running
        share = speed / NOMINAL_RPM
        head0 = share**2 * H0_M * (1 - 0.3 * severity if mode == "impeller" else 1.0)
        flow = np.sqrt(np.maximum(head0 - HS_M, 0) / (K + R / opening**2))
        head = np.maximum(head0 - K * flow**2, 0)
        efficiency = np.maximum(BEST * (1 - ((flow - QB) / 70) ** 2), 0.2)
        power_kw = GRAVITY * flow / 3600 * head / efficiency + 0.4 * running
        friction = 1 + (0.03 * severity if mode in BEARING_MODES else 0.0)
        suction = 1.1 - 0.004 * flow
        current = (2.2 + power_kw * friction / (np.sqrt(3) * 0.4 * 0.85 * 0.9)) * running
        return {
            "speed": speed, "flow": flow, "suction": suction, "discharge": suction + head * BAR_PER_M,
            "current": current,
        }  # fmt: skip

    def _heat(self, water: dict[str, Floats], ambient: Floats, severity: Floats, running: Floats) -> dict[str, Floats]:
        worn = 35 * severity**1.5 if self.life.mode in BEARING_MODES else 8 * severity
        bearing_rise = (14 + 1.5 * water["current"] + worn) * running
        motor_rise = 0.35 * water["current"] ** 2
        return {
            "ambient_temp": ambient,
            "bearing_temp": self._lag("bearing", ambient + bearing_rise, TAU_BEARING_S),
            "motor_temp": self._lag("motor", ambient + motor_rise, TAU_MOTOR_S),
        }

    def _vibration(self, water: dict[str, Floats], severity: Floats, running: Floats) -> dict[str, Floats]:
        mode, share = self.life.mode, water["speed"] / NOMINAL_RPM
        hydraulic = 0.05 * np.abs(water["flow"] - QB) / QB  # off its best point a pump is louder
        worn = {m: severity if mode == m else np.zeros_like(severity) for m in ("unbalance", "looseness", "impeller")}
        impact = IMPACT_G * severity if mode in BEARING_MODES else np.zeros_like(severity)
        return {
            "unbalance": bearing.UNBALANCE_G * share**2 * (1 + 7 * worn["unbalance"]),
            "looseness": (0.01 + 0.5 * worn["looseness"]) * share,
            "impact": impact * share,
            "noise": (0.06 + hydraulic + 0.1 * worn["impeller"] + 0.02 * impact) * running + 0.002,
        }

    def _figures(self, parts: dict[str, Floats], shaft_hz: Floats, count: int) -> dict[str, Floats]:
        found = bearing.figures(
            parts["unbalance"],
            parts["looseness"],
            parts["impact"],
            parts["noise"],
            self.life.mode,
            self.geometry,
            shaft_hz,
        )
        noisy = (series * np.exp(self._rng.normal(0, VIBRATION_NOISE, count)) for series in found)
        rms, peak, kurtosis, velocity, ringing = noisy
        return {
            "vib_rms": rms, "vib_peak": peak, "vib_kurtosis": kurtosis, "vib_velocity": velocity,
            "vib_envelope": np.hypot(ringing, 0.2 * parts["noise"]),
        }  # fmt: skip

    def _drift(self, name: str, count: int, tau_s: float, spread: float) -> Floats:
        """AR(1): a random value that forgets in tau_s; its standard deviation is `spread`."""
        keep = float(np.exp(-self.step_s / tau_s))
        push = self._rng.normal(0, spread * np.sqrt(1 - keep**2), count)
        return self._filter(name, push, keep, start=0.0)

    def _lag(self, name: str, target: Floats, tau_s: float) -> Floats:
        """The target, followed with a first-order lag; starts where it is."""
        keep = float(np.exp(-self.step_s / tau_s))
        return self._filter(name, (1 - keep) * target, keep, start=float(target[0]))

    def _filter(self, name: str, push: Floats, keep: float, start: float) -> Floats:
        value, out = self._lagged.get(name, start), []
        for step in push.tolist():
            value = keep * value + step
            out.append(value)
        self._lagged[name] = value
        return np.array(out)
