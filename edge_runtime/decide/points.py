"""The `[commands]` section: which points of the PLC a command from outside may write, and within which limits.

Nothing may be written that is not in `allow`, and nothing is in `allow` unless the operator of the device put it there.
A point never lies on the handshake's own addresses (`config.DeviceConfig` checks that): no command can answer a part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from edge_runtime.field.driver import Value
from edge_runtime.field.tag import WORDS, Tag, TagType

#: type → what its registers can hold
RANGES: Mapping[str, tuple[float, float]] = {
    "bool": (0, 1),
    "uint16": (0, 2**16 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "uint32": (0, 2**32 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "float32": (-3.4e38, 3.4e38),
}


@dataclass(frozen=True)
class Point:
    """`low` … `high`: what may be written. `max_per_min`: how often. `while_running`: also while the line is in a state in
    which parts are inspected (or tells no state). `node`: its name for OPC UA, where it differs."""

    address: int
    low: float
    high: float
    type: TagType = "uint16"
    space: Literal["holding", "coil"] = "holding"
    word_order: Literal["ABCD", "DCBA", "BADC", "CDAB"] = "ABCD"
    node: str = ""
    max_per_min: float = 6.0
    while_running: bool = False

    def __post_init__(self) -> None:
        least, most = RANGES[self.type]
        if not 0 <= self.address <= 65536 - WORDS[self.type]:
            raise ValueError(f"address = {self.address}: expected 0 to {65536 - WORDS[self.type]}")
        if not least <= self.low <= self.high <= most:
            raise ValueError(f"low = {self.low:g}, high = {self.high:g}: expected {least:g} <= low <= high <= {most:g}")
        if (self.type == "bool") != (self.space == "coil"):
            raise ValueError(
                f"type = {self.type!r} does not fit space = {self.space!r}: a coil is a bool, a register is not"
            )
        if not 0 < self.max_per_min <= 600:
            raise ValueError(f"max_per_min = {self.max_per_min:g}: expected more than 0 and at most 600")

    def tag(self, name: str) -> Tag:
        return Tag(name, self.type, self.space, self.address, self.node or name, word_order=self.word_order)

    @property
    def registers(self) -> set[tuple[str, int]]:
        return {(self.space, self.address + i) for i in range(WORDS[self.type])}

    def problem(self, value: object) -> str:
        """Why this value may not be written; "" where it may."""
        if self.type == "bool":
            return "" if isinstance(value, bool) else f"expected true or false, found {value!r}"
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole or (self.type == "float32" and isinstance(value, float) and math.isfinite(value))):
            return f"expected a {'' if self.type == 'float32' else 'whole '}number, found {value!r}"
        assert isinstance(value, int | float)
        return "" if self.low <= value <= self.high else f"{value} is outside of {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Commands:
    """`allow`: the points that commands may write; none: no command is carried out. `allow_unsigned_sparkplug`: NCMD and
    DCMD of Sparkplug carry no signature; where the broker alone decides who may send them, that can be good enough.
    `max_age_s`: such a command, which names no expiry, is refused when it is older."""

    allow: tuple[str, ...] = ()
    allow_unsigned_sparkplug: bool = False
    max_age_s: float = 10.0
    points: Mapping[str, Point] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.allow:
            if name not in self.points:
                raise ValueError(f"allow names {name!r}, which has no table [commands.points.{name}]")
        if not 0 < self.max_age_s <= 3600:
            raise ValueError(f"max_age_s = {self.max_age_s:g}: expected more than 0 and at most 3600")

    @property
    def allowed(self) -> dict[str, Point]:
        return {name: self.points[name] for name in self.allow}


@dataclass(frozen=True)
class WriteRequest:
    """A command that `link` has admitted. `until_mono_ns`: it is not carried out after this, by the clock of this boot."""

    id: str
    source: str
    name: str
    value: Value
    until_mono_ns: int

    def body(self) -> dict[str, object]:
        """What each of its Events says."""
        return {"id": self.id, "source": self.source, "name": self.name, "value": self.value}
