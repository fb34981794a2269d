"""Uplink: Events from the outbox to the cloud over MQTT, QoS 1, and the cloud's acknowledgements back.

- Only an acknowledgement from the cloud deletes from the outbox; a PUBACK of the broker means nothing here.
- A few batches are under way at once, in two lanes (`lanes`). What is not acknowledged in time, or was under way when the
  connection broke, is sent again; the cloud drops repeats.
- One thread: `select` over the broker's socket and the local one on which `control` tells that there is something new.
- `reconnect_spread_s`: a fleet that lost its broker together comes back one after the other (`spread`).
- MQTT 5 first; a broker that speaks 3.1.1 only is found out at the first connection and remembered.
- The last will, and the first message after each connection, is the retained status of the device.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import paho.mqtt.client as mqtt
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime import log
from edge_runtime.backoff import Backoff
from edge_runtime.clock import Clock
from edge_runtime.identity import public_text
from edge_runtime.link.connection import Connection
from edge_runtime.link.lanes import BACKLOG_BATCHES, LIVE_BATCHES, Lane
from edge_runtime.link.uns import Newest
from edge_runtime.mqtt_access import Access
from edge_runtime.wire.batch import Ack, Checkpoint, decode_ack, encode_batch
from edge_runtime.wire.envelope import STREAMS, Record
from edge_runtime.wire.topics import Place

QUARANTINE_S = 600.0
PACK_FROM_BYTES = 1024


class Queue(Protocol):
    """What the uplink needs of the outbox."""

    @property
    def chain(self) -> str: ...
    def pending(
        self,
        limit_events: int = ...,
        limit_bytes: int = ...,
        after: Mapping[str, int] | None = ...,
        streams: Sequence[str] | None = ...,
        upto: Mapping[str, int] | None = ...,
    ) -> list[Record]: ...
    def ack(self, committed: Mapping[str, int]) -> int: ...
    def checkpoint(self) -> Checkpoint: ...
    def head(self, stream: str) -> int: ...
    def append(self, stream: str, kind: str, body: Mapping[str, Any]) -> Any: ...
    def confirm_shed(self, shed_id: int) -> None: ...


class Uplink(Connection):
    """`newest`: tells plain messages beside the batches."""

    def __init__(
        self,
        place: Place,
        boot_id: str,
        host: str,
        port: int,
        outbox: Queue,
        key: Ed25519PrivateKey,
        wake: socket.socket | None = None,
        keepalive_s: int = 30,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
        access: Access | None = None,
        reconnect_spread_s: float = 0.0,
        newest: Newest | None = None,
    ) -> None:
        super().__init__(place.device, host, port, wake, keepalive_s, clock, backoff, access, reconnect_spread_s)
        self._place, self._boot_id, self._outbox, self._newest = place, boot_id, outbox, newest
        self._sign: Callable[[bytes], bytes] = key.sign
        self._public_key = public_text(key)
        self._acks: list[Ack] = []
        self._shed_told = 0
        self.live, self.backlog = Lane(LIVE_BATCHES), Lane(BACKLOG_BATCHES)
        self._lanes = (self.live, self.backlog)
        self._live_from: dict[str, int] = {}
        self._quarantined_ns = 0
        self.refusals = 0

    def drain(self, timeout_s: float) -> bool:
        """Keep sending until the outbox is empty or the time is up; True if it is empty."""
        deadline_ns = self._clock.monotonic_ns() + round(timeout_s * 1e9)
        while self._outbox.pending(1):
            if self._clock.monotonic_ns() > deadline_ns or (self._client is None and self._backoff.tries > 1):
                return False
            self.turn()
        return True

    def close(self) -> None:
        """Say goodbye: the retained status becomes offline now and not only when the broker misses us."""
        if self._client is not None and self.connected:
            self._client.publish(self._place.topic("status"), self._status(False), qos=1, retain=True)
            self._exchange(0.2)
            self._client.disconnect()
        self._client = None
        self.connected = False

    # ── the connection ──────────────────────────────────────────────────────────────────────────────────────────────

    def _prepare(self, client: mqtt.Client) -> None:
        client.will_set(self._place.topic("status"), self._status(False), qos=1, retain=True)
        client.on_message = self._on_message
        client.on_publish = self._on_publish

    def _came_up(self, client: mqtt.Client) -> None:
        self._live_from = {stream: self._outbox.head(stream) for stream in STREAMS}
        for lane in self._lanes:
            lane.reset()
        client.subscribe(self._place.topic("ack"), qos=1)
        client.publish(self._place.topic("status"), self._status(True), qos=1, retain=True)
        if self._newest is not None:
            self._newest.refresh()

    def _went_down(self) -> None:
        for lane in self._lanes:
            lane.reset()

    def _due(self, now_ns: int) -> None:
        self._send(now_ns)
        self._tell_newest(now_ns)

    def _after_exchange(self) -> None:
        self._take_acks()

    def _status(self, online: bool) -> bytes:
        return json.dumps({"online": online, "boot_id": self._boot_id}).encode()

    # ── sending and receiving ───────────────────────────────────────────────────────────────────────────────────────

    def _send(self, now_ns: int) -> None:
        assert self._client is not None
        for lane in self._lanes:
            if lane.timed_out(now_ns):
                lane.reset()
        if self._quarantined_ns and now_ns - self._quarantined_ns > QUARANTINE_S * 1e9:
            self._quarantined_ns = 0
            self.live.sent.clear()
            self.backlog.sent.clear()
        while self.live.has_room and self._send_one(self.live, now_ns):
            pass
        if self.backlog.has_room:
            self._send_one(self.backlog, now_ns)  # one at a time: what is live looks in between

    def _send_one(self, lane: Lane, now_ns: int) -> bool:
        """One batch of a lane; False where it has nothing to send."""
        assert self._client is not None
        live = lane is self.live
        after = self._live_from | lane.sent if live else lane.sent
        records = self._outbox.pending(lane.size, after=after, upto=None if live else self._live_from)
        if not records:
            return False
        checkpoint = replace(self._outbox.checkpoint(), key=self._public_key)
        payload = packed(encode_batch(checkpoint, [r.line for r in records], self._sign))
        info = self._client.publish(self._place.topic("events"), payload, qos=1)
        lane.add(records, now_ns, info.mid)
        if live and self._newest is not None:
            self._newest.see(records)
        return True

    def _tell_newest(self, now_ns: int) -> None:
        """Plain messages wait for the batches: none is added while there is something to write."""
        if self._newest is not None and self._client is not None and not self.wants_write:
            for topic, payload in self._newest.due(now_ns):
                self._client.publish(topic, payload, qos=0, retain=True)

    def _on_publish(self, client: mqtt.Client, _: Any, mid: int, reason: Any, properties: Any) -> None:
        """The broker's own answer: it means nothing for delivery, unless it is a refusal (MQTT 5, 128 and above)."""
        if not getattr(reason, "is_failure", False):
            return
        batch = next((b for lane in self._lanes if (b := lane.refused(mid)) is not None), None)
        if batch is None:
            return
        self.refusals += 1
        if not self._quarantined_ns:
            self._quarantined_ns = self._clock.monotonic_ns()
            body = {"reason": str(reason), "records": {s: list(span) for s, span in batch.spans.items()}}
            self._outbox.append("fault", "batch_refused", body | {"again_in_s": QUARANTINE_S})
        log.say(logging.WARNING, "the broker refused a batch; it is kept and sent again later", reason=str(reason))

    def _on_message(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic != self._place.topic("ack"):
            return
        try:
            ack = decode_ack(bytes(message.payload))
        except ValueError as error:
            log.say(logging.WARNING, "an acknowledgement could not be read", reason=str(error))
            return
        if ack.chain == self._outbox.chain:  # else it is for the outbox that was here before
            self._acks.append(ack)

    def _take_acks(self) -> None:
        """All that have come, as one."""
        acks, self._acks = self._acks, []
        committed: dict[str, int] = {}
        for ack in acks:
            committed |= {s: n for s, n in ack.committed.items() if n > committed.get(s, 0)}
        if committed:
            self._outbox.ack(committed)
        if acks:
            now_ns = self._clock.monotonic_ns()
            for lane in self._lanes:
                lane.acknowledged(committed, acks[-1].islands, now_ns)
        shed = max((ack.shed for ack in acks), default=0)
        if shed > self._shed_told:
            self._outbox.confirm_shed(shed)
            self._shed_told = shed


def packed(payload: bytes) -> bytes:
    """Compressed with Zstandard where that pays."""
    if len(payload) < PACK_FROM_BYTES:
        return payload
    small = zstandard.ZstdCompressor(level=3).compress(payload)
    return small if len(small) < 0.9 * len(payload) else payload
