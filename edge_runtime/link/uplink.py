"""Uplink: Events from the outbox to the cloud over MQTT, QoS 1, and the cloud's acknowledgements back.

- Only an acknowledgement from the cloud deletes from the outbox; a PUBACK of the broker means nothing here.
- What goes next, and how much of it, is for `sender` to say. What is not acknowledged in time, or was under way when the
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
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime import log
from edge_runtime.backoff import Backoff
from edge_runtime.clock import Clock
from edge_runtime.link.connection import Connection
from edge_runtime.link.rate import LineSettings
from edge_runtime.link.sender import Queue, Sender
from edge_runtime.link.uns import Newest
from edge_runtime.mqtt_access import Access
from edge_runtime.wire.batch import Ack, decode_ack
from edge_runtime.wire.topics import Place

QUARANTINE_S = 600.0
METERED_KEEPALIVE_S = 240


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
        line: LineSettings | None = None,
        on_ack: Callable[[Ack, int], None] = lambda ack, mono_ns: None,
        newest: Newest | None = None,
    ) -> None:
        super().__init__(place.device, host, port, wake, keepalive_s, clock, backoff, access, reconnect_spread_s)
        self._place, self._boot_id, self._outbox, self._newest = place, boot_id, outbox, newest
        now_ns, tls = self._clock.monotonic_ns(), access is not None and access.tls
        seen = newest.see if newest is not None else None
        events, line = place.topic("events"), line or LineSettings()
        self._sender = Sender(outbox, key, events, line, now_ns, tls, seen, self.counts)
        self._on_ack = on_ack
        self._leaves: dict[str, Callable[[bytes], None]] = {}
        self._on_up: list[Callable[[], object]] = []
        self._acks: list[Ack] = []
        self._shed_told = 0
        self._quarantined_ns = 0
        self._subscription_told = False

    def listen(self, leaf: str, receive: Callable[[bytes], None], on_up: Callable[[], object] = lambda: None) -> None:
        """Take the messages of a further leaf, from the next connection on; `on_up` is called when one stands."""
        self._leaves[leaf] = receive
        self._on_up.append(on_up)

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

    def _keepalive(self) -> int:
        return max(self._keepalive_s, METERED_KEEPALIVE_S) if self.line.metered else self._keepalive_s

    def _prepare(self, client: mqtt.Client) -> None:
        client.will_set(self._place.topic("status"), self._status(False), qos=1, retain=True)
        client.on_message = self._on_message
        client.on_publish, client.on_subscribe = self._on_publish, self._on_subscribe

    def _came_up(self, client: mqtt.Client) -> None:
        self._sender.begin()
        client.subscribe([(self._place.topic(leaf), 1) for leaf in ("ack", *self._leaves)])
        client.publish(self._place.topic("status"), self._status(True), qos=1, retain=True)
        if self._newest is not None:
            self._newest.refresh()
        for on_up in self._on_up:
            on_up()

    def _went_down(self) -> None:
        self._sender.reset()

    def _due(self, now_ns: int) -> None:
        self._send(now_ns)
        self._tell_newest(now_ns)

    def _wait_s(self, most_s: float) -> float:
        return self._sender.wait_s(self._clock.monotonic_ns(), most_s)

    def _after_exchange(self) -> None:
        self._take_acks()

    def _status(self, online: bool) -> bytes:
        return json.dumps({"online": online, "boot_id": self._boot_id}).encode()

    # ── sending and receiving ───────────────────────────────────────────────────────────────────────────────────────

    def _send(self, now_ns: int) -> None:
        if self._quarantined_ns and now_ns - self._quarantined_ns > QUARANTINE_S * 1e9:
            self._quarantined_ns = 0
            self._sender.send_again()
        self._sender.send(now_ns, lambda payload: self._publish("events", payload))

    def _publish(self, leaf: str, payload: bytes, retain: bool = False) -> int:
        assert self._client is not None
        return self._client.publish(self._place.topic(leaf), payload, qos=1, retain=retain).mid

    def publish(self, leaf: str, payload: bytes, retain: bool = False) -> bool:
        """A message that needs no outbox; False while there is no connection."""
        if self.connected:
            self._publish(leaf, payload, retain)
        return self.connected

    def set_line(self, line: LineSettings) -> None:
        """Other settings of the line, from now on; the keepalive of a metered line from the next connection on."""
        self._sender.set(line, self._clock.monotonic_ns())

    @property
    def line(self) -> LineSettings:
        return self._sender.settings

    @property
    def sent_bytes(self) -> int:
        """Of batches, with the headers below them, since the start."""
        return self._sender.sent_bytes

    def _on_publish(self, client: mqtt.Client, _: Any, mid: int, reason: Any, properties: Any) -> None:
        """The broker's own answer: it means nothing for delivery, unless it is a refusal (MQTT 5, 128 and above)."""
        if not getattr(reason, "is_failure", False):
            return
        batch = self._sender.refused(mid)
        if batch is None:
            return
        self.counts["refusals"] += 1
        if not self._quarantined_ns:
            self._quarantined_ns = self._clock.monotonic_ns()
            body = {"reason": str(reason), "records": {s: list(span) for s, span in batch.spans.items()}}
            self._outbox.append("fault", "batch_refused", body | {"again_in_s": QUARANTINE_S})
        log.say(logging.WARNING, "the broker refused a batch; it is kept and sent again later", reason=str(reason))

    def _on_subscribe(self, client: mqtt.Client, _: Any, mid: int, reasons: Any, properties: Any) -> None:
        """A refusal (MQTT 5, or 0x80 of 3.1.1) is told once: without acknowledgements nothing leaves the outbox."""
        refused = sorted({str(reason) for reason in reasons if reason.is_failure})
        if not refused or self._subscription_told:
            return
        self._subscription_told = True
        self.counts["refusals"] += 1
        self._outbox.append("fault", "subscription_refused", {"reasons": refused})
        log.say(logging.WARNING, "the broker refuses a subscription", reasons=", ".join(refused))

    def _tell_newest(self, now_ns: int) -> None:
        """Plain messages wait for the batches: none is added while there is something to write."""
        if self._newest is not None and self._client is not None and not self.wants_write:
            for topic, payload in self._newest.due(now_ns):
                self._client.publish(topic, payload, qos=0, retain=True)

    def _on_message(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        leaf = message.topic.rpartition("/")[2]
        if message.topic != self._place.topic(leaf if leaf in self._leaves else "ack"):
            return
        if leaf in self._leaves:
            self._leaves[leaf](bytes(message.payload))
            return
        try:
            ack = decode_ack(bytes(message.payload))
        except ValueError as error:
            log.say(logging.WARNING, "an acknowledgement could not be read", reason=str(error))
            return
        self._acks.append(ack)
        if ack.chain == self._outbox.chain:
            self._on_ack(ack, self._clock.monotonic_ns())

    def _take_acks(self) -> None:
        """All that have come, as one."""
        chain = self._outbox.chain
        acks, self._acks = [a for a in self._acks if a.chain == chain], []  # others: for what was here before
        committed: dict[str, int] = {}
        for ack in acks:
            committed |= {s: n for s, n in ack.committed.items() if n > committed.get(s, 0)}
        if committed:
            self.counts["acknowledged"] += self._outbox.ack(committed)
        if acks:
            self._sender.acknowledged(committed, acks[-1].islands, self._clock.monotonic_ns())
        shed = max((ack.shed for ack in acks), default=0)
        if shed > self._shed_told and self._outbox.chain == chain:
            self._outbox.confirm_shed(shed)
            self._shed_told = shed
