"""Tag: a named point. Sample: its value at a time, with quality. A missing value is None, never 0.0."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

TagType = Literal["bool", "uint16", "int16", "uint32", "int32", "float32"]
Space = Literal["holding", "input", "coil", "discrete"]
WORDS: dict[str, int] = {"bool": 1, "uint16": 1, "int16": 1, "uint32": 2, "int32": 2, "float32": 2}


class Quality(Enum):
    GOOD = "good"
    UNCERTAIN = "uncertain"
    BAD = "bad"


@dataclass(frozen=True)
class Tag:
    """`address` is zero-based for Modbus; `node` names the same point for OPC UA (browse name under the PLC object)."""

    name: str
    type: TagType
    space: Space = "holding"
    address: int = 0
    node: str = ""
    unit: str = ""
    word_order: Literal["ABCD", "DCBA", "BADC", "CDAB"] = "ABCD"


@dataclass(frozen=True)
class Sample:
    tag: str
    value: int | float | bool | None
    quality: Quality
    mono_ns: int
    wall_ns: int
