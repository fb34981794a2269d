"""The pump as it runs: simulated time from the real clock, the sensors' newest values, waves, and the truth. No servers here.

Simulated time is `start + (now − begin) × speed`. The machine is stepped at the tag period; a server that was late takes the
newest step, so nothing is made up for. Truth rows: the state every `TRUTH_S` real seconds, and one row for each of `fault_begin`,
`failure`, `dirt_begin`, `dirt_end`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_sim.errors import ResourceError
from firmware_sim.pump import bearing, dirt, life
from firmware_sim.pump.config import PumpConfig
from firmware_sim.pump.machine import Block, Machine

Floats = NDArray[np.float64]
TRUTH_S = 1.0
BLOCK_STEPS = 64
DIRT_HORIZON_S = 365 * life.DAY_S


class Truth:
    """JSON lines, flushed at once. `path` None: nothing is written; an existing file is replaced."""

    def __init__(self, path: Path | None) -> None:
        try:
            self._file = path.open("w", encoding="utf-8") if path else None
        except OSError as error:
            raise ResourceError(f"truth {path}: cannot be written: {error.strerror}; choose another --truth") from error

    def add(self, row: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(row, separators=(",", ":")) + "\n")
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Plant:
    """`tick` with the seconds since the start brings `wire` (what Modbus gives), `plain` (OPC UA) and `wave` up to date."""

    def __init__(self, config: PumpConfig) -> None:
        pump = config.pump
        self.config, self.life = config, life.draw(pump.seed, pump.mean_life_days, pump.mode)
        self.step_s = pump.tag_period_ms / 1000 * pump.speed
        self.machine = Machine(self.life, config.bearing, pump.seed, self.step_s)
        whole = self.life.failure_s if math.isfinite(self.life.failure_s) else 0.0
        self.machine.begin_at(pump.start_at * whole)
        scripted = dirt.load(config.scenario) if config.scenario else ()
        self.dirt = (*scripted, *dirt.random_dirt(pump.seed, pump.dirt_per_week, DIRT_HORIZON_S))
        self.truth = Truth(config.truth)
        self.wire: dict[str, float] = {}
        self.plain: dict[str, float] = {}
        self.wave: Floats = np.zeros(pump.wave_samples)
        self.wave_number = 0
        self.sim_s, self.severity, self.mute = self.machine.now_s, 0.0, False
        self._waves = np.random.default_rng([pump.seed, 6])
        self._block: Block | None = None
        self._first = 0  # step number of the block's start
        self._held: dict[dirt.Dirt, float] = {}
        self._wave_at_s, self._truth_at_s = -math.inf, -math.inf
        self._was: set[str] = set()

    def tick(self, since_s: float, wall_ns: int) -> None:
        step = int(since_s * 1000 / self.config.pump.tag_period_ms)
        while self._block is None or step >= self._first + len(self._block.t_s):
            self._first += len(self._block.t_s) if self._block is not None else 0
            self._block = self.machine.block(BLOCK_STEPS)
            self._spoil(self._block)
        at = step - self._first
        self.sim_s, self.severity = float(self._block.t_s[at]), float(self._block.severity[at])
        self.wire = {name: float(series[at]) for name, series in self._dirty_wire.items()}
        self.plain = {name: float(series[at]) for name, series in self._dirty_plain.items()}
        self.mute = dirt.mute(self.dirt, self.sim_s)
        if since_s - self._wave_at_s >= self.config.pump.wave_period_ms / 1000:
            self._wave_at_s = since_s
            self._new_wave(self._block, at)
        self._tell(since_s, wall_ns)

    def status(self) -> dict[str, Any]:
        """For the stats endpoint: the truth now."""
        ends = math.isfinite(self.life.failure_s)
        return {
            "sim_s": round(self.sim_s, 3),
            "mode": self.life.mode,
            "health": round(1 - self.severity, 6),
            "rul_s": round(max(0.0, self.life.failure_s - self.sim_s), 1) if ends else None,
            "begin_s": self.life.begin_s if ends else None,
            "failure_s": self.life.failure_s if ends else None,
            "failed": self.sim_s >= self.life.failure_s,
            "dirt": sorted(self._active()),
            "wave": self.wave_number,
        }

    def _spoil(self, block: Block) -> None:
        """Lay the dirt over a block. A stuck value stays what it was when it stuck, also blocks later."""
        values = dict(block.values)
        for one, value in self._held.items():
            values[one.tag] = np.concatenate([[value], values[one.tag][1:]])
        self._dirty_wire = dirt.apply(self.dirt, block.t_s, values, wire=True)
        self._dirty_plain = dirt.apply(self.dirt, block.t_s, values, wire=False)
        stuck = [d for d in self.dirt if d.kind == "stuck" and d.since(block.t_s[-1:] + self.step_s)[0] > 0]
        self._held = {d: float(self._dirty_plain[d.tag][-1]) for d in stuck}

    def _new_wave(self, block: Block, at: int) -> None:
        pump, shaft_hz = self.config.pump, float(block.shaft_hz[at])
        sizes = self.machine.sizes(block, at)
        self.wave = bearing.wave(
            sizes, self.machine.geometry, max(shaft_hz, 0.1), pump.wave_samples, pump.wave_rate_hz, self._waves
        )
        self.wave_number = (self.wave_number + 1) & 0xFFFF

    def _active(self) -> set[str]:
        now = np.array([self.sim_s])
        return {f"{d.kind} {d.tag}".strip() for d in self.dirt if d.since(now)[0] >= 0}

    def _tell(self, since_s: float, wall_ns: int) -> None:
        is_now = {f"dirt {name}" for name in self._active()}
        is_now |= {"fault"} if self.sim_s >= self.life.begin_s else set()
        is_now |= {"failure"} if self.sim_s >= self.life.failure_s else set()
        for name in sorted(is_now ^ self._was):
            event = {"fault": "fault_begin", "failure": "failure"}.get(
                name, "dirt_begin" if name in is_now else "dirt_end"
            )
            self.truth.add(
                {"event": event, "what": name.removeprefix("dirt "), "wall_ns": wall_ns, "sim_s": self.sim_s}
            )
        self._was = is_now
        if since_s - self._truth_at_s >= TRUTH_S:
            self._truth_at_s = since_s
            self.truth.add({"event": "state", "wall_ns": wall_ns, **self.status()})
