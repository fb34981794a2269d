"""line.toml as frozen dataclasses. Unknown keys are refused and the nearest key is named; every value has a default.

Relative paths are taken from the folder that the file is in. Port 0 means any free port (told in the ready file).
"""

from __future__ import annotations

import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from firmware_sim.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class LineSection:
    """`parts` 0: no end. `jitter`: the space between two parts varies by ± this share."""

    parts: int = 0
    parts_per_s: float = 10.0
    belt_speed_mm_s: float = 500.0
    jitter: float = 0.2
    gate_distance_mm: float = 150.0
    seed: int = 1
    lot_size: int = 100
    auto_start: bool = True
    wait_for_device: bool = False
    transition_ms: int = 50
    coil_timeout_ms: int = 1000


@dataclass(frozen=True)
class SourceSection:
    """`rendered`: `pool` different parts drawn by the simulator. `folder`: the images of `split` listed in
    `images`/labels.csv, each once per round, in an order that the seed gives."""

    kind: Literal["rendered", "folder"] = "rendered"
    images: Path | None = None
    split: str = "test"
    pool: int = 200
    defect_share: float = 0.3
    height: int = 320
    width: int = 280
    light_drift: float = 0.4


@dataclass(frozen=True)
class RecipeSection:
    """The codes are given to the parts in turn, `change_every_parts` parts each; 0 keeps the first."""

    codes: tuple[int, ...] = (1,)
    change_every_parts: int = 0


@dataclass(frozen=True)
class ModbusSection:
    host: str = "127.0.0.1"
    port: int = 5020
    unit_id: int = 1


@dataclass(frozen=True)
class OpcUaSection:
    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = 4840


@dataclass(frozen=True)
class CameraSection:
    host: str = "127.0.0.1"
    port: int = 5021


@dataclass(frozen=True)
class StatsSection:
    host: str = "127.0.0.1"
    port: int = 5022


@dataclass(frozen=True)
class Config:
    line: LineSection = field(default_factory=LineSection)
    source: SourceSection = field(default_factory=SourceSection)
    recipe: RecipeSection = field(default_factory=RecipeSection)
    modbus: ModbusSection = field(default_factory=ModbusSection)
    opcua: OpcUaSection = field(default_factory=OpcUaSection)
    camera: CameraSection = field(default_factory=CameraSection)
    stats: StatsSection = field(default_factory=StatsSection)
    scenario: Path | None = None
    log: Path | None = None


RANGES: dict[str, tuple[float, float]] = {
    "line.parts": (0, 10**9),
    "line.parts_per_s": (0.01, 200),
    "line.belt_speed_mm_s": (1, 65535),
    "line.jitter": (0, 0.9),
    "line.gate_distance_mm": (0.001, 10**6),
    "line.seed": (0, 2**63),
    "line.lot_size": (1, 2**32 - 1),
    "line.transition_ms": (0, 60_000),
    "line.coil_timeout_ms": (1, 60_000),
    "source.pool": (1, 100_000),
    "source.defect_share": (0, 1),
    "source.height": (16, 4096),
    "source.width": (16, 4096),
    "source.light_drift": (0, 1),
    "recipe.change_every_parts": (0, 10**9),
    "recipe.codes": (0, 65535),
    "modbus.unit_id": (0, 255),
    **{f"{section}.port": (0, 65535) for section in ("modbus", "opcua", "camera", "stats")},
}


def load(path: Path) -> Config:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; give the path of a line.toml, or none for the defaults") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
    return check(section(Config, data, path, ""), str(path))


def check(config: Config, where: str) -> Config:
    """The same config, or a ConfigError that names the value that is out of range."""
    for key, (least, most) in RANGES.items():
        section, name = key.split(".")
        value = getattr(getattr(config, section), name)
        for one in value if isinstance(value, tuple) else (value,):
            if not least <= one <= most:
                raise ConfigError(f"{where}: {key} is {one}, expected {least} to {most}")
    if not config.recipe.codes:
        raise ConfigError(f"{where}: recipe.codes is empty, expected at least one code")
    if config.source.kind == "folder" and config.source.images is None:
        raise ConfigError(f"{where}: source.kind is folder but source.images is not set; give the image folder")
    return config


def nearest(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def section(cls: type[T], data: Mapping[str, Any], path: Path, prefix: str) -> T:
    hints = typing.get_type_hints(cls)
    names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for key in data:
        if key not in names:
            raise ConfigError(
                f"{path}: unknown key {prefix + key!r}{nearest(key, names) or f', expected one of {names}'}"
            )
    return cls(**{key: _value(hints[key], value, path, prefix + key) for key, value in data.items()})


def _value(hint: Any, value: Any, path: Path, name: str) -> Any:
    if isinstance(hint, types.UnionType):
        hint = next(t for t in typing.get_args(hint) if t is not type(None))
    if is_dataclass(hint):
        if isinstance(value, dict):
            return section(typing.cast(type, hint), value, path, name + ".")
    elif typing.get_origin(hint) is Literal:
        if value in typing.get_args(hint):
            return value
        raise ConfigError(f"{path}: {name} is {value!r}, expected one of {', '.join(typing.get_args(hint))}")
    elif typing.get_origin(hint) is tuple:
        if isinstance(value, list) and all(type(v) is int for v in value):
            return tuple(value)
    elif hint is Path:
        if isinstance(value, str):
            return path.parent / Path(value).expanduser()
    elif hint is float:
        if type(value) in (int, float):
            return float(value)
    elif type(value) is hint:
        return value
    raise ConfigError(f"{path}: {name} is {value!r}, expected {_kind(hint)}")


def _kind(hint: Any) -> str:
    if is_dataclass(hint):
        return "a table"
    if typing.get_origin(hint) is tuple:
        return "a list of whole numbers"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path as text"}[hint]
