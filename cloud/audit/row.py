"""One row of the audit log and its hash. Pure.

The hash is over one line of JSON that holds every field of the row and the hash of the row before it, so that no row can be
edited, left out, moved or put in without all later hashes changing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

VERSION = 1
GENESIS = "0" * 64
TEXT_CHARS = 300
DETAIL_CHARS = 16_384


class AuditRow(NamedTuple):
    """`seq` begins at 1 and has no holes. `detail` is one line of JSON."""

    seq: int
    at_ns: int
    actor: str
    role: str
    via: str
    address: str
    action: str
    subject: str
    outcome: str
    detail: str
    prev: str

    def line(self) -> bytes:
        """What is hashed, and what an export holds."""
        fields = {"v": VERSION, **self._asdict()}
        return json.dumps(fields, separators=(",", ":"), sort_keys=True).encode()

    def digest(self) -> str:
        return hashlib.sha256(self.line()).hexdigest()


def read_row(line: bytes) -> AuditRow:
    """The row of an exported line; ValueError where it is none."""
    value = json.loads(line)
    if not isinstance(value, dict) or value.pop("v", None) != VERSION or set(value) != set(AuditRow._fields):
        raise ValueError(f"expected an object with v = {VERSION} and {', '.join(AuditRow._fields)}")
    row = AuditRow(**value)
    for name, found in value.items():
        kind = int if name in ("seq", "at_ns") else str
        if type(found) is not kind:
            raise ValueError(f"{name} must be {kind.__name__}, found {found!r}")
    return row


def plain(text: str, limit: int = TEXT_CHARS) -> str:
    """Printable text of bounded length: no line breaks, no terminal codes, nothing that a database cannot hold."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:limit])


def detail_text(detail: Mapping[str, Any] | None) -> str:
    """One line of JSON; of what is too long only its length and hash."""
    text = json.dumps(dict(detail or {}), separators=(",", ":"), sort_keys=True, allow_nan=False, default=str)
    if len(text) <= DETAIL_CHARS:
        return text
    cut = {"too_long_chars": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return json.dumps(cut, separators=(",", ":"))
