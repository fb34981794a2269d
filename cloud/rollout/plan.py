"""What a rollout is asked to do. Read from JSON with every key checked, kept as JSON, never changed after the start.

- Groups are filled in their order; a device that fits two is in the first. What no group takes is in none.
- A group has `percent` of the devices (of those that its `where` takes), or `count` of them, or, with neither, all that are left.
- `zone` of a device holds before that of its group, and that before the plan's; with none the device's own local time counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cloud.rollout.tags import check_filter
from edge_runtime.wire.assignment import WINDOW

GROUPS_LIMIT = 32
NAME_CHARS = 64
DAY_S = 86_400.0
LONGEST_S = 90 * DAY_S
ON_ABORT = ("leave", "revert")
ENOUGH = ("confirmed", "installed")


def check_zone(zone: str) -> None:
    if not zone:
        return
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"zone: {zone[:60]!r} is not known; expected a name such as Europe/Berlin") from error


def _share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} is {value:g}, expected a share from 0 to 1")


def _seconds(name: str, value: float) -> None:
    if not 0.0 <= value <= LONGEST_S:
        raise ValueError(f"{name} is {value:g}, expected 0 to {LONGEST_S:g} seconds")


def _count(name: str, value: int, least: int = 0) -> None:
    if not least <= value <= 10**9:
        raise ValueError(f"{name} is {value}, expected {least} or more")


@dataclass(frozen=True)
class Group:
    """`success`: share of the members that count which must have confirmed, at least `least` devices. `soak_s`: how long that
    must hold before the next group opens."""

    name: str
    percent: float | None = None
    count: int | None = None
    where: tuple[str, ...] = ()
    success: float = 0.95
    least: int = 1
    soak_s: float = 0.0
    zone: str = ""

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > NAME_CHARS or not self.name.isprintable():
            raise ValueError(f"group: name {self.name[:80]!r}: expected 1 to {NAME_CHARS} printable characters")
        if self.percent is not None and self.count is not None:
            raise ValueError(f"group {self.name}: has both percent and count, expected one of them or neither")
        if self.percent is not None and not 0.0 < self.percent <= 100.0:
            raise ValueError(f"group {self.name}: percent is {self.percent:g}, expected above 0, up to 100")
        if self.count is not None:
            _count(f"group {self.name}: count", self.count, 1)
        check_filter(self.where)
        _share(f"group {self.name}: success", self.success)
        _count(f"group {self.name}: least", self.least)
        _seconds(f"group {self.name}: soak_s", self.soak_s)
        check_zone(self.zone)

    @property
    def takes_the_rest(self) -> bool:
        return self.percent is None and self.count is None


@dataclass(frozen=True)
class Abort:
    """Stop when `count` devices have failed (0: no such limit), or more than the share `failed` of those that came to an end,
    once these are `executed` or more; in one group or in all together."""

    count: int = 0
    failed: float = 0.05
    executed: int = 20

    def __post_init__(self) -> None:
        _count("abort.count", self.count)
        _share("abort.failed", self.failed)
        _count("abort.executed", self.executed, 1)


@dataclass(frozen=True)
class Plan:
    """`where`: the devices that it is for. `max_in_flight` (0: no bound): given out and not ended, at any time.
    `silent_after_s`: a device that got it and is not heard of for so long counts as failed, and so does one without an end
    after `stuck_after_s`.
    `absent_after_s`: a device that was not heard of for so long when it would be its turn is not waited for. `tries`: how
    often it is given to a device that refuses it; a pause of `retry_s`, doubled each time, lies between. What rolled back is
    not given again. `window`: when it may be activated. `on_abort`: what becomes of devices that have it.
    `enough`: what counts as success; ``installed`` where the client never confirms (`cloud.ddi`)."""

    groups: tuple[Group, ...] = field(default_factory=lambda: (Group("canary", percent=5.0), Group("all")))
    where: tuple[str, ...] = ()
    abort: Abort = field(default_factory=Abort)
    max_in_flight: int = 0
    silent_after_s: float = 1800.0
    stuck_after_s: float = 2 * DAY_S
    absent_after_s: float = DAY_S
    tries: int = 3
    retry_s: float = 600.0
    window: str = ""
    zone: str = ""
    on_abort: str = "leave"
    enough: str = "confirmed"
    approval: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.groups) <= GROUPS_LIMIT:
            raise ValueError(f"groups: {len(self.groups)} of them, expected 1 to {GROUPS_LIMIT}")
        names = [group.name for group in self.groups]
        if len(set(names)) < len(names):
            raise ValueError("groups: two have the same name")
        check_filter(self.where)
        _count("max_in_flight", self.max_in_flight)
        for name in ("silent_after_s", "stuck_after_s", "absent_after_s", "retry_s"):
            _seconds(name, getattr(self, name))
        if self.silent_after_s <= 0 or self.stuck_after_s <= 0:
            raise ValueError("silent_after_s and stuck_after_s must be above 0")
        if not 1 <= self.tries <= 20:
            raise ValueError(f"tries is {self.tries}, expected 1 to 20")
        if self.window and not WINDOW.fullmatch(self.window):
            raise ValueError(f"window is {self.window[:40]!r}, expected HH:MM-HH:MM or nothing")
        check_zone(self.zone)
        if self.on_abort not in ON_ABORT:
            raise ValueError(f"on_abort is {self.on_abort[:40]!r}, expected one of {', '.join(ON_ABORT)}")

        if self.enough not in ENOUGH:
            raise ValueError(f"enough is {self.enough[:40]!r}, expected one of {', '.join(ENOUGH)}")

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)


def read_plan(value: Any) -> Plan:
    """The plan of a JSON object; keys that are left out have their defaults. ValueError names the one that is wrong."""
    given = dict(_object("plan", value))
    if "groups" in given:
        listed = given["groups"]
        if not isinstance(listed, list):
            raise ValueError("plan: groups must be a list")
        given["groups"] = tuple(
            _made(Group, f"groups[{i}]", group) for i, group in enumerate(listed[: GROUPS_LIMIT + 1])
        )
    if "abort" in given:
        given["abort"] = _made(Abort, "abort", given["abort"])
    plan: Plan = _made(Plan, "plan", given)
    return plan


def plan_of(text: str) -> Plan:
    """Of the text that `to_json` made."""
    return read_plan(json.loads(text))


def _object(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected an object")
    return value


def _made(kind: type[Any], where: str, value: Any) -> Any:
    given, known = dict(_object(where, value)), {f.name: str(f.type) for f in fields(kind)}
    for name in sorted(set(given) - set(known)):
        raise ValueError(f"{where}: unknown key {str(name)[:40]}; known keys: {', '.join(known)}")
    if kind is Group and "name" not in given:
        raise ValueError(f"{where}: name is missing")
    return kind(**{name: _typed(f"{where}: {name}", v, known[name]) for name, v in given.items()})


def _typed(name: str, value: Any, kind: str) -> Any:
    if value is None and kind.endswith("| None"):
        return None
    base = kind.removesuffix(" | None")
    if base == "tuple[str, ...]":
        if not isinstance(value, list | tuple) or len(value) > 32 or not all(isinstance(v, str) for v in value):
            raise ValueError(f"{name} must be a list of at most 32 texts")
        return tuple(value)
    if base == "float" and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    types: Mapping[str, type] = {"int": int, "str": str, "bool": bool}
    if base in types and type(value) is types[base]:
        return value
    if base not in ("float", *types):
        return value  # made above
    raise ValueError(f"{name} must be {base}, found {str(value)[:40]!r}")
