"""The embedded broker: versions are told at once, strangers disturb nobody, the last will is kept."""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import Iterator
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from cloud.broker import EmbeddedBroker
from cloud.mqtt_hello import REFUSAL_3, REFUSAL_5, read_hello
from cloud.sockets import listen, port_of
from cloud.tests.made import PLACE, WAIT_S


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    sock = listen("127.0.0.1", 0, "broker.port")
    started = EmbeddedBroker(sock)
    found = port_of(sock)
    started.start()
    yield found
    started.stop()


def client(name: str, protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311) -> mqtt.Client:
    return mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=protocol, reconnect_on_failure=False)


def test_mqtt_5_with_a_last_will_is_refused_at_once_and_says_why(port: int) -> None:
    told: queue.Queue[Any] = queue.Queue()
    five = client("five", MQTTProtocolVersion.MQTTv5)
    five.will_set(PLACE.topic("status"), b"{}", qos=1, retain=True)
    five.on_connect = lambda c, u, f, reason, p: told.put(reason)
    five.connect("127.0.0.1", port)
    five.loop_start()
    assert told.get(timeout=WAIT_S) == "Unsupported protocol version"
    five.loop_stop()


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x0a\x00\x00", REFUSAL_3),
        (b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x00", REFUSAL_5),
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (b"\x10\xff\xff\xff\xff\xff", b""),
        (b"\x10\x20\x00\xff", b""),
    ],
)
def test_what_is_not_mqtt_311_is_answered_and_closed(port: int, sent: bytes, answer: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as stranger:
        stranger.sendall(sent)
        found = b""
        try:
            while more := stranger.recv(64):
                found += more
        except ConnectionResetError:
            pass
    assert found == answer


def test_a_hello_may_arrive_byte_by_byte() -> None:
    hello = b"\x10\x80\x01\x00\x04MQTT\x04"

    async def trickle() -> tuple[bytes, int]:
        reader = asyncio.StreamReader()
        task = asyncio.create_task(read_hello(reader))
        for byte in hello:
            reader.feed_data(bytes([byte]))
            await asyncio.sleep(0)
        return await task

    assert asyncio.run(trickle()) == (hello, 4)


def test_the_last_will_is_kept_for_those_who_come_later(port: int) -> None:
    dying = client("dying")
    topic = PLACE.topic("status")
    dying.will_set(topic, b"gone", qos=1, retain=True)
    up = threading.Event()
    dying.on_connect = lambda *_: up.set()
    dying.connect("127.0.0.1", port)
    dying.loop_start()
    assert up.wait(WAIT_S)
    sock = dying.socket()
    assert isinstance(sock, socket.socket)
    sock.shutdown(socket.SHUT_RDWR)
    dying.loop_stop()
    told: queue.Queue[tuple[bytes, bool]] = queue.Queue()
    later = client("later")
    later.on_message = lambda c, u, m: told.put((bytes(m.payload), m.retain))
    later.on_connect = lambda c, *_: c.subscribe(topic, 1)
    later.connect("127.0.0.1", port)
    later.loop_start()
    assert told.get(timeout=WAIT_S)[0] == b"gone"
    later.disconnect()
    later.loop_stop()


def test_a_client_gets_no_retained_message_that_it_did_not_ask_for(port: int) -> None:
    kept = PLACE.topic("status")
    to_curious: queue.Queue[str] = queue.Queue()
    to_quiet: queue.Queue[str] = queue.Queue()
    curious, quiet = client("curious"), client("quiet")
    curious.on_connect = lambda c, *_: c.subscribe("v1/#", 1)
    curious.on_subscribe = lambda c, *_: c.publish(kept, b"kept", qos=1, retain=True)
    curious.on_message = lambda c, u, m: to_curious.put(m.topic)
    curious.connect("127.0.0.1", port)
    curious.loop_start()
    assert to_curious.get(timeout=WAIT_S) == kept
    quiet.on_connect = lambda c, *_: c.subscribe("own/#", 1)
    quiet.on_subscribe = lambda c, *_: c.publish("own/last", b"1", qos=1)
    quiet.on_message = lambda c, u, m: to_quiet.put(m.topic)
    quiet.connect("127.0.0.1", port)
    quiet.loop_start()
    assert to_quiet.get(timeout=WAIT_S) == "own/last"
    for one in (curious, quiet):
        one.disconnect()
        one.loop_stop()


def test_the_same_client_back_at_once_takes_over(port: int) -> None:
    """A device whose process was killed dials again before the broker has seen the old connection end."""
    kept = []
    for _ in range(5):
        up = threading.Event()
        again = client("same")
        again.on_connect = lambda *_, up=up: up.set()
        again.connect("127.0.0.1", port)
        again.loop_start()
        assert up.wait(WAIT_S)
        kept.append(again)
    for one in kept:
        one.disconnect()
        one.loop_stop()
