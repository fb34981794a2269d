"""Event: the one envelope for anything worth telling, and the acknowledgement that answers it.

An Event is identified by (device, stream, seq): `seq` counts 1, 2, 3 … without gaps within a stream and never repeats,
across restarts and reboots. The cloud drops what it has already committed, so delivery may repeat and effect may not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SCHEMA = 1
BATCH_LIMIT_BYTES = 256 * 1024
ACK_LIMIT_BYTES = 16 * 1024
INT64_MAX = 2**63 - 1

#: stream → (priority 0 = most urgent … 9 = bulk, fsync before the call returns)
STREAMS: dict[str, tuple[int, bool]] = {
    "alarm": (0, True),
    "fault": (1, True),
    "decision": (2, True),
    "command": (2, True),
    "health": (4, False),
    "link": (4, False),
    "metric": (8, False),
    "review": (9, False),
}


@dataclass(frozen=True)
class Event:
    """One thing worth telling.

    `kind` names what happened within the stream (decision stream: ``decision`` or ``unrecorded``; fault stream:
    the fault's name). `mono_ns` is the boot's monotonic clock, `wall_ns` Unix time in ns with
    `wall_uncertainty_ns` (None: unknown, the clock was never set). `body` is JSON data.
    """

    device: str
    stream: str
    seq: int
    boot_id: str
    kind: str
    mono_ns: int
    wall_ns: int
    wall_uncertainty_ns: int | None
    body: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "body": dict(self.body)}


def event_from_dict(value: Any) -> Event:
    """Check and build an Event; ValueError names the field that is wrong."""
    if not isinstance(value, dict):
        raise ValueError(f"event: expected an object, found {type(value).__name__}")
    for name, kind in (
        ("device", str), ("stream", str), ("seq", int), ("boot_id", str),
        ("kind", str), ("mono_ns", int), ("wall_ns", int), ("body", dict),
    ):  # fmt: skip
        if not isinstance(value.get(name), kind) or isinstance(value.get(name), bool):
            raise ValueError(f"event: {name} must be {kind.__name__}, found {value.get(name)!r}")
    uncertainty = value.get("wall_uncertainty_ns")
    if uncertainty is not None and (not isinstance(uncertainty, int) or isinstance(uncertainty, bool)):
        raise ValueError(f"event: wall_uncertainty_ns must be int or null, found {uncertainty!r}")
    for name in ("seq", "mono_ns", "wall_ns", "wall_uncertainty_ns"):
        if abs(value.get(name) or 0) > INT64_MAX:
            raise ValueError(f"event: {name} does not fit 64 bits")
    if value["seq"] < 1:
        raise ValueError(f"event: seq must be >= 1, found {value['seq']}")
    if value["stream"] not in STREAMS:
        raise ValueError(f"event: unknown stream {value['stream']!r}, expected one of {', '.join(STREAMS)}")
    names = ("device", "stream", "seq", "boot_id", "kind", "mono_ns", "wall_ns", "wall_uncertainty_ns", "body")
    return Event(**{name: value.get(name) for name in names})  # type: ignore[arg-type]


class EventBatch(NamedTuple):
    """`floor`: stream → the lowest sequence number that the device still holds. What is below it and did not arrive will
    never come (the outbox was damaged, or this cloud began anew), so that no gap is waited for in vain."""

    events: list[Event]
    floor: Mapping[str, int]


def encode_batch(events: Iterable[Event], floor: Mapping[str, int] | None = None) -> bytes:
    value = {"v": SCHEMA, "floor": dict(floor or {}), "events": [e.to_dict() for e in events]}
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def decode_batch(payload: bytes) -> EventBatch:
    """The content of one message; ValueError if it is too large, not JSON, or not our schema."""
    if len(payload) > 4 * BATCH_LIMIT_BYTES:
        raise ValueError(f"batch of {len(payload)} bytes is over the limit of {4 * BATCH_LIMIT_BYTES}")
    data = _json(payload, "batch")
    if not isinstance(data, dict) or data.get("v") != SCHEMA or not isinstance(data.get("events"), list):
        raise ValueError(f'batch: expected {{"v": {SCHEMA}, "events": […]}}')
    return EventBatch(
        [event_from_dict(item) for item in data["events"]], _sequences(data.get("floor", {}), "batch: floor")
    )


def encode_ack(committed: Mapping[str, int]) -> bytes:
    """Acknowledge every event of each stream up to and including the given sequence number (contiguous prefix)."""
    return json.dumps({"v": SCHEMA, "committed": dict(committed)}, separators=(",", ":")).encode()


def decode_ack(payload: bytes) -> dict[str, int]:
    """The committed sequence number of each stream; ValueError if it is not an acknowledgement of our schema."""
    if len(payload) > ACK_LIMIT_BYTES:
        raise ValueError(f"ack of {len(payload)} bytes is over the limit of {ACK_LIMIT_BYTES}")
    data = _json(payload, "ack")
    committed = data.get("committed") if isinstance(data, dict) and data.get("v") == SCHEMA else None
    return _sequences(committed, f'ack: expected {{"v": {SCHEMA}, "committed": {{stream: seq}}}}; committed')


def _sequences(value: Any, what: str) -> dict[str, int]:
    """A table of stream → sequence number."""
    if not isinstance(value, dict) or any(type(seq) is not int or not 0 <= seq <= INT64_MAX for seq in value.values()):
        raise ValueError(f"{what} must map streams to sequence numbers")
    return value


def _json(payload: bytes, what: str) -> Any:
    """Strict JSON: no NaN or Infinity (other readers refuse them), no nesting that breaks the reader."""

    def refuse(name: str) -> None:
        raise ValueError(f"{what}: {name} is not JSON")

    try:
        return json.loads(payload, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError(f"{what}: nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{what}: not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{what}: not JSON: {error}") from error
