"""The scenario file: a TOML list of `[[fault]]`, each with a kind and one of `part`, `every`, `at_s`.

part = 12     the part with index 12 (the first has 0)       count    consecutive parts that are hit each time, default 1
every = 50    the parts 50, 100, 150 …
at_s = 10.0   the first part inspected after the belt has run 10 s

What hits which part is settled by the part's index and the belt's length alone: equal files and seeds, equal runs.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firmware_sim.config import nearest
from firmware_sim.errors import ConfigError
from firmware_sim.faults import KINDS

WHEN = ("part", "every", "at_s")


@dataclass(frozen=True)
class Fault:
    kind: str
    part: int | None = None
    every: int | None = None
    at_s: float | None = None
    count: int = 1
    options: Mapping[str, int] = field(default_factory=dict)


class Schedule:
    """Hand it every part once, in order; it says which faults hit the part."""

    def __init__(self, faults: tuple[Fault, ...] = ()) -> None:
        self._faults = faults
        self._began: dict[int, int] = {}  # number of an `at_s` fault → index of the first part that it hit

    def of(self, part_index: int, planned_s: float) -> tuple[Fault, ...]:
        return tuple(f for number, f in enumerate(self._faults) if self._hits(number, f, part_index, planned_s))

    def _hits(self, number: int, fault: Fault, index: int, planned_s: float) -> bool:
        if fault.every is not None:
            return index >= fault.every and index % fault.every < fault.count
        if fault.part is not None:
            first = fault.part
        elif fault.at_s is not None and planned_s >= fault.at_s:
            first = self._began.setdefault(number, index)
        else:
            return False
        return first <= index < first + fault.count


def load(path: Path) -> tuple[Fault, ...]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"scenario {path}: no such file; give the path of a scenario file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"scenario {path}: cannot be read: {error}") from error
    return parse(data, str(path))


def parse(data: Mapping[str, Any], name: str) -> tuple[Fault, ...]:
    for key in data:
        if key != "fault":
            raise ConfigError(f"scenario {name}: unknown key {key!r}, expected a list of [[fault]]")
    rows = data.get("fault", [])
    if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise ConfigError(f"scenario {name}: `fault` must be a list of [[fault]] tables")
    return tuple(_fault(row, f"scenario {name}: fault {n}") for n, row in enumerate(rows, 1))


def _fault(row: Mapping[str, Any], where: str) -> Fault:
    kind = row.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(f"{where}: unknown kind {kind!r}{nearest(str(kind), KINDS)}; kinds: {', '.join(KINDS)}")
    allowed = ("kind", "count", *WHEN, *KINDS[kind].options)
    for key in row:
        if key not in allowed:
            raise ConfigError(f"{where} ({kind}): unknown key {key!r}{nearest(key, allowed)}")
    when = [key for key in WHEN if key in row]
    if len(when) != 1:
        raise ConfigError(f"{where} ({kind}): expected exactly one of part, every, at_s, found {when or 'none'}")
    if when == ["at_s"]:
        seconds = row["at_s"]
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
            raise ConfigError(f"{where} ({kind}): at_s is {seconds!r}, expected seconds of at least 0")
    options = {key: _whole(row, key, default, 1, where) for key, default in KINDS[kind].options.items()}
    if options.get("to", 1) > 65535 or options.get("skip", 1) > 1000:
        raise ConfigError(f"{where} ({kind}): expected `to` of at most 65535 and `skip` of at most 1000")
    return Fault(
        kind,
        _whole(row, "part", 0, 0, where) if "part" in row else None,
        _whole(row, "every", 1, 1, where) if "every" in row else None,
        float(row["at_s"]) if "at_s" in row else None,
        _whole(row, "count", 1, 1, where),
        options,
    )


def _whole(row: Mapping[str, Any], key: str, default: int, least: int, where: str) -> int:
    value = row.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{where}: {key} is {value!r}, expected a whole number of at least {least}")
    return value
