"""Ingest: MQTT to the store, and acknowledgements back.

- The network thread reads messages and puts them into a bounded queue; one worker thread commits and acknowledges: while
  it waits for the disk, the next messages are read.
- Messages that wait share one commit, live ones before those of a backlog (`waiting`).
- An acknowledgement is published after the commit that it stands for, never before; the broker, too, gets its PUBACK only
  then, so that a worker that dies leaves what it had to the others.
- What finds no room in the queue, and what cannot be committed, is not acknowledged: the device sends it again.
- Several workers share the Events: each gets its part from the broker (`$share`); status messages go to all of them.
- A broker that goes away is dialled again, with growing pauses; one that speaks MQTT 3.1.1 only is found out at the
  first connection and remembered.
"""

from __future__ import annotations

import logging
import queue
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from cloud.messages import Batch, Connected, Item, Rejection, read_message
from cloud.store.writer import Writer
from cloud.store.writing import Acks
from cloud.waiting import Message, Waiting
from edge_runtime import log
from edge_runtime.exposition import Times
from edge_runtime.mqtt_access import Access, BrokerAccess
from edge_runtime.mqtt_client import PromptClient
from edge_runtime.wire.batch import encode_ack
from edge_runtime.wire.topics import subscription

PROTOCOLS = (MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311)
GROUP = "$share/gudgeon-ingest/"
QUEUE_MESSAGES = 500
UNDER_WAY = 200  # that a broker may send without a PUBACK
FULL_WAIT_S = 1.0
KEEPALIVE_S = 30
CONNECT_TIMEOUT_S = 5.0
PAUSE_FIRST_S = 0.1
PAUSE_LIMIT_S = 5.0
STORE_PAUSE_S = 0.5
COMMIT_EDGES_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
REFUSED = "the broker refuses the connection"


