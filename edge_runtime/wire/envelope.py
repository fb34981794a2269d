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
from operator import itemgetter
from types import MappingProxyType, NoneType
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


class Event(NamedTuple):
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
    body: Mapping[str, Any] = MappingProxyType({})

    def to_dict(self) -> dict[str, Any]:
        return {**self._asdict(), "body": dict(self.body)}


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


#: field → type that its value must have; `wall_uncertainty_ns` may be null, too
_TYPES: dict[str, type] = {
    "device": str, "chain": str, "stream": str, "seq": int, "boot_id": str, "kind": str, "mono_ns": int, "wall_ns": int,
    "wall_uncertainty_ns": int, "prev": str, "body": dict,
}  # fmt: skip
_EXPECTED = {tuple((_TYPES | {"wall_uncertainty_ns": of}).values()) for of in (int, NoneType)}
_NOTHING: dict[str, Any] = dict.fromkeys(_TYPES)
_values = itemgetter(*_TYPES)


def event_from_dict(value: Any) -> Event:
    """Check and build an Event; ValueError names the field that is wrong."""
    if not isinstance(value, dict):
        raise ValueError(f"event: expected an object, found {type(value).__name__}")
    try:
        e = Event(*_values(value))
    except KeyError:
        e = Event(*_values(_NOTHING | value))
    if tuple(map(type, e)) not in _EXPECTED:
        wrong = (n for n, kind in _TYPES.items() if type(getattr(e, n)) is not kind)
        name = next(n for n in wrong if n != "wall_uncertainty_ns" or e.wall_uncertainty_ns is not None)
        raise ValueError(f"event: {name} must be {_TYPES[name].__name__}, found {getattr(e, name)!r}")
    _, chain, stream, seq, _, _, mono_ns, wall_ns, uncertainty, prev, _ = e
    if not (
        1 <= seq <= INT64_MAX
        and -INT64_MAX <= mono_ns <= INT64_MAX
        and -INT64_MAX <= wall_ns <= INT64_MAX
        and (uncertainty is None or 0 <= uncertainty <= INT64_MAX)
    ):
        raise _out_of_range(e)
    if stream not in STREAMS:
        raise ValueError(f"event: unknown stream {stream!r}, expected one of {', '.join(STREAMS)}")
    if not CHAIN.fullmatch(chain) or not HASH.fullmatch(prev):
        raise ValueError("event: chain must be 16 and prev 64 lower-case hex digits")
    return e


def _out_of_range(e: Event) -> ValueError:
    least = {"seq": 1, "mono_ns": -INT64_MAX, "wall_ns": -INT64_MAX, "wall_uncertainty_ns": 0}
    found = {name: getattr(e, name) or 0 for name in least}
    for name in (n for n in least if abs(found[n]) > INT64_MAX):
        return ValueError(f"event: {name} does not fit 64 bits")
    name = next(n for n in least if found[n] < least[n])
    return ValueError(f"event: {name} must be >= {least[name]}, found {found[name]}")


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
