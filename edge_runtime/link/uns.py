"""The newest Event of each kind as a plain retained message, for any consumer of the unified namespace: Node-RED, a historian.

- Topic `…/now/<stream>/<kind>` (see `wire.topics`), JSON or CBOR, QoS 0: it is a courtesy beside the signed batches. What must
  not be lost is in them.
- At most one message a second for each kind, the newest; what came in between is in the batches alone.
- An Event over `LIMIT_BYTES` and the parts of a blob are left out; so are kinds beyond the first `KINDS`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from edge_runtime.errors import MissingExtraError
from edge_runtime.wire.envelope import STREAMS, Event, Record, read_record
from edge_runtime.wire.topics import Place

PERIOD_NS = 1_000_000_000
LIMIT_BYTES = 16 * 1024
KINDS = 200
UNFIT = re.compile(r"[^A-Za-z0-9_.-]")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Encode = Callable[[dict[str, Any]], bytes]


def encoder(name: str) -> Encode:
    """`json` or `cbor`; MissingExtraError where the package for it is missing."""
    if name == "json":
        return lambda value: json.dumps(value, separators=(",", ":")).encode()
    try:
        import cbor2
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            'link.uns = "cbor" needs the Python package cbor2, which is not installed; '
            "install it with: pip install 'gudgeon[cbor]'"
        ) from error
    return cbor2.dumps


def plain(event: Event) -> dict[str, Any]:
    """What the message holds: the Event without its hash, and its time as people read it."""
    value = {"ts": iso(event.wall_ns), **event.to_dict()}
    del value["prev"]
    return value


def iso(wall_ns: int) -> str:
    """ISO 8601, UTC, in microseconds. (64 bits of nanoseconds end in 2262, inside the calendar.)"""
    return (EPOCH + timedelta(microseconds=wall_ns // 1000)).isoformat().replace("+00:00", "Z")


class Newest:
    """`last` gives the newest Event of a stream (`Outbox.last`). Pure but for that: times are handed in."""

    def __init__(self, place: Place, encode: Encode, last: Callable[[str], Event | None]) -> None:
        self._place, self._encode, self._last = place, encode, last
        self._waiting: dict[tuple[str, str], Event] = {}
        self._told_ns: dict[tuple[str, str], int] = {}

    def refresh(self) -> None:
        """At a new connection: what came without one."""
        for stream in STREAMS:
            event = self._last(stream)
            if event is not None:
                self._take(event)

    def see(self, records: Iterable[Record]) -> None:
        for record in records:
            if len(record.line) <= LIMIT_BYTES:
                self._take(read_record(record.line))

    def _take(self, event: Event) -> None:
        key = (event.stream, event.kind)
        known = key in self._waiting or key in self._told_ns
        if (known or len(self._waiting.keys() | self._told_ns.keys()) < KINDS) and not event.kind.endswith(".part"):
            waiting = self._waiting.get(key)
            if waiting is None or waiting.chain != event.chain or waiting.seq < event.seq:
                self._waiting[key] = event

    def due(self, now_ns: int, most: int = 5) -> list[tuple[str, bytes]]:
        """Topic and payload of what may be told now."""
        ready = [k for k in self._waiting if now_ns - self._told_ns.get(k, now_ns - PERIOD_NS) >= PERIOD_NS][:most]
        out = []
        for key in ready:
            self._told_ns[key] = now_ns
            payload = self._encode(plain(self._waiting.pop(key)))
            if len(payload) <= LIMIT_BYTES:
                kind = UNFIT.sub("_", key[1])[:64] or "_"
                out.append((self._place.now(key[0], kind), payload))
        return out
