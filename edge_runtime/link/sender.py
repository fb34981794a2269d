"""Which batch goes next: three lanes over the outbox, the bucket of `rate`, and what a metered line holds back.

    urgent   live alarms and faults: at once, whatever the bucket says
    live     the other records appended since this connection stands
    backlog  what was there before, most urgent stream first

- Each stream is in one live lane only, so its order is kept; the cloud joins live and backlog by sequence number.
- Metered: classes above `metered_priority` wait (the disk budget still bounds them); the others go in fewer, larger, better
  compressed batches, at the latest `METERED_HOLD_S` after the one before; alarms and faults never wait.
- The first batch of a connection has a checkpoint alone where nothing waits: its acknowledgement tells the cloud's time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.identity import public_text
from edge_runtime.link.lanes import BACKLOG_BATCHES, LIVE_BATCHES, MOST_RECORDS, Batch, Islands, Lane, Shortest
from edge_runtime.link.queue import Waiting
from edge_runtime.link.rate import LineSettings, Pace, wire_bytes
from edge_runtime.wire.batch import encode_batch
from edge_runtime.wire.envelope import BATCH_LIMIT_BYTES, STREAMS, Record

PACK_FROM_BYTES = 1024
URGENT_PRIORITY = 1
LIVE_S = 5.0  # after a live record the backlog yields for this long
METERED_HOLD_S = 30.0
METERED_RECORDS = 1000
METERED_PACK_FROM_BYTES = 256
PACK_LEVEL, METERED_PACK_LEVEL = 3, 12
BY_URGENCY = sorted(STREAMS, key=lambda s: STREAMS[s][0])
URGENT = [s for s in BY_URGENCY if STREAMS[s][0] <= URGENT_PRIORITY]


class Queue(Waiting, Protocol):
    """What the uplink needs of the outbox."""

    def confirm_shed(self, shed_id: int) -> None: ...


class Sender:
    """`publish` takes a payload and returns the message's number. `tls` is for the count of bytes alone. `seen` gets the live
    records that went out. `counts`: batches, records and bytes, as given to MQTT, are added there."""

    def __init__(
        self,
        outbox: Queue,
        key: Ed25519PrivateKey,
        topic: str,
        settings: LineSettings,
        now_ns: int,
        tls: bool = False,
        seen: Callable[[Sequence[Record]], None] | None = None,
        counts: Counter[str] | None = None,
    ) -> None:
        self._outbox, self._topic_bytes, self._tls = outbox, len(topic.encode()), tls
        self._sign: Callable[[bytes], bytes] = key.sign
        self._public_key = public_text(key)
        shortest = Shortest()
        self._lanes = {
            "urgent": Lane(LIVE_BATCHES, shortest=shortest),
            "live": Lane(LIVE_BATCHES, shortest=shortest),
            "backlog": Lane(BACKLOG_BATCHES, shortest=shortest),
        }
        self._pace = Pace(settings, now_ns)
        self._live_from: dict[str, int] = {}
        self._greet = False
        self._held_ns = self._live_ns = 0
        self._seen = seen
        self.sent_bytes = 0
        self._counts: Counter[str] = Counter() if counts is None else counts

    @property
    def settings(self) -> LineSettings:
        return self._pace.settings

    def set(self, settings: LineSettings, now_ns: int) -> None:
        if settings != self._pace.settings:
            self._pace.set(settings, now_ns)

    def begin(self) -> None:
        """A connection stands: what comes from now on is live."""
        self._live_from = {stream: self._outbox.head(stream) for stream in STREAMS}
        self._greet = True
        self.reset()

    def reset(self) -> None:
        for lane in self._lanes.values():
            lane.reset()

    def send_again(self) -> None:
        """From the first record on that is not acknowledged; what is under way stays counted."""
        for lane in self._lanes.values():
            lane.sent.clear()

    def send(self, now_ns: int, publish: Callable[[bytes], int]) -> None:
        """What may go now."""
        for lane in self._lanes.values():
            if lane.timed_out(now_ns):
                lane.reset()
        while self._one("urgent", now_ns, publish):
            pass
        self._lanes["backlog"].yields = now_ns - self._live_ns < LIVE_S * 1e9
        if self._pace.limited:
            while self._pace.open(now_ns) and self._next(now_ns, publish):
                pass
        else:
            while self._one("live", now_ns, publish):
                pass
            self._one("backlog", now_ns, publish)  # one at a time: what is live looks in between
        if self._greet:
            self._publish("live", [], now_ns, publish)

    def wait_s(self, now_ns: int, most_s: float) -> float:
        """How long nothing will be due that only the clock brings."""
        return min(most_s, self._pace.wait_s(now_ns) or most_s)

    def refused(self, mid: int) -> Batch | None:
        return next((b for lane in self._lanes.values() if (b := lane.refused(mid)) is not None), None)

    def acknowledged(self, committed: Mapping[str, int], islands: Islands, now_ns: int) -> None:
        for lane in self._lanes.values():
            lane.acknowledged(committed, islands, now_ns)

    def _next(self, now_ns: int, publish: Callable[[bytes], int]) -> bool:
        """One batch of the lane whose turn it is, else of the other."""
        for name in self._pace.order():
            if self._one(name, now_ns, publish):
                return True
            if self._lanes[name].has_room:
                self._pace.nothing_from(name)
        return False

    def _one(self, name: str, now_ns: int, publish: Callable[[bytes], int]) -> bool:
        """One batch of a lane; False where it has nothing to send, or must not now."""
        lane, metered = self._lanes[name], self.settings.metered
        if not lane.has_room:
            return False
        limit = METERED_RECORDS if metered and lane.size == MOST_RECORDS else lane.size
        live = name != "backlog"
        records = self._outbox.pending(
            limit,
            self._pace.batch_bytes(BATCH_LIMIT_BYTES),
            after=self._live_from | lane.sent if live else lane.sent,
            streams=self._streams(name),
            upto=None if live else self._live_from,
        )
        if not records or (name == "live" and self._hold(records, limit, now_ns)):
            return False
        self._publish(name, records, now_ns, publish)
        return True

    def _streams(self, name: str) -> list[str]:
        if name == "urgent":
            return URGENT
        least = self.settings.metered_priority if self.settings.metered else 9
        streams = [s for s in BY_URGENCY if STREAMS[s][0] <= least or s in URGENT]
        return streams if name == "backlog" else [s for s in streams if s not in URGENT]

    def _hold(self, records: Sequence[Record], limit: int, now_ns: int) -> bool:
        """On a metered line a few live records wait for more."""
        return self.settings.metered and len(records) < limit and now_ns - self._held_ns < METERED_HOLD_S * 1e9

    def _publish(self, name: str, records: list[Record], now_ns: int, publish: Callable[[bytes], int]) -> None:
        checkpoint = replace(self._outbox.checkpoint(), key=self._public_key)
        payload = packed(encode_batch(checkpoint, [r.line for r in records], self._sign), self.settings.metered)
        mid = publish(payload)
        if records:
            self._lanes[name].add(records, now_ns, mid)
        if name == "live" and records:
            self._held_ns = now_ns
        if name != "backlog" and records:
            self._live_ns = now_ns
        if name != "backlog" and self._seen is not None:
            self._seen(records)
        size = wire_bytes(len(payload), self._topic_bytes, self._tls)
        self._pace.sent(name, size, now_ns)
        self.sent_bytes += size
        self._counts.update(batches=1, records=len(records), bytes=len(payload))
        self._greet = False


def packed(payload: bytes, metered: bool = False) -> bytes:
    """Compressed with Zstandard where that pays; harder where each byte has its price."""
    if len(payload) < (METERED_PACK_FROM_BYTES if metered else PACK_FROM_BYTES):
        return payload
    level = METERED_PACK_LEVEL if metered else PACK_LEVEL
    small = zstandard.ZstdCompressor(level=level).compress(payload)
    return small if len(small) < (1.0 if metered else 0.9) * len(payload) else payload
