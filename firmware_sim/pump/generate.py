"""A whole run at once, with no servers: `run(seed)` gives what the sensors read over the life of one machine, and the truth.
Weeks take a fraction of a second, so that alarms can be scored over many seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firmware_sim.pump import bearing, dirt, life
from firmware_sim.pump.bearing import Geometry
from firmware_sim.pump.machine import Block, Machine

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """`values`: one series a tag, NaN where there is no value. `health` is 1 − severity; `rul_s` the time to the failure
    (infinite where there is none). `begin_s` and `failure_s`: when the fault begins and when the machine fails."""

    seed: int
    mode: str
    t_s: Floats
    values: dict[str, Floats]
    health: Floats
    rul_s: Floats
    begin_s: float
    failure_s: float
    dirt: tuple[dirt.Dirt, ...]
    machine: Machine
    block: Block

    def wave(self, at: int, count: int = 2048, rate_hz: float = 12_800.0) -> Floats:
        """The vibration at the place `at` of the run; the same each time it is asked for."""
        rng = np.random.default_rng([self.seed, 5, at])
        shaft_hz = float(self.block.shaft_hz[at])
        return bearing.wave(
            self.machine.sizes(self.block, at), self.machine.geometry, max(shaft_hz, 0.1), count, rate_hz, rng
        )


def run(
    seed: int,
    step_s: float = 60.0,
    days: float | None = None,
    mean_life_days: float = 21.0,
    mode: str = "",
    dirt_per_week: float = 0.0,
    scenario: tuple[dirt.Dirt, ...] = (),
    geometry: Geometry | None = None,
) -> Run:
    """`days` None: until the failure (for a machine that never fails, the mean life)."""
    drawn = life.draw(seed, mean_life_days, mode)
    end_s = drawn.failure_s if math.isfinite(drawn.failure_s) else mean_life_days * life.DAY_S
    if days is not None:
        end_s = days * life.DAY_S
    machine = Machine(drawn, geometry or Geometry(), seed, step_s)
    block = machine.block(max(1, math.ceil(end_s / step_s)))
    faults = (*scenario, *dirt.random_dirt(seed, dirt_per_week, end_s))
    values = dirt.apply(faults, block.t_s, block.values, wire=True)
    rul_s = np.maximum(drawn.failure_s - block.t_s, 0)
    return Run(
        seed,
        drawn.mode,
        block.t_s,
        values,
        1 - block.severity,
        rul_s,
        drawn.begin_s,
        drawn.failure_s,
        faults,
        machine,
        block,
    )
