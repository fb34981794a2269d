"""Events, messages and a device for the tests."""

from __future__ import annotations

import queue
import socket
from collections.abc import Iterable
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge_runtime.wire.envelope import Event, decode_ack, encode_batch
from edge_runtime.wire.topics import Place

PLACE = Place("acme", "site1", "area1", "line1", "cell1", "dev1")
WAIT_S = 10.0


def event(seq: int, stream: str = "decision", kind: str = "decision", device: str = "dev1", **body: Any) -> Event:
    return Event(device, stream, seq, "boot", kind, seq, 1_700_000_000_000_000_000 + seq, None, body)


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


class FakeDevice:
    """An MQTT client that sends batches and takes acknowledgements."""

    def __init__(self, port: int, place: Place = PLACE) -> None:
        self.place = place
        self._acks: queue.Queue[dict[str, int]] = queue.Queue()
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

    def send(self, events: Iterable[Event]) -> dict[str, int]:
        """Publish one batch; the acknowledgement."""
        self.send_raw("events", encode_batch(events))
        return self._acks.get(timeout=WAIT_S)

    def send_raw(self, leaf: str, payload: bytes, retain: bool = False) -> None:
        self._client.publish(self.place.topic(leaf), payload, qos=1, retain=retain).wait_for_publish(WAIT_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def _no_delay(client: mqtt.Client, _: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