class Ingest:
    """`start`, then `stop`. `embedded`: the broker is ours; it knows only MQTT 3.1.1, has no shared subscriptions and forgets
    who is online. `counts` (connections, messages, events, commits, rejected, dropped, not_committed, not_confirmed),
    `rejections` by class and `commit_times` are for tests and metrics."""

    def __init__(
        self, writer: Writer, host: str, port: int, access: BrokerAccess | None = None, embedded: bool = False
    ) -> None:
        self._writer, self._host, self._port, self._embedded = writer, host, port, embedded
        self._protocols = PROTOCOLS[1:] if embedded else PROTOCOLS
        self._access = Access(access or BrokerAccess())
        self._queue: queue.Queue[Message | None] = queue.Queue(QUEUE_MESSAGES)
        self._waiting = Waiting()
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._client: mqtt.Client | None = None
        self._protocol = 0
        self._proven = False
        self._threads = [
            threading.Thread(target=self._keep_connected, name="ingest-connect", daemon=True),
            threading.Thread(target=self._work, name="ingest-worker", daemon=True),
        ]
        self.connected = threading.Event()
        self.counts: Counter[str] = Counter()
        self.rejections: Counter[str] = Counter()
        self.commit_times = Times(COMMIT_EDGES_S)

    @property
    def is_connected(self) -> bool:
        return self.connected.is_set()

    @property
    def waiting(self) -> int:
        """Messages that are not committed yet."""
        return self._queue.qsize() + len(self._waiting)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Leave the broker, commit what has arrived, end."""
        self._stopping.set()
        self._ended.set()
        self._threads[0].join()
        self._queue.put(None)
        self._threads[1].join()

    # ── the connection ──────────────────────────────────────────────────────────────────────────────────────────────

    def _keep_connected(self) -> None:
        failures = 0  # in a row
        while not self._stopping.is_set():
            reason = self._connect_once()
            failures = 0 if self.connected.is_set() else failures + 1
            self.connected.clear()
            if self._stopping.is_set():
                return
            if not self._proven and reason == REFUSED:
                self._protocol = (self._protocol + 1) % len(self._protocols)
                if self._protocol != 0:
                    continue  # at once with the other version; a pause after all of them
            if failures <= 1:
                where = f"{self._host}:{self._port}"
                log.say(logging.WARNING, "no connection to the broker; trying again", broker=where, reason=reason)
            self._stopping.wait(random.uniform(0.5, 1.0) * min(PAUSE_LIMIT_S, PAUSE_FIRST_S * 2.0 ** min(failures, 10)))

    def _connect_once(self) -> str:
        """Connect and stay until the connection ends; why it ended."""
        self._ended.clear()
        client = self._make_client(self._protocols[self._protocol])
        try:
            client.connect(self._host, self._port, KEEPALIVE_S, properties=self._properties())
        except (OSError, ValueError) as error:
            return str(error)
        self._client = client
        client.loop_start()
        if not self._stopping.is_set():
            deadline = None if self.connected.wait(0) else CONNECT_TIMEOUT_S
            self._wait_for_end(deadline)
        client.disconnect()
        client.loop_stop()
        self._client = None
        return "the broker closed the connection" if self.connected.is_set() else REFUSED

    def _properties(self) -> Properties | None:
        if self._protocols[self._protocol] is not MQTTProtocolVersion.MQTTv5:
            return None
        found = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        found.ReceiveMaximum = UNDER_WAY
        return found

    def _wait_for_end(self, deadline_s: float | None) -> None:
        if not self._ended.wait(deadline_s) and self.connected.is_set():
            self._ended.wait()

    def _make_client(self, protocol: MQTTProtocolVersion) -> mqtt.Client:
        client = PromptClient(
            CallbackAPIVersion.VERSION2,
            client_id=f"gudgeon-cloud-{secrets.token_hex(4)}",
            clean_session=None if protocol is MQTTProtocolVersion.MQTTv5 else True,
            protocol=protocol,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self._access.apply(client)
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    def _on_connect(self, client: mqtt.Client, _: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            return  # the end of the connection follows
        self._proven = True
        if self._embedded:
            self._queue.put(Message(Connected()))
        events = subscription("events") if self._embedded else GROUP + subscription("events")
        client.subscribe([(events, 1), (subscription("status"), 1)])

    def _on_subscribe(self, client: mqtt.Client, _: Any, mid: int, reasons: Any, properties: Any) -> None:
        if any(r.is_failure for r in reasons):
            log.say(logging.ERROR, "the broker refuses the subscription", broker=f"{self._host}:{self._port}")
            self._ended.set()
            return
        self.connected.set()
        self.counts["connections"] += 1
        protocol = "5" if self._protocols[self._protocol] is MQTTProtocolVersion.MQTTv5 else "3.1.1"
        log.say(logging.INFO, "ingest connected", broker=f"{self._host}:{self._port}", protocol=protocol)

    def _on_disconnect(self, *_: Any) -> None:
        self._ended.set()

    def _on_message(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        received_ns = time.time_ns()
        try:
            item = self._read(message.topic, bytes(message.payload))
            self._queue.put(Message(item, client, message.mid, message.qos, received_ns), timeout=FULL_WAIT_S)
        except queue.Full:
            self.counts["dropped"] += 1
            client.ack(message.mid, message.qos)
        except UnicodeDecodeError:  # paho decodes the topic here
            self.counts["rejected"] += 1
            self.rejections["topic"] += 1
            client.ack(message.mid, message.qos)

    # ── the worker ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        waiting, last = self._waiting, False
        while not last or waiting:
            if not waiting:
                last = self._add(waiting, self._queue.get()) or last
            while len(waiting) < QUEUE_MESSAGES and not self._queue.empty():
                last = self._add(waiting, self._queue.get_nowait()) or last
            if waiting:
                taken = waiting.take(time.monotonic())
                self._publish(self._commit([m.item for m in taken]), taken)
                for message in taken:
                    message.done = True
                self._confirm(waiting)

    def _add(self, waiting: Waiting, message: Message | None) -> bool:
        """True for the word that no more will come."""
        if message is None:
            return True
        waiting.add(message)
        return False

    def _read(self, topic: str, payload: bytes) -> Item:
        self.counts["messages"] += 1
        item = read_message(topic, payload)
        if isinstance(item, Rejection):
            self.counts["rejected"] += 1
            self.rejections[item.kind] += 1
            log.say(logging.WARNING, "a message was rejected", topic=item.topic, reason=item.reason)
        return item

    def _commit(self, items: Sequence[Item]) -> Acks:
        """All in one transaction; if that fails each alone, so that one bad message does not hold up the others."""
        begun_s = time.perf_counter()
        try:
            acks = self._writer.commit(items, time.time_ns())
        except Exception as error:  # whatever a message holds, the worker goes on
            if len(items) == 1:
                self.counts["not_committed"] += 1
                log.say(
                    logging.ERROR, "a message could not be stored; the device will send it again", reason=str(error)
                )
                self._stopping.wait(STORE_PAUSE_S)
                return []
            return [ack for item in items for ack in self._commit([item])]
        self.commit_times.add(time.perf_counter() - begun_s)
        self.counts["commits"] += 1
        self.counts["events"] += sum(len(item.events) for item in items if isinstance(item, Batch))
        return acks

    def _publish(self, acks: Acks, taken: Sequence[Message]) -> None:
        client = self._client
        received_ns = {
            (m.item.place, m.item.checkpoint.counter): m.received_ns for m in taken if isinstance(m.item, Batch)
        }
        for place, ack in acks:
            if client is not None:
                came_ns = received_ns.get((place, ack.counter), ack.received_ns)
                told = replace(ack, received_ns=came_ns, now_ns=time.time_ns())
                client.publish(place.topic("ack"), encode_ack(told), qos=1)

    def _confirm(self, waiting: Waiting) -> None:
        """The broker's PUBACK, over the connection that the message came by: on another its number means nothing."""
        for message in waiting.confirmed():
            client = self._client
            if client is not message.via or client.ack(message.mid, message.qos) != mqtt.MQTT_ERR_SUCCESS:
                self.counts["not_confirmed"] += 1
