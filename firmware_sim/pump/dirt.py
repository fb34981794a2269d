"""What real sensors and devices do wrong, scripted: one table of kinds, the file that says when, and what it does to a block.

A file is a TOML list of `[[dirt]]`: kind, `tag` (but for time_out), `at_s` and `for_s` in simulated seconds, and `every_s` where
it comes again and again. `random_dirt` draws some by the seed. What the machine truly does is not changed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firmware_sim.config import nearest
from firmware_sim.errors import ConfigError
from firmware_sim.pump.tags import BY_NAME, TAGS, PumpTag, from_raw, to_raw

Floats = NDArray[np.float64]
WEEK_S = 7 * 86_400.0


@dataclass(frozen=True)
class Dirt:
    """`size`: of a spike, in spans of the sensor; of a drift, in spans an hour."""

    kind: str
    tag: str
    at_s: float
    for_s: float = 60.0
    every_s: float = 0.0
    size: float = 0.0

    def since(self, t_s: Floats) -> Floats:
        """Seconds since it began, negative where it does not act."""
        after = t_s - self.at_s
        if self.every_s > 0:
            after = np.where(after >= 0, after % self.every_s, after)
        return np.where((after >= 0) & (after < self.for_s), after, -1.0)


class Hit(NamedTuple):
    """What a kind works on: the clean series of its tag, where it acts, and since when."""

    tag: PumpTag
    values: Floats
    on: NDArray[np.bool_]
    since_s: Floats
    size: float


def _stuck(hit: Hit) -> Floats:
    begins = hit.on & ~np.concatenate([[False], hit.on[:-1]])
    first = np.maximum.accumulate(np.where(begins, np.arange(len(hit.on)), 0))
    return np.where(hit.on, hit.values[first], hit.values)


def _spike(hit: Hit) -> Floats:
    """Every fourth reading is far off."""
    hits = hit.on & (np.cumsum(hit.on) % 4 == 1)
    return np.where(hits, hit.values + hit.size * (hit.tag.high - hit.tag.low), hit.values)


def _drift(hit: Hit) -> Floats:
    return np.where(hit.on, hit.values + hit.size * (hit.tag.high - hit.tag.low) * hit.since_s / 3600, hit.values)


def _drop_out(hit: Hit) -> Floats:
    return np.where(hit.on, np.nan, hit.values)


def _half_written(hit: Hit) -> Floats:
    """Every second reading has the high word of now and the low word of the reading before."""
    raw = to_raw(hit.tag, hit.values)
    before = np.concatenate([raw[:1], raw[:-1]])
    torn = from_raw(hit.tag, ((raw & 0xFFFF_0000) | (before & 0xFFFF)).astype(np.uint32))
    hits = hit.on & (np.cumsum(hit.on) % 2 == 1)
    return np.where(hits & (hit.tag.kind != "int16"), torn, hit.values)


def _wrong_order(hit: Hit) -> Floats:
    """The words (of one register: the bytes) change places."""
    raw = to_raw(hit.tag, hit.values)
    half = 8 if hit.tag.kind == "int16" else 16
    mask = (1 << half) - 1
    return np.where(hit.on, from_raw(hit.tag, (((raw & mask) << half) | (raw >> half)).astype(np.uint32)), hit.values)


class Kind(NamedTuple):
    meaning: str
    spoil: Callable[[Hit], Floats]
    size: float = 0.0
    wire: bool = False  # only where values travel as registers


KINDS: dict[str, Kind] = {
    "stuck": Kind("the value stands still", _stuck),
    "spike": Kind("every fourth reading is off by `size` spans of the sensor", _spike, 3.0),
    "drift": Kind("the value runs away by `size` spans an hour", _drift, 0.05),
    "drop_out": Kind("there is no value: NaN, −32768 or 0 in Modbus, Bad in OPC UA", _drop_out),
    "half_written": Kind("every second reading has one new and one old register (Modbus)", _half_written, wire=True),
    "wrong_order": Kind("the registers change places (Modbus)", _wrong_order, wire=True),
    "time_out": Kind("the device answers nothing, for all tags", _drop_out),
}


def apply(dirt: Iterable[Dirt], t_s: Floats, values: Mapping[str, Floats], wire: bool) -> dict[str, Floats]:
    """The series as a reader gets them; `wire`: over Modbus."""
    out = dict(values)
    for one in dirt:
        kind, since = KINDS[one.kind], one.since(t_s)
        if not (since >= 0).any() or (kind.wire and not wire):
            continue
        for name in [t.name for t in TAGS] if one.kind == "time_out" else [one.tag]:
            out[name] = kind.spoil(Hit(BY_NAME[name], out[name], since >= 0, since, one.size or kind.size))
    return out


def mute(dirt: Iterable[Dirt], t_s: float) -> bool:
    return any(d.kind == "time_out" and d.since(np.array([t_s]))[0] >= 0 for d in dirt)


def random_dirt(seed: int, per_week: float, until_s: float) -> tuple[Dirt, ...]:
    """A Poisson number of faults of every kind, each some minutes to hours long."""
    rng = np.random.default_rng([seed, 4])
    number = int(rng.poisson(per_week * until_s / WEEK_S))
    names = [t.name for t in TAGS]
    return tuple(
        Dirt(str(rng.choice(list(KINDS))), str(rng.choice(names)), float(at_s), float(rng.uniform(300, 7200)))
        for at_s in np.sort(rng.uniform(0, until_s, number))
    )


def load(path: Path) -> tuple[Dirt, ...]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"scenario {path}: no such file; give the path of a scenario file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"scenario {path}: cannot be read: {error}") from error
    rows = data.get("dirt", [])
    if set(data) - {"dirt"} or not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise ConfigError(f"scenario {path}: expected a list of [[dirt]] tables and nothing else")
    return tuple(_dirt(row, f"scenario {path}: dirt {n}") for n, row in enumerate(rows, 1))


def _dirt(row: Mapping[str, Any], where: str) -> Dirt:
    kind, tag = row.get("kind"), row.get("tag", "")
    if kind not in KINDS:
        raise ConfigError(f"{where}: unknown kind {kind!r}{nearest(str(kind), KINDS)}; kinds: {', '.join(KINDS)}")
    allowed = ("kind", "tag", "at_s", "for_s", "every_s", "size")
    for key in row:
        if key not in allowed:
            raise ConfigError(f"{where} ({kind}): unknown key {key!r}{nearest(key, allowed)}")
    if (kind == "time_out") == bool(tag) or (tag and tag not in BY_NAME):
        raise ConfigError(
            f"{where} ({kind}): tag is {tag!r}, expected {'none' if kind == 'time_out' else ', '.join(BY_NAME)}"
        )
    numbers = {key: _number(row, key, where) for key in ("at_s", "for_s", "every_s", "size") if key in row}
    if "at_s" not in numbers:
        raise ConfigError(f"{where} ({kind}): at_s is missing: when it begins, in simulated seconds")
    found = Dirt(kind, tag, **numbers)
    if not 0 < found.for_s < (found.every_s or np.inf):
        raise ConfigError(f"{where} ({kind}): expected for_s above 0, and every_s (if any) above for_s")
    return found


def _number(row: Mapping[str, Any], key: str, where: str) -> float:
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ConfigError(f"{where}: {key} is {value!r}, expected a number of at least 0")
    return float(value)


def docs_table() -> str:
    """The table of the reference page."""
    rows = ["| kind | what happens | `size` |", "|---|---|---|"]
    rows += [
        f"| `{name}` | {kind.meaning} | {f'default {kind.size:g}' if kind.size else ''} |"
        for name, kind in KINDS.items()
    ]
    return "\n".join(rows)
