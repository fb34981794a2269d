"""Events, messages and a device for the tests."""

from __future__ import annotations

import itertools
import queue
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import paho.mqtt.client as mqtt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from cloud.messages import Batch, read_message
from edge_runtime.identity import public_text
from edge_runtime.wire.batch import Ack, Checkpoint, decode_ack, encode_batch
from edge_runtime.wire.envelope import Event, genesis, record_hash, record_line
from edge_runtime.wire.topics import Place

PLACE = Place("acme", "site1", "area1", "line1", "cell1", "dev1")
WAIT_S = 60.0  # of all waits: a machine that stands still for some seconds is no failure
CHAIN = "c0ffee00c0ffee00"
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)


def event(seq: int, stream: str = "decision", kind: str = "decision", device: str = "dev1", **body: Any) -> Event:
    prev = genesis(device, CHAIN, stream) if seq == 1 else "0" * 64
    return Event(device, CHAIN, stream, seq, "boot", kind, seq, 1_700_000_000_000_000_000 + seq, None, prev, body)


def chained(events: Iterable[Event]) -> list[Event]:
    """The events of one outbox, each with the hash of the one before it in its stream, in the order of their numbers."""
    newest: dict[str, str] = {}
    out = []
    for e in sorted(events, key=lambda e: e.seq):
        e = e._replace(prev=newest.get(e.stream) or genesis(e.device, e.chain, e.stream))
        newest[e.stream] = record_hash(record_line(e))
        out.append(e)
    return out


counters = itertools.count(1)


def payload(
    events: Iterable[Event], floor: Mapping[str, int] | None = None, key: Ed25519PrivateKey = KEY, **more: Any
) -> bytes:
    """A signed batch."""
    found = list(events)
    device, chain = (found[0].device, found[0].chain) if found else ("dev1", CHAIN)
    checkpoint = Checkpoint(device, chain, "boot", next(counters), 1, 2, None, public_text(key), floor or {})
    return encode_batch(replace(checkpoint, **more), [record_line(e) for e in found], key.sign)


def batch(events: Iterable[Event], floor: Mapping[str, int] | None = None, place: Place = PLACE, **more: Any) -> Batch:
    item = read_message(place.topic("events"), payload(events, floor, **more))
    assert isinstance(item, Batch), item
    return item


def decision(seq: int, part_seq: int | None = None, kind: str = "decision", **more: Any) -> Event:
    """A Decision about the part `part_seq` (default: `seq`)."""
    body: dict[str, Any] = {
        "part_epoch": 0,
        "part_seq": part_seq or seq,
        "result": 1,
        "score": 0.25,
        "label": "ok",
        "reason": "below 0.5",
    }
    body |= {"latency_us": 2500, "serial": 1000 + seq, "lot": 7, "engine": "onnxruntime", "steps_us": {"infer": 900}}
    body |= more
    return event(seq, kind=kind, **body)


def until(holds: Callable[[], bool], timeout_s: float = WAIT_S) -> bool:
    """Wait for something that another thread does."""
    deadline = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds()


class FakeDevice:
    """An MQTT client that sends batches and takes acknowledgements."""

    def __init__(self, port: int, place: Place = PLACE) -> None:
        self.place = place
        self._acks: queue.Queue[Ack] = queue.Queue()
        self._subscribed: queue.Queue[bool] = queue.Queue()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=f"device-{place.device}", protocol=MQTTProtocolVersion.MQTTv311
        )
        self._client.on_socket_open = _no_delay
        self._client.on_message = lambda c, u, m: self._acks.put(decode_ack(bytes(m.payload)))
        self._client.on_subscribe = lambda *_: self._subscribed.put(True)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe(place.topic("ack"), qos=1)
        self._subscribed.get(timeout=WAIT_S)

    def send(self, events: Iterable[Event]) -> Mapping[str, int]:
        """Publish one batch; the acknowledgement."""
        self.send_raw("events", payload(events))
        return self._acks.get(timeout=WAIT_S).committed

    def send_raw(self, leaf: str, payload: bytes, retain: bool = False) -> None:
        self._client.publish(self.place.topic(leaf), payload, qos=1, retain=retain).wait_for_publish(WAIT_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def _no_delay(client: mqtt.Client, _: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
