"""Values to 16-bit registers and back, in the four word and byte orders that devices use.

ABCD is big-endian (the Modbus standard's order for one register, high word first for two); DCBA is little-endian
throughout; BADC swaps the bytes within words; CDAB swaps the words.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from edge_runtime.field.tag import WORDS, Tag

_FORMAT = {"uint16": ">H", "int16": ">h", "uint32": ">I", "int32": ">i", "float32": ">f"}
_ORDER = {"ABCD": (0, 1, 2, 3), "DCBA": (3, 2, 1, 0), "BADC": (1, 0, 3, 2), "CDAB": (2, 3, 0, 1)}


def encode(tag: Tag, value: int | float | bool) -> list[int]:
    """The registers of one value; ValueError if it does not fit the tag's type."""
    if tag.type == "bool":
        return [int(bool(value))]
    try:
        raw = struct.pack(_FORMAT[tag.type], value if tag.type == "float32" else int(value))
    except (struct.error, OverflowError) as error:
        raise ValueError(f"tag {tag.name}: {value!r} does not fit {tag.type}") from error
    return list(struct.unpack(f">{len(raw) // 2}H", _reorder(tag, raw)))


def decode(tag: Tag, registers: Sequence[int]) -> int | float | bool:
    """The value of `WORDS[tag.type]` registers."""
    if tag.type == "bool":
        return bool(registers[0])
    if tag.type == "uint16":
        value = registers[0]
        return value if tag.word_order in ("ABCD", "CDAB") else (value >> 8) | ((value & 0xFF) << 8)
    raw = struct.pack(f">{WORDS[tag.type]}H", *registers)
    value_: int | float = struct.unpack(_FORMAT[tag.type], _reorder(tag, raw))[0]
    return value_


def _reorder(tag: Tag, raw: bytes) -> bytes:
    order = _ORDER[tag.word_order]
    if len(raw) == 2:
        return raw if order in (_ORDER["ABCD"], _ORDER["CDAB"]) else raw[::-1]
    return bytes(raw[i] for i in order)
