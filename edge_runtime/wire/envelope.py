"""Event: the one envelope for anything worth telling, and the line it becomes.

An Event is identified by (device, chain, stream, seq). A *chain* is one life of one outbox; within it `seq` counts
1, 2, 3 … in each stream, without gaps, across restarts and reboots. The cloud drops what it has already committed, so
delivery may repeat and effect may not.

A *record line* is the Event as JSON on one line. The outbox makes it once; from then on everybody passes these bytes
on and nobody writes them anew, because each line names the SHA-256 of the line before it: whoever holds the lines
can check with `sha256sum` alone that none is missing and none was changed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

BATCH_LIMIT_BYTES = 256 * 1024
LINE_LIMIT_BYTES = 128 * 1024
INT64_MAX = 2**63 - 1
CHAIN = re.compile(r"[0-9a-f]{16}")
HASH = re.compile(r"[0-9a-f]{64}")

#: stream → (priority 0 = most urgent … 9 = bulk, fsync before the call returns)
STREAMS: dict[str, tuple[int, bool]] = {
    "alarm": (0, True),
    "fault": (1, True),
    "decision": (2, True),
    "command": (2, True),
    "health": (4, False),
    "link": (4, False),
    "telemetry": (6, False),
    "metric": (8, False),
    "review": (9, False),
}


@dataclass(frozen=True)
class Event:
    """One thing worth telling.

    `kind` names what happened within the stream (decision stream: ``decision`` or ``unrecorded``; fault stream:
    the fault's name). `mono_ns` is the boot's monotonic clock, `wall_ns` Unix time in ns with
    `wall_uncertainty_ns` (None: unknown, the clock was never set). `prev` is the hash of the record before it in its
    stream. `body` is JSON data.
    """

    device: str
    chain: str
    stream: str
    seq: int
    boot_id: str
    kind: str
    mono_ns: int
    wall_ns: int
    wall_uncertainty_ns: int | None
    prev: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "body": dict(self.body)}


class Record(NamedTuple):
    """One stored Event as the outbox gives it out: its line, and where it belongs."""

    stream: str
    seq: int
    line: bytes


def genesis(device: str, chain: str, stream: str) -> str:
    """What the first record of a stream names as its predecessor."""
    return hashlib.sha256(f"gudgeon chain\n{device}\n{chain}\n{stream}".encode()).hexdigest()


def record_hash(line: bytes) -> str:
    """SHA-256 of the line's bytes, in hex."""
    return hashlib.sha256(line).hexdigest()


def record_line(event: Event) -> bytes:
    return json.dumps(event.to_dict(), separators=(",", ":"), allow_nan=False).encode()


def read_record(line: bytes) -> Event:
    """The Event of a record line; ValueError where it is none."""
    if len(line) > LINE_LIMIT_BYTES:
        raise ValueError(f"record of {len(line)} bytes is over the limit of {LINE_LIMIT_BYTES}")
    return event_from_dict(strict_json(line, "record"))


#: field → type that its value must have
_TYPES: dict[str, type] = {
    "device": str, "chain": str, "stream": str, "seq": int, "boot_id": str, "kind": str, "mono_ns": int, "wall_ns": int,
    "prev": str, "body": dict,
}  # fmt: skip
_EXPECTED = tuple(_TYPES.values())


def event_from_dict(value: Any) -> Event:
    """Check and build an Event; ValueError names the field that is wrong."""
    if not isinstance(value, dict):
        raise ValueError(f"event: expected an object, found {type(value).__name__}")
    found: tuple[Any, ...] = tuple(map(value.get, _TYPES))
    if tuple(map(type, found)) != _EXPECTED:
        name, kind = next((n, k) for n, k in _TYPES.items() if type(value.get(n)) is not k)
        raise ValueError(f"event: {name} must be {kind.__name__}, found {value.get(name)!r}")
    device, chain, stream, seq, boot_id, kind_name, mono_ns, wall_ns, prev, body = found
    uncertainty = value.get("wall_uncertainty_ns")
    if uncertainty is not None and type(uncertainty) is not int:
        raise ValueError(f"event: wall_uncertainty_ns must be int or null, found {uncertainty!r}")
    if not (abs(mono_ns) <= INT64_MAX and abs(wall_ns) <= INT64_MAX and max(seq, uncertainty or 0) <= INT64_MAX):
        names = ("seq", "mono_ns", "wall_ns", "wall_uncertainty_ns")
        name = next(n for n in names if abs(value.get(n) or 0) > INT64_MAX)
        raise ValueError(f"event: {name} does not fit 64 bits")
    if uncertainty is not None and uncertainty < 0:
        raise ValueError(f"event: wall_uncertainty_ns must be >= 0, found {uncertainty}")
    if seq < 1:
        raise ValueError(f"event: seq must be >= 1, found {seq}")
    if stream not in STREAMS:
        raise ValueError(f"event: unknown stream {stream!r}, expected one of {', '.join(STREAMS)}")
    if not CHAIN.fullmatch(chain) or not HASH.fullmatch(prev):
        raise ValueError("event: chain must be 16 and prev 64 lower-case hex digits")
    return Event(device, chain, stream, seq, boot_id, kind_name, mono_ns, wall_ns, uncertainty, prev, body)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse).decode


def strict_json(data: bytes, what: str) -> Any:
    """Strict JSON: no NaN or Infinity (other readers refuse them), no nesting that breaks the reader."""
    try:
        return _decode(data.decode())
    except RecursionError as error:
        raise ValueError(f"{what}: nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{what}: not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{what}: not JSON: {error}") from error
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
