"""What the pump's sensors give, one table: Modbus input registers (zero-based), OPC UA nodes `ns=<urn:gudgeon:pump>;s=<name>`.

Numbers are in the tag's unit; `int16` tags carry ten times the value. The newest vibration wave is a block of its own.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Raw = NDArray[np.uint32]
Kind = Literal["float32", "int16", "uint32"]
Order = Literal["ABCD", "DCBA", "BADC", "CDAB"]
INT16_SCALE = 10.0


class PumpTag(NamedTuple):
    """`low` and `high` are the span that its sensor is made for; a drift or a spike is measured in spans."""

    name: str
    kind: Kind
    address: int
    unit: str
    low: float
    high: float


TAGS: tuple[PumpTag, ...] = (
    PumpTag("speed", "float32", 0, "1/min", 0, 1600),
    PumpTag("valve", "float32", 2, "%", 0, 100),
    PumpTag("flow", "float32", 4, "m3/h", 0, 80),
    PumpTag("suction", "float32", 6, "bar", 0, 2),
    PumpTag("discharge", "float32", 8, "bar", 0, 6),
    PumpTag("current", "float32", 10, "A", 0, 25),
    PumpTag("bearing_temp", "int16", 12, "°C", -20, 150),
    PumpTag("motor_temp", "int16", 13, "°C", -20, 180),
    PumpTag("ambient_temp", "int16", 14, "°C", -20, 60),
    PumpTag("vib_rms", "float32", 16, "g", 0, 10),
    PumpTag("vib_peak", "float32", 18, "g", 0, 50),
    PumpTag("vib_kurtosis", "float32", 20, "", 1, 60),
    PumpTag("vib_velocity", "float32", 22, "mm/s", 0, 50),
    PumpTag("vib_envelope", "float32", 24, "g", 0, 10),
    PumpTag("operating_s", "uint32", 26, "s", 0, 4e9),
)
BY_NAME = {tag.name: tag for tag in TAGS}

#: the wave: its number (wraps), sampling rate in Hz, number of samples, then the samples as int16 in mg
WAVE_HEAD, WAVE_DATA = 1000, 1010
WAVE_MG_LIMIT = 32767


def to_raw(tag: PumpTag, values: Floats) -> Raw:
    """The bits on the wire, high word first; a missing value is the float's NaN, or the integer's smallest value."""
    with np.errstate(invalid="ignore", over="ignore"):
        if tag.kind == "float32":
            return values.astype(">f4").view(">u4").astype(np.uint32)
        if tag.kind == "uint32":
            return np.where(np.isnan(values), 0, np.nan_to_num(values).astype(np.int64) & 0xFFFF_FFFF).astype(np.uint32)
        tenths = np.clip(np.rint(np.nan_to_num(values) * INT16_SCALE), -32767, 32767).astype(np.int64)
        return np.where(np.isnan(values), 0x8000, tenths & 0xFFFF).astype(np.uint32)


def from_raw(tag: PumpTag, raw: Raw) -> Floats:
    if tag.kind == "float32":
        with np.errstate(invalid="ignore", over="ignore"):
            return raw.astype(">u4").view(">f4").astype(np.float64)
    if tag.kind == "uint32":
        return raw.astype(np.float64)
    signed = raw.astype(np.uint16).view(np.int16).astype(np.float64) / INT16_SCALE
    return np.where(raw == 0x8000, np.nan, signed)


def registers(tag: PumpTag, raw: int, order: Order) -> list[int]:
    words = [raw >> 16, raw & 0xFFFF] if tag.kind != "int16" else [raw & 0xFFFF]
    if order in ("DCBA", "CDAB"):
        words.reverse()
    if order in ("DCBA", "BADC"):
        words = [(w >> 8) | ((w & 0xFF) << 8) for w in words]
    return words


def docs_table() -> str:
    """The table of the reference page."""
    rows = ["| tag | unit | type | address | span |", "|---|---|---|---|---|"]
    rows += [f"| `{t.name}` | {t.unit} | {t.kind} | {t.address} | {t.low:g} to {t.high:g} |" for t in TAGS]
    return "\n".join(rows)
