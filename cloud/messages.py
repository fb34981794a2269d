"""What arrives over MQTT, read: topic and payload to one of four items. Pure.

A message that cannot be read becomes a Rejection: it is counted and kept, and it never stops ingest.
A number in a body that is too large for a float becomes null and broken text is mended, so that one odd value never blocks
its stream.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.wire.envelope import Event, decode_batch
from edge_runtime.wire.topics import Place, parse

INT64_MAX = 2**63 - 1
REASON_CHARS = 300
BODY_LEVELS = 32


@dataclass(frozen=True)
class Batch:
    """Events of one device, in one message; `floor` as in `wire.envelope.EventBatch`."""

    place: Place
    events: Sequence[Event]
    floor: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Status:
    """The device's retained status, or its last will."""

    place: Place
    online: bool
    boot_id: str


@dataclass(frozen=True)
class Rejection:
    topic: str
    reason: str
    size_bytes: int


@dataclass(frozen=True)
class Connected:
    """Ingest has (re)connected: who is online is about to be told again."""


Item = Batch | Status | Rejection | Connected


def read_message(topic: str, payload: bytes) -> Item:
    try:
        place, leaf = parse(topic)
        return _status(place, payload) if leaf == "status" else _batch(place, payload)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        return Rejection(plain_text(topic), f"not JSON: {error}"[:REASON_CHARS], len(payload))
    except ValueError as error:
        return Rejection(plain_text(topic), plain_text(str(error))[:REASON_CHARS], len(payload))


def _batch(place: Place, payload: bytes) -> Batch:
    batch = decode_batch(payload)
    for e in batch.events:
        if e.device != place.device:
            raise ValueError(f"event of device {e.device!r} on the topic of device {place.device!r}")
        _check_depth(e.body)
    return Batch(place, batch.events, batch.floor)


def _check_depth(value: Any, levels: int = BODY_LEVELS) -> None:
    """ValueError for a body that a reader of the store might not take apart again."""
    if levels == 0:
        raise ValueError(f"event: body is nested deeper than {BODY_LEVELS} levels")
    inside = value.values() if isinstance(value, Mapping) else value
    for item in inside:
        if isinstance(item, Mapping | list):
            _check_depth(item, levels - 1)


def _status(place: Place, payload: bytes) -> Status:
    data = json.loads(payload)
    if not isinstance(data, dict) or not isinstance(data.get("online"), bool):
        raise ValueError('status: expected {"online": true or false, "boot_id": "…"}')
    boot_id = data.get("boot_id")
    return Status(place, data["online"], plain_text(boot_id) if isinstance(boot_id, str) else "")


def plain_text(value: str) -> str:
    """Text that can be written as UTF-8: what cannot (half of a surrogate pair) becomes a question mark."""
    return value.encode("utf-8", "replace").decode("utf-8")


def json_text(body: Any) -> str:
    """The body as JSON that every reader takes."""
    try:
        return json.dumps(body, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode().decode()
    except ValueError:
        return json.dumps(_mended(body), allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _mended(value: Any) -> Any:
    if isinstance(value, dict):
        return {plain_text(str(k)): _mended(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_mended(v) for v in value]
    if isinstance(value, str):
        return plain_text(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
