"""pump.toml as frozen dataclasses; the rules are those of line.toml (firmware_sim/config.py)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from firmware_sim.config import OpcUaSection, section
from firmware_sim.errors import ConfigError
from firmware_sim.pump.bearing import Geometry
from firmware_sim.pump.life import MODES


@dataclass(frozen=True)
class PumpSection:
    """`speed`: simulated seconds in one real second. `mode` "": drawn by the seed. `start_at`: where in its life the machine
    is at the start, as a share of the time to its failure."""

    seed: int = 1
    speed: float = 1.0
    mean_life_days: float = 21.0
    mode: str = ""
    start_at: float = 0.0
    tag_period_ms: int = 200
    wave_period_ms: int = 1000
    wave_samples: int = 2048
    wave_rate_hz: float = 12_800.0
    dirt_per_week: float = 0.0


@dataclass(frozen=True)
class ModbusSection:
    host: str = "127.0.0.1"
    port: int = 5030
    unit_id: int = 1
    word_order: Literal["ABCD", "DCBA", "BADC", "CDAB"] = "ABCD"


@dataclass(frozen=True)
class RtuSection:
    """`enabled`: a serial device (pseudo-terminal) is made, and its name is in the ready file; `link` also names it."""

    enabled: bool = False
    link: Path | None = None


@dataclass(frozen=True)
class StatsSection:
    host: str = "127.0.0.1"
    port: int = 5032


@dataclass(frozen=True)
class PumpConfig:
    pump: PumpSection = field(default_factory=PumpSection)
    bearing: Geometry = field(default_factory=Geometry)
    modbus: ModbusSection = field(default_factory=ModbusSection)
    rtu: RtuSection = field(default_factory=RtuSection)
    opcua: OpcUaSection = field(default_factory=lambda: OpcUaSection(port=4850))
    stats: StatsSection = field(default_factory=StatsSection)
    scenario: Path | None = None
    truth: Path | None = None


RANGES: dict[str, tuple[float, float]] = {
    "pump.seed": (0, 2**63),
    "pump.speed": (0.001, 1e6),
    "pump.mean_life_days": (0.001, 10_000),
    "pump.start_at": (0, 1),
    "pump.tag_period_ms": (10, 60_000),
    "pump.wave_period_ms": (50, 600_000),
    "pump.wave_samples": (64, 8192),
    "pump.wave_rate_hz": (100, 100_000),
    "pump.dirt_per_week": (0, 1e6),
    "modbus.unit_id": (0, 247),
    **{f"{name}.port": (0, 65535) for name in ("modbus", "opcua", "stats")},
}


def load(path: Path) -> PumpConfig:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; give the path of a pump.toml, or none for the defaults") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
    try:
        return check(section(PumpConfig, data, path, ""), str(path))
    except ValueError as error:
        raise ConfigError(f"{path}: bearing: {error}") from error


def check(config: PumpConfig, where: str) -> PumpConfig:
    """The same config, or a ConfigError that names the value that is out of range."""
    for key, (least, most) in RANGES.items():
        part, name = key.split(".")
        value = getattr(getattr(config, part), name)
        if not least <= value <= most:
            raise ConfigError(f"{where}: {key} is {value}, expected {least} to {most}")
    modes = ("", "none", *MODES)
    if config.pump.mode not in modes:
        raise ConfigError(f"{where}: pump.mode is {config.pump.mode!r}, expected one of {', '.join(modes[1:])}")
    return config
