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
import select
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import paho.mqtt.client as mqtt
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_runtime import log
from edge_runtime.backoff import Backoff
from edge_runtime.clock import Clock, SystemClock
from edge_runtime.identity import public_text
from edge_runtime.link.lanes import BACKLOG_BATCHES, LIVE_BATCHES, Lane
from edge_runtime.link.spread import spread_ns
from edge_runtime.mqtt_access import Access
from edge_runtime.wire.batch import Ack, Checkpoint, decode_ack, encode_batch
from edge_runtime.wire.envelope import STREAMS, Record
from edge_runtime.wire.topics import Place

CONNECT_TIMEOUT_S = 5.0
PROBE_TIMEOUT_S = 1.0  # the first try with MQTT 5: some 3.1.1 brokers never answer it
STABLE_S = 300.0  # only a connection that stood this long makes earlier failures forgotten
QUARANTINE_S = 600.0
IDLE_S = 0.5
PACK_FROM_BYTES = 1024
PROTOCOLS = (MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311)


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


class Uplink:
    """`turn` does what is to be done and waits at most `IDLE_S` for the broker or for `wake`, a local socket."""

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
    ) -> None:
        self._place, self._boot_id, self._host, self._port = place, boot_id, host, port
        self._outbox, self._wake, self._keepalive_s = outbox, wake, keepalive_s
        self._clock, self._backoff = clock or SystemClock(), backoff or uplink_backoff()
        self._access = access
        self._protocol = 0
        self._protocol_proven = False
        self._client: mqtt.Client | None = None
        self._retry_ns = self._connecting_ns = self._lost_ns = 0
        self.reconnect_spread_s = reconnect_spread_s
        self._sign: Callable[[bytes], bytes] = key.sign
        self._public_key = public_text(key)
        self._acks: list[Ack] = []
        self._shed_told = 0
        self._said = ""
        self.live, self.backlog = Lane(LIVE_BATCHES), Lane(BACKLOG_BATCHES)
        self._lanes = (self.live, self.backlog)
        self._live_from: dict[str, int] = {}
        self._up_ns = self._quarantined_ns = 0
        #: since the start: connections, failures, batches, records, bytes, acknowledged, refusals
        self.counts: Counter[str] = Counter()
        self.connected = False

    @property
    def retry_s(self) -> float:
        """How long until the next try to connect; 0 while connected or trying."""
        waits_ns = self._retry_ns - self._clock.monotonic_ns()
        return max(0.0, waits_ns / 1e9) if self._client is None else 0.0

    def turn(self) -> None:
        if self.advance() is None:
            self._sleep()
        else:
            self._exchange()

    def advance(self) -> int | None:
        """Dial, or send what is due; never waits for an answer. The file descriptor to be watched, None while there is no
        connection: then nothing is due before `retry_ns`. For a loop over many: `advance`, wait, `exchange`."""
        if self._client is None and not self._connect():
            return None
        now_ns = self._clock.monotonic_ns()
        limit_s = CONNECT_TIMEOUT_S if self._protocol_proven or self._backoff.tries else PROBE_TIMEOUT_S
        if not self.connected and now_ns - self._connecting_ns > limit_s * 1e9:
            self._lost("no CONNACK")
        elif self.connected:
            self._send(now_ns)
        if self._client is None:
            return None
        sock = self._client.socket()
        if sock is None:
            self._lost("the broker closed the connection")
            return None
        return sock.fileno()

    @property
    def retry_ns(self) -> int:
        return self._retry_ns

    @property
    def wants_write(self) -> bool:
        return self._client is not None and self._client.want_write()

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

    # ── connecting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _connect(self) -> bool:
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._retry_ns:
            return False
        client = self._make_client(PROTOCOLS[self._protocol])
        try:
            client.connect(self._host, self._port, self._keepalive_s)
        except (OSError, ValueError) as error:
            self._client = None
            self._later(f"{error}")
            return False
        self._client = client
        self._connecting_ns = now_ns
        return True

    def _make_client(self, protocol: MQTTProtocolVersion) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"gudgeon-{self._place.device}",
            clean_session=None if protocol is MQTTProtocolVersion.MQTTv5 else True,
            protocol=protocol,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        if self._access is not None:
            self._access.apply(client)
        client.will_set(self._place.topic("status"), self._status(False), qos=1, retain=True)
        client.on_socket_open = _no_delay
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client

    def _on_connect(self, client: mqtt.Client, _: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            return  # the broker closes the connection; the next turn sees it
        self._protocol_proven = self.connected = True
        self.counts["connections"] += 1
        self._up_ns = self._clock.monotonic_ns()
        self._live_from = {stream: self._outbox.head(stream) for stream in STREAMS}
        for lane in self._lanes:
            lane.reset()
        client.subscribe(self._place.topic("ack"), qos=1)
        client.publish(self._place.topic("status"), self._status(True), qos=1, retain=True)
        self._say(logging.INFO, "connected", protocol="5" if self._protocol == 0 else "3.1.1")

    def _lost(self, reason: str) -> None:
        """Close; the other protocol version is tried at once if this one never worked."""
        was_connected, self.connected, client, self._client = self.connected, False, self._client, None
        if client is not None:
            sock = client.socket()
            if sock is not None:
                sock.close()
        now_ns = self._clock.monotonic_ns()
        if was_connected and now_ns - self._up_ns >= STABLE_S * 1e9:
            self._lost_ns = now_ns  # until then the windows go on as they were: one dial in each, also when kicked
            self._backoff.reset()
        for lane in self._lanes:
            lane.reset()
        if not was_connected and not self._protocol_proven:
            self._protocol = 1 - self._protocol
            if self._protocol == 1:
                return
        self._later(reason)

    def _later(self, reason: str) -> None:
        self.counts["failures"] += 1
        earliest_ns = self._clock.monotonic_ns() + round(self._backoff.next_s() * 1e9)
        self._lost_ns = self._lost_ns or self._clock.monotonic_ns()
        self._retry_ns = spread_ns(self._place.device, self.reconnect_spread_s, self._lost_ns, earliest_ns)
        self._say(logging.WARNING, "no connection to the broker; trying again", reason=reason)

    def _say(self, level: int, message: str, **fields: Any) -> None:
        """Once for each change, so that a night without a broker does not fill the log."""
        said = f"{message} {fields.get('reason', '')}"
        if said != self._said:
            self._said = said
            log.say(level, message, broker=f"{self._host}:{self._port}", **fields)

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
        self.counts.update(batches=1, records=len(records), bytes=len(payload))
        return True

    def _on_publish(self, client: mqtt.Client, _: Any, mid: int, reason: Any, properties: Any) -> None:
        """The broker's own answer: it means nothing for delivery, unless it is a refusal (MQTT 5, 128 and above)."""
        if not getattr(reason, "is_failure", False):
            return
        batch = next((b for lane in self._lanes if (b := lane.refused(mid)) is not None), None)
        if batch is None:
            return
        self.counts["refusals"] += 1
        if not self._quarantined_ns:
            self._quarantined_ns = self._clock.monotonic_ns()
            body = {"reason": str(reason), "records": {s: list(span) for s, span in batch.spans.items()}}
            self._outbox.append("fault", "batch_refused", body | {"again_in_s": QUARANTINE_S})
        log.say(logging.WARNING, "the broker refused a batch; it is kept and sent again later", reason=str(reason))

    def _exchange(self, timeout_s: float = IDLE_S) -> None:
        """Wait for the broker or for a poke; read and write what is due."""
        sock = self._client.socket() if self._client is not None else None
        if sock is None:
            self._lost("the broker closed the connection")
            return
        buffered = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0  # read from the socket, not yet from TLS
        watch = select.poll()  # not select(): this process may have more than 1024 files open
        watch.register(sock, select.POLLIN | (select.POLLOUT if self.wants_write else 0))
        if self._wake:
            watch.register(self._wake, select.POLLIN)
        ready = dict(watch.poll(0 if buffered else 1000 * timeout_s))
        if self._wake and self._wake.fileno() in ready:
            drain_wake(self._wake)
        state = ready.get(sock.fileno(), 0)
        self.exchange(buffered or bool(state & ~select.POLLOUT), bool(state & select.POLLOUT))

    def exchange(self, readable: bool, writable: bool) -> None:
        """Read and write where the socket is ready for it; keep the connection alive; take what was acknowledged."""
        client = self._client
        if client is None:
            return
        codes = [client.loop_misc()]
        if readable:
            codes.append(client.loop_read())
        if writable:
            codes.append(client.loop_write())
        failed = next((c for c in codes if c != mqtt.MQTT_ERR_SUCCESS), None)
        if failed is not None or client.socket() is None:
            self._lost(mqtt.error_string(failed) if failed is not None else "the broker closed the connection")
        else:
            self._take_acks()

    def _on_message(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic != self._place.topic("ack"):
            return
        try:
            ack = decode_ack(bytes(message.payload))
        except ValueError as error:
            log.say(logging.WARNING, "an acknowledgement could not be read", reason=str(error))
            return
        self._acks.append(ack)

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
            now_ns = self._clock.monotonic_ns()
            for lane in self._lanes:
                lane.acknowledged(committed, acks[-1].islands, now_ns)
        shed = max((ack.shed for ack in acks), default=0)
        if shed > self._shed_told and self._outbox.chain == chain:
            self._outbox.confirm_shed(shed)
            self._shed_told = shed

    def _sleep(self) -> None:
        wait_s = max(0.0, min(IDLE_S, (self._retry_ns - self._clock.monotonic_ns()) / 1e9))
        if self._wake is None:
            self._clock.sleep(wait_s)
        elif select.select([self._wake], [], [], wait_s)[0]:
            drain_wake(self._wake)
            self._clock.sleep(wait_s / 2)


def uplink_backoff() -> Backoff:
    """Quick at first, for a broker that restarts; then at least half a minute, so that a fleet does not storm one that is
    down; never more than ten minutes."""
    return Backoff(0.2, 600.0, floor_s=30.0, floor_after=8)


def packed(payload: bytes) -> bytes:
    """Compressed with Zstandard where that pays."""
    if len(payload) < PACK_FROM_BYTES:
        return payload
    small = zstandard.ZstdCompressor(level=3).compress(payload)
    return small if len(small) < 0.9 * len(payload) else payload


def _no_delay(client: mqtt.Client, _: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def drain_wake(wake: socket.socket) -> None:
    """Throw away all pokes that wait."""
    try:
        while wake.recv(16):
            pass
    except OSError:
        pass
