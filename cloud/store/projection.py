"""What the stream `decision` tells, as columns and as counters. Pure.

A field that is missing or of another type is null: a device with another version is no reason to lose its Event.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from cloud.messages import INT64_MAX, plain_text
from edge_runtime.wire import latency
from edge_runtime.wire.envelope import Event

STREAM = "decision"
INT32_MAX = 2**31 - 1
INTEGERS = ("part_epoch", "part_seq", "serial", "lot", "recipe", "latency_us")
TEXTS = ("label", "reason", "bundle_digest", "engine", "variant")

#: (stream, kind) of which the newest Event tells how a device is now
LATEST = {("metric", "control"), ("health", "health"), ("health", "model_loaded")}


def decision_row(e: Event, received_ns: int) -> dict[str, Any]:
    row: dict[str, Any] = {"device": e.device, "chain": e.chain, "seq": e.seq, "kind": plain_text(e.kind)}
    row |= {name: _integer(e.body.get(name)) for name in INTEGERS}
    row["result"] = _integer(e.body.get("result"), INT32_MAX)
    row |= {name: _text(e.body.get(name)) for name in TEXTS}
    return row | {"score": _real(e.body.get("score")), "wall_ns": e.wall_ns, "received_ns": received_ns}


def part_key(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """(part_epoch, part_seq), or None where the Event does not say which part it is about."""
    epoch, seq = row["part_epoch"], row["part_seq"]
    return None if epoch is None or seq is None else (epoch, seq)


def tallies(row: Mapping[str, Any]) -> Counter[str]:
    """What one Decision adds to the counters."""
    found = Counter({f"kind:{row['kind']}": 1})
    if row["result"] is not None:
        found[f"result:{row['result']}"] = 1
    if row["latency_us"] is not None:
        found[f"latency:{latency.bucket(row['latency_us'])}"] = 1
    return found


def _integer(value: Any, most: int = INT64_MAX) -> int | None:
    is_integer = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= most
    return value if is_integer else None


def _real(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 1e300:
        return None
    return float(value) if math.isfinite(value) else None


def _text(value: Any) -> str | None:
    return plain_text(value) if isinstance(value, str) else None
