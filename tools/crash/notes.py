"""What a program tells while it runs: one JSON object a line on its standard output, each in one write.

A note is part of the recording, in its place among the operations, so that a crash point knows what had been promised before it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

Note = Mapping[str, Any]


def tell(**fields: Any) -> None:
    os.write(1, json.dumps(fields, separators=(",", ":")).encode() + b"\n")


def read_notes(data: bytes) -> list[Note]:
    """A line that is no JSON object becomes {"text": …}."""
    return [_note(line) for line in data.decode(errors="replace").splitlines() if line.strip()]


def _note(line: str) -> Note:
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return {"text": line}
    return found if isinstance(found, dict) else {"text": line}
