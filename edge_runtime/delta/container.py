"""The form of a delta file: what the target is put together from, and the streams that hold what the source has not. Pure.

    8 bytes "gudgeon\\x01", length of the head as uint32 LE, head (JSON), then one zstd frame for each of its sections

head: {"source": [length, sha256], "target": [length, sha256], "dictionary": [[offset, length], …], "steps": [[mode, width,
length, offset], …], "sections": [[mode, width, frame length], …]}. The steps put the target together from its first byte to its
last:

    copy    bytes of the source at `offset`
    raw     the next bytes of the section raw, whose frame has the ranges `dictionary` of the source as its zstd dictionary
    plane   the next bytes of a section, elements of `width` bytes
    sub     as plane, added to the source's elements at `offset` (mod 2^(8·width))
    xor     as plane, xor'ed with them

The sections of elements are cut into pieces of at most `PIECE_BYTES` and each piece is laid out byte plane by byte plane, so
that the bytes that hardly change (sign, exponent) stand beside each other. Every number is checked here before anything is made
of it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from edge_runtime.wire.envelope import strict_json
from edge_runtime.wire.manifest import SHA256

MAGIC = b"gudgeon\x01"
HEAD_LIMIT_BYTES = 256 * 1024
STEPS_LIMIT = 8192
PIECE_BYTES = 1024 * 1024
#: what a device gives for it at most: the ranges of the dictionary together, and a window of zstd
DICTIONARY_LIMIT_BYTES = 8 * 1024 * 1024
WINDOW_LOG = 23
TARGET_LIMIT_BYTES = 4 * 1024**3
COPY, RAW, PLANE, SUB, XOR = "copy", "raw", "plane", "sub", "xor"
#: mode → the widths that it may have
MODES = {COPY: (0,), RAW: (0,), PLANE: (1, 2, 4, 8), SUB: (1, 2, 4, 8), XOR: (1, 2, 4, 8)}
FROM_SOURCE = (COPY, SUB, XOR)


class Step(NamedTuple):
    mode: str
    width: int
    length: int
    offset: int


class Section(NamedTuple):
    mode: str
    width: int
    frame_bytes: int


class Range(NamedTuple):
    offset: int
    length: int


class End(NamedTuple):
    """What a delta starts from or leads to."""

    length: int
    sha256: str


@dataclass(frozen=True)
class Head:
    source: End
    target: End
    steps: Sequence[Step]
    sections: Sequence[Section]
    dictionary: Sequence[Range] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.target.length <= TARGET_LIMIT_BYTES or not 0 <= self.source.length <= TARGET_LIMIT_BYTES:
            raise ValueError(f"delta: source or target over {TARGET_LIMIT_BYTES} bytes")
        if len(self.steps) > STEPS_LIMIT or len(self.dictionary) > STEPS_LIMIT:
            raise ValueError(f"delta: more than {STEPS_LIMIT} steps or ranges")
        for step in self.steps:
            _check_mode(step.mode, step.width)
            if step.length < 1 or step.length % max(step.width, 1):
                raise ValueError("delta: a step of no whole number of elements")
            if step.mode in FROM_SOURCE:
                self._check_range(Range(step.offset, step.length))
        for found in self.dictionary:
            self._check_range(found)
        if sum(step.length for step in self.steps) != self.target.length:
            raise ValueError("delta: its steps do not add up to the length of its target")
        if sum(found.length for found in self.dictionary) > DICTIONARY_LIMIT_BYTES:
            raise ValueError(f"delta: a dictionary of more than {DICTIONARY_LIMIT_BYTES} bytes")
        names = [(s.mode, s.width) for s in self.sections]
        for mode, width in names:
            _check_mode(mode, width)
        needed = {(s.mode, s.width) for s in self.steps if s.mode != COPY}
        if len(set(names)) != len(names) or set(names) != needed:
            raise ValueError("delta: its sections are not those that its steps need, each once")

    def _check_range(self, found: Range) -> None:
        if found.offset < 0 or found.length < 1 or found.offset + found.length > self.source.length:
            raise ValueError("delta: a range that its source does not have")

    def section_bytes(self, section: Section) -> int:
        """How long a section is when unpacked."""
        return sum(s.length for s in self.steps if (s.mode, s.width) == (section.mode, section.width))

    def to_bytes(self) -> bytes:
        text = json.dumps({name: _plain(value) for name, value in vars(self).items()}, separators=(",", ":")).encode()
        if len(text) > HEAD_LIMIT_BYTES:
            raise ValueError(f"delta: its head has more than {HEAD_LIMIT_BYTES} bytes")
        return MAGIC + struct.pack("<I", len(text)) + text


def _check_mode(mode: str, width: int) -> None:
    if width not in MODES.get(mode, ()):
        raise ValueError(f"delta: no step {mode[:20]!r} of elements of {width} bytes")


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def head_length(start: bytes) -> int:
    """Of the head that follows these 12 bytes; ValueError where they do not begin a delta."""
    if len(start) != 12 or not start.startswith(MAGIC):
        raise ValueError("delta: not a delta of this version")
    length: int = struct.unpack("<I", start[8:])[0]
    if length > HEAD_LIMIT_BYTES:
        raise ValueError(f"delta: a head of {length} bytes is over the limit of {HEAD_LIMIT_BYTES}")
    return length


def read_head(text: bytes) -> Head:
    """ValueError where anything in it is not as it must be."""
    value = strict_json(text, "delta head")
    if not isinstance(value, dict) or set(value) != {"source", "target", "steps", "sections", "dictionary"}:
        raise ValueError("delta head: expected source, target, steps, sections and dictionary")
    return Head(
        source=_end(value["source"]),
        target=_end(value["target"]),
        steps=[Step(*_row(v, (str, int, int, int))) for v in _list(value["steps"])],
        sections=[Section(*_row(v, (str, int, int))) for v in _list(value["sections"])],
        dictionary=[Range(*_row(v, (int, int))) for v in _list(value["dictionary"])],
    )


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("delta head: expected a list")
    return value


def _row(value: Any, kinds: tuple[type, ...]) -> Any:
    if not isinstance(value, list) or [type(v) for v in value] != list(kinds):
        raise ValueError(f"delta head: expected a list of {', '.join(k.__name__ for k in kinds)}")
    if any(kind is int and not 0 <= v < 1 << 50 for kind, v in zip(kinds, value, strict=True)):
        raise ValueError("delta head: a number that cannot be")
    return value


def _end(value: Any) -> End:
    end = End(*_row(value, (int, str)))
    if not SHA256.fullmatch(end.sha256):
        raise ValueError("delta head: a SHA-256 has 64 hex digits")
    return end
