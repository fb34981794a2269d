"""Values to 16-bit registers and back, in the four word and byte orders that devices use.

ABCD is big-endian (the Modbus standard's order for one register, high word first for more); DCBA is little-endian
throughout; BADC swaps the bytes within words; CDAB reverses the words. For 64 bits the same names mean the same: CDAB is
lowest word first with its bytes in network order.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from edge_runtime.field.tag import WORDS, Tag

_FORMAT = {
    "uint16": ">H", "int16": ">h", "uint32": ">I", "int32": ">i", "float32": ">f",
    "uint64": ">Q", "int64": ">q", "float64": ">d",
}  # fmt: skip
_FLOATS = ("float32", "float64")
_SWAPS_BYTES = ("DCBA", "BADC")
_SWAPS_WORDS = ("DCBA", "CDAB")


def encode(tag: Tag, value: int | float | bool) -> list[int]:
    """The registers of one raw value; ValueError if it does not fit the tag's type."""
    if tag.type == "bool":
        return [int(bool(value))]
    try:
        raw = struct.pack(_FORMAT[tag.type], value if tag.type in _FLOATS else int(value))
    except (struct.error, OverflowError) as error:
        raise ValueError(f"tag {tag.name}: {value!r} does not fit {tag.type}") from error
    return _ordered(tag, struct.unpack(f">{len(raw) // 2}H", raw))


def decode(tag: Tag, registers: Sequence[int]) -> int | float | bool:
    """The raw value of `WORDS[tag.type]` registers."""
    if tag.type == "bool":
        return bool(registers[0])
    if tag.type == "uint16":  # the trigger of the control loop: the short way
        value = registers[0]
        return _swapped(value) if tag.word_order in _SWAPS_BYTES else value
    raw = struct.pack(f">{WORDS[tag.type]}H", *_ordered(tag, registers))
    value_: int | float = struct.unpack(_FORMAT[tag.type], raw)[0]
    return value_


def decode_all(tag: Tag, registers: Sequence[int]) -> list[int | float | bool]:
    """The `tag.count` raw values of a wave."""
    width = WORDS[tag.type]
    return [decode(tag, registers[at : at + width]) for at in range(0, width * tag.count, width)]


def _ordered(tag: Tag, words: Sequence[int]) -> list[int]:
    """From the tag's order to ABCD, or back: each swap undoes itself."""
    out = list(words[::-1]) if tag.word_order in _SWAPS_WORDS else list(words)
    return [_swapped(w) for w in out] if tag.word_order in _SWAPS_BYTES else out


def _swapped(word: int) -> int:
    return (word >> 8) | ((word & 0xFF) << 8)
