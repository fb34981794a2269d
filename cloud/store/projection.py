"""What the stream `decision` tells, as columns and as counters. Pure.

A field that is missing or of another type is null: a device with another version is no reason to lose its Event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cloud.messages import INT64_MAX, plain_text
from edge_runtime.wire import latency

STREAM = "decision"
INT32_MAX = 2**31 - 1

#: (stream, kind) of which the newest Event tells how a device is now
LATEST = {("metric", "control"), ("health", "health"), ("health", "model_loaded")}
LATEST_STREAMS = {stream for stream, _ in LATEST}


def fields(bodies: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[Any]]:
    """What each body holds of `FIELDS`, column by column: most columns are plain as a whole, which is quicker to see than one
    value after the other."""
    return {name: _column(read, [body.get(name) for body in bodies]) for name, read in FIELDS.items()}


def _column(read: Callable[[Any], Any], values: list[Any]) -> list[Any]:
    kind, is_plain = PLAIN[read]
    return values if set(map(type, values)) == {kind} and is_plain(values) else [read(value) for value in values]


def count(kinds: Iterable[str], columns: Mapping[str, Iterable[Any]], counters: Counter[str]) -> None:
    """Add Decisions to the counters."""
    latencies = (latency.bucket(us) for us in columns["latency_us"] if us is not None)
    for name, values in (("kind", kinds), ("result", columns["result"]), ("latency", latencies)):
        for value, times in Counter(values).items():
            if value is not None:
                counters[f"{name}:{value}"] += times


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

#: how a field is read → of which type, and what else, a column is whose values all are what reading makes of them
PLAIN: dict[Callable[[Any], Any], tuple[type, Callable[[list[Any]], bool]]] = {
    _integer: (int, lambda values: min(values) >= -INT64_MAX and max(values) <= INT64_MAX),
    _small_integer: (int, lambda values: min(values) >= -INT32_MAX and max(values) <= INT32_MAX),
    _real: (float, lambda values: all(-1e300 <= value <= 1e300 for value in values)),
    _text: (str, lambda values: plain_text(text := "".join(values)) is text),
}
