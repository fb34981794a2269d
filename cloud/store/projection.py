"""What the stream `decision` tells, as columns and as counters. Pure.

A field that is missing or of another type is null: a device with another version is no reason to lose its Event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from cloud.messages import INT64_MAX, plain_text
from edge_runtime.wire import latency
from edge_runtime.wire.envelope import Event

STREAM = "decision"
INT32_MAX = 2**31 - 1

#: (stream, kind) of which the newest Event tells how a device is now
LATEST = {("metric", "control"), ("health", "health"), ("health", "model_loaded")}


def decision_row(e: Event, received_ns: int) -> dict[str, Any]:
    """The columns of the table `decision`, in their order, without `id`."""
    row: dict[str, Any] = {"device": e.device, "chain": e.chain, "seq": e.seq, "kind": plain_text(e.kind)}
    body = e.body
    for name, read in FIELDS.items():
        row[name] = read(body.get(name))
    row["wall_ns"], row["received_ns"] = e.wall_ns, received_ns
    return row


def part_key(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """(part_epoch, part_seq), or None where the Event does not say which part it is about."""
    epoch, seq = row["part_epoch"], row["part_seq"]
    return None if epoch is None or seq is None else (epoch, seq)


def count(row: Mapping[str, Any], counters: Counter[str]) -> None:
    """Add one Decision to the counters."""
    counters[f"kind:{row['kind']}"] += 1
    if row["result"] is not None:
        counters[f"result:{row['result']}"] += 1
    if row["latency_us"] is not None:
        counters[f"latency:{latency.bucket(row['latency_us'])}"] += 1


def _integer(value: Any) -> int | None:
    return value if type(value) is int and -INT64_MAX <= value <= INT64_MAX else None


def _small_integer(value: Any) -> int | None:
    return value if type(value) is int and -INT32_MAX <= value <= INT32_MAX else None


def _real(value: Any) -> float | None:
    if type(value) not in (int, float) or not -1e300 <= value <= 1e300:  # NaN too
        return None
    return float(value)


def _text(value: Any) -> str | None:
    return plain_text(value) if isinstance(value, str) else None


#: fields of the body → how each is read
FIELDS: dict[str, Callable[[Any], Any]] = {
    "part_epoch": _integer, "part_seq": _integer, "result": _small_integer, "score": _real, "label": _text,
    "reason": _text, "serial": _integer, "lot": _integer, "recipe": _integer, "latency_us": _integer,
    "bundle_digest": _text, "engine": _text, "variant": _text,
}  # fmt: skip
