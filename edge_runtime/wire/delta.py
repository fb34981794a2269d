"""Deltas: hints where an artifact can be had for fewer bytes. Believed in nothing: what comes out must have the artifact's own
hash.

    deltas/<from>/<to>.json        {v, from, to, candidates: [{format, length, sha256, file}]}, smallest first
    deltas/<from>/<to>.<format>    the delta itself (`edge_runtime.delta.container`)

`from` and `to`: SHA-256 of whole artifacts; `from` is `NOTHING` for an artifact that is only packed smaller. Standard library
only.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from edge_runtime.wire.envelope import strict_json
from edge_runtime.wire.manifest import SHA256

VERSION = 1
LIMIT_BYTES = 16 * 1024
CANDIDATES_LIMIT = 8
NOTHING = "0" * 64
#: patch: zstd with the old artifact as its dictionary; tensor: weights as differences, byte plane by byte plane
FORMATS = ("packed", "patch", "tensor")
FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}", re.ASCII)


@dataclass(frozen=True)
class Candidate:
    """`file`: its name in the folder `deltas/<from>/`."""

    format: str
    length: int
    sha256: str
    file: str


@dataclass(frozen=True)
class Hint:
    source: str
    target: str
    candidates: tuple[Candidate, ...]

    def to_json(self) -> bytes:
        values = [vars(c) for c in self.candidates]
        return json.dumps({"v": VERSION, "from": self.source, "to": self.target, "candidates": values}).encode()


def folder(source: str) -> str:
    return f"deltas/{source}"


def hint_path(source: str, target: str) -> str:
    return f"{folder(source)}/{target}.json"


def read_hint(data: bytes, source: str, target: str) -> Hint:
    """A hint for these two; ValueError names what is wrong."""
    if len(data) > LIMIT_BYTES:
        raise ValueError(f"delta hint of {len(data)} bytes is over the limit of {LIMIT_BYTES}")
    value = strict_json(data, "delta hint")
    if not isinstance(value, dict) or value.get("v") != VERSION or set(value) != {"v", "from", "to", "candidates"}:
        raise ValueError(f"delta hint: expected an object with v = {VERSION}, from, to and candidates")
    if (value["from"], value["to"]) != (source, target):
        raise ValueError("delta hint: is for other artifacts")
    found = value["candidates"]
    if not isinstance(found, list) or len(found) > CANDIDATES_LIMIT:
        raise ValueError(f"delta hint: candidates must be a list of at most {CANDIDATES_LIMIT}")
    return Hint(source, target, tuple(_candidate(item) for item in found))


def _candidate(value: Any) -> Candidate:
    if not isinstance(value, dict) or set(value) != {"format", "length", "sha256", "file"}:
        raise ValueError("delta hint: a candidate has format, length, sha256 and file")
    if value["format"] not in FORMATS or type(value["length"]) is not int or not 0 < value["length"] < 1 << 40:
        raise ValueError("delta hint: unknown format, or a length that cannot be")
    for name, pattern in (("sha256", SHA256), ("file", FILE)):
        if not isinstance(value[name], str) or not pattern.fullmatch(value[name]):
            raise ValueError(f"delta hint: {name} is {str(value[name])[:80]!r}, expected {pattern.pattern}")
    return Candidate(**value)
