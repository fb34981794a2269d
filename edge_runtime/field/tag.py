"""Tag: a named point. Sample: its value at a time, with quality. A missing value is None, never 0.0.

A Tag has raw values (what the wire carries) and values in its unit: `value = raw × scale + offset`. Drivers give Samples
in the unit; `edge_runtime.field.judge` says how good they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

TagType = Literal["bool", "uint16", "int16", "uint32", "int32", "float32", "uint64", "int64", "float64"]
Space = Literal["holding", "input", "coil", "discrete"]
WordOrder = Literal["ABCD", "DCBA", "BADC", "CDAB"]
WORDS: dict[str, int] = {
    "bool": 1, "uint16": 1, "int16": 1, "uint32": 2, "int32": 2, "float32": 2, "uint64": 4, "int64": 4, "float64": 4,
}  # fmt: skip


class Quality(Enum):
    GOOD = "good"
    UNCERTAIN = "uncertain"
    BAD = "bad"


class Reason(Enum):
    """Why a Sample is not simply good. The first group goes with BAD (no value), the second with UNCERTAIN."""

    NONE = ""
    NO_ANSWER = "no answer"  # the endpoint is silent or not connected
    REFUSED = "refused"  # the endpoint answers, but not for this point
    NOT_A_NUMBER = "not a number"
    WRONG_TYPE = "wrong type"  # text, a table or nothing where a number was expected
    STALE = "stale"  # nothing has come for longer than the tag allows
    SOURCE_BAD = "bad at the source"
    SOURCE_UNCERTAIN = "uncertain at the source"
    OUT_OF_RANGE = "out of range"
    JUMP = "implausible jump"  # a half-written value, or a spike


@dataclass(frozen=True)
class Tag:
    """`address` is zero-based for Modbus; `node` names the same point for OPC UA (browse name under the PLC object, or a
    whole node id such as ``ns=2;s=Pump.Flow`` for sensors), `topic` and `path` for MQTT.

    `low` and `high` bound what is physically possible. `max_step` is the largest believable change between two readings;
    0: any. `deadband` is the smallest change worth a report; `report_every_s` reports without one. `count` above 1 makes
    the tag a Wave: so many values, taken at `rate_hz`."""

    name: str
    type: TagType
    space: Space = "holding"
    address: int = 0
    node: str = ""
    unit: str = ""
    word_order: WordOrder = "ABCD"
    scale: float = 1.0
    offset: float = 0.0
    low: float | None = None
    high: float | None = None
    deadband: float = 0.0
    max_step: float = 0.0
    report_every_s: float = 60.0
    topic: str = ""
    path: str = ""
    stale_s: float = 0.0
    count: int = 1
    rate_hz: float = 0.0

    @property
    def words(self) -> int:
        return WORDS[self.type] * self.count


@dataclass(frozen=True)
class Sample:
    tag: str
    value: int | float | bool | None
    quality: Quality
    mono_ns: int
    wall_ns: int
    reason: Reason = Reason.NONE


@dataclass(frozen=True)
class Wave:
    """A block of values taken at one rate, such as a vibration snapshot; empty where the quality is BAD. The times are
    those of the reading."""

    tag: str
    values: tuple[float, ...]
    rate_hz: float
    quality: Quality
    mono_ns: int
    wall_ns: int
    reason: Reason = Reason.NONE


@dataclass(frozen=True)
class Gap:
    """Between these two times nothing is known of the tag, and nothing will be: the record of a loss. Both ends are
    readings that were good; what lies strictly between them is missing."""

    tag: str
    from_mono_ns: int
    to_mono_ns: int
    from_wall_ns: int
    to_wall_ns: int
    cause: str


Report = Sample | Wave | Gap
