"""Devices at a real Mosquitto by their certificates: nobody speaks or hears for another; who is revoked is out in a minute."""

from __future__ import annotations

import queue
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from sqlalchemy import Engine

from cloud.ca.local import LocalAuthority
from cloud.devices.broker_files import CONF, BrokerFiles
from cloud.devices.cutting import Cutting, Sessions
from cloud.devices.tests.listening import WAIT_S, Listening, exchange, listening
from cloud.serving import make_ingest
from cloud.settings import BrokerSection
from cloud.sockets import listen, port_of
from cloud.store import queries
from cloud.tests.databases import empty_store, writer_of
from edge_runtime.clock import SystemClock
from edge_runtime.config import BrokerSection as DeviceBroker
from edge_runtime.config import DeviceConfig, DeviceSection
from edge_runtime.identity.credentials import CredentialStore
from edge_runtime.link.access import FloorAccess
from edge_runtime.link.time_floor import TimeFloor
from edge_runtime.link.uplink import Uplink
from edge_runtime.outbox.store import Outbox
from tools.chaos.pair import mosquitto

pytestmark = pytest.mark.skipif(mosquitto() is None, reason="needs mosquitto: make setup-cloud")
LIMIT_S = 60.0


class Bench:
    """A cloud, its broker, and devices with certificates."""

    def __init__(self, engine: Engine, cloud: Listening, stack: ExitStack) -> None:
        self.engine, self.cloud = engine, cloud
        with listen("127.0.0.1", 0, "") as one, listen("127.0.0.1", 0, "") as other:
            broker = BrokerSection(
                embedded=False, port=port_of(one), username="cloud", password_file=cloud.folder / "broker-password"
            )
            devices = replace(cloud.settings.devices, broker_folder=cloud.folder / "broker", broker_port=port_of(other))
        self.settings = replace(cloud.settings, broker=broker, devices=devices)
        self.files = BrokerFiles(self.settings, cloud.desk)
        self.files.write()
        command = [str(mosquitto()), "-c", str(self.files.folder / CONF)]
        process = stack.enter_context(subprocess.Popen(command, stderr=(cloud.folder / "broker.log").open("w")))
        stack.callback(process.kill)
        self.ingest = make_ingest(self.settings, writer_of(engine), broker.port)
        self.ingest.start()
        stack.callback(self.ingest.stop)
        assert self.ingest.connected.wait(WAIT_S)

    def device(self, name: str) -> DeviceConfig:
        state = self.cloud.folder / name
        store = CredentialStore(state, name)
        token = self.cloud.desk.make_token(name, "hw", timedelta(hours=1))
        given = self.cloud.desk.enrol(token.sent, "hw", store.key().request(name))
        store.adopt(given, store.key(), False, time.time_ns(), lambda _: None)
        broker = DeviceBroker(host="localhost", port=self.settings.devices.broker_port, tls=True, enrolled=True)
        return DeviceConfig(DeviceSection(name, state), broker=broker)

    def client(self, device: DeviceConfig, client_id: str = "") -> Client:
        return Client(device, client_id or f"gudgeon-{device.device.id}")


class Client:
    """A plain MQTT 5 client with the certificate of a device; what the broker tells it."""

    def __init__(self, device: DeviceConfig, client_id: str) -> None:
        self.told: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.mqtt = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        FloorAccess(device.broker_access, floor(device)).apply(self.mqtt)
        self.mqtt.on_connect = lambda _, __, flags, reason, ___: self.told.put(("connected", str(reason)))
        self.mqtt.on_disconnect = lambda *_: self.told.put(("gone", None))
        self.mqtt.on_publish = lambda _, __, mid, reason, ___: self.told.put(("published", str(reason)))
        self.mqtt.on_subscribe = lambda *_: self.told.put(("subscribed", None))
        self.mqtt.on_message = lambda _, __, message: self.told.put(("got", message.topic))
        self.mqtt.connect(device.broker.host, device.broker.port)
        self.mqtt.loop_start()

    def next(self) -> tuple[str, Any]:
        return self.told.get(timeout=WAIT_S)

    def skip_got(self, own: str) -> tuple[str, Any]:
        """The next that is no message; all messages until then are this device's own."""
        while (told := self.next())[0] == "got":
            assert f"/{own}/" in told[1]
        return told

    def close(self) -> None:
        self.mqtt.disconnect()
        self.mqtt.loop_stop()


def floor(device: DeviceConfig) -> TimeFloor:
    return TimeFloor(device.device.state_dir / "trusted_time.json", SystemClock())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with empty_store("sqlite", tmp_path) as engine, listening(engine, tmp_path) as cloud, ExitStack() as stack:
        yield Bench(engine, cloud, stack)


def test_a_device_neither_speaks_nor_hears_for_another_and_cannot_take_its_session(bench: Bench) -> None:
    a_device, b_device = bench.device("a"), bench.device("b")
    a, b = bench.client(a_device), bench.client(b_device)
    assert (a.next(), b.next()) == (("connected", "Success"), ("connected", "Success"))
    own, other = a_device.place, b_device.place
    for topic, told in ((own.topic("status"), "Success"), (other.topic("events"), "Not authorized"),
                        (other.topic("status"), "Not authorized"), (own.topic("command"), "Not authorized")):  # fmt: skip
        a.mqtt.publish(topic, b'{"online": true, "boot_id": "x"}', qos=1)
        assert a.next() == ("published", told), topic
    for client in (a, b):
        client.mqtt.subscribe([("v1/+/+/+/+/+/+/ack", 1), (other.topic("command"), 1), ("#", 1)])
        assert client.next()[0] == "subscribed"
    speak = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    Sessions(bench.settings.broker)._access.apply(speak)
    speak.connect("127.0.0.1", bench.settings.broker.port)
    speak.loop_start()
    for leaf in ("ack", "command"):
        speak.publish(other.topic(leaf), b"{}", qos=1).wait_for_publish(WAIT_S)
    speak.publish(own.topic("ack"), b"{}", qos=1)
    assert {b.next()[1], b.next()[1]} <= {other.topic("ack"), other.topic("command")}
    assert a.next() == ("got", own.topic("ack")), "the first thing that it hears is its own"
    thief = bench.client(a_device, client_id="b")
    assert thief.next() == ("connected", "Success")
    assert a.skip_got("a")[0] == "gone", "it has taken its own session"
    b.mqtt.publish(other.topic("status"), b'{"online": true, "boot_id": "x"}', qos=1)
    assert b.skip_got("b") == ("published", "Success"), "the other one has kept its own"
    for client in (thief, b):
        client.close()
    speak.disconnect()
    speak.loop_stop()


def let_in(bench: Bench, device: DeviceConfig) -> bool:
    try:
        client = bench.client(device)
    except (ssl.SSLError, ConnectionError):
        return False
    told = client.next()
    client.close()
    return told == ("connected", "Success")


def make_link(device: DeviceConfig, name: str = "") -> tuple[Uplink, Outbox]:
    """`name`: another than that in the certificate."""
    outbox = Outbox(device.device.state_dir / "outbox.db", device.device.id, "boot1")
    place = replace(device.place, device=name or device.device.id)
    access = FloorAccess(device.broker_access, floor(device))
    host, port, key = device.broker.host, device.broker.port, Ed25519PrivateKey.generate()
    uplink = Uplink(place, "boot1", host, port, outbox, key, access=access)
    return uplink, outbox


@pytest.mark.slow
def test_our_link_delivers_and_a_revocation_cuts_session_and_http_within_a_minute(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    device = bench.device("a")
    uplink, outbox = make_link(device)
    outbox.append("decision", "decision", {"result": 1})
    assert uplink.drain(WAIT_S), "stored and acknowledged"
    assert len(queries.events(bench.engine, {})) == 1
    store = CredentialStore(device.device.state_dir, "a")
    https = bench.cloud.open()
    https._context = store.current().context()  # type: ignore[attr-defined]
    path = "/device/v1/devices/a/certificate"
    assert exchange(https, "GET", path).status == 200

    cutting = Cutting(bench.engine, bench.files, Sessions(bench.settings.broker).cut, time.time_ns)
    cutting.start()
    began_s = time.monotonic()
    bench.cloud.desk.revoke("a", "stolen")
    refused = exchange(https, "GET", path)
    http_s = time.monotonic() - began_s
    while uplink.connected and time.monotonic() - began_s < LIMIT_S:
        uplink.turn()
    broker_s = time.monotonic() - began_s
    cutting.stop()
    assert (refused.status, refused.detail) == (403, "a was revoked (stolen)")
    assert not uplink.connected
    with capsys.disabled():
        print(f"\nrevoked: HTTP refused after {http_s:.3f} s, the broker's session cut after {broker_s:.1f} s")
    assert [let_in(bench, device) for _ in range(3)] == [False] * 3


def test_a_link_that_takes_another_name_is_refused_and_the_refusal_is_an_event(bench: Bench) -> None:
    uplink, outbox = make_link(bench.device("a"), name="b")
    outbox.append("decision", "decision", {"result": 1})
    deadline_s = time.monotonic() + WAIT_S
    while (told := outbox.last("fault")) is None and time.monotonic() < deadline_s:
        uplink.turn()
    assert told is not None
    assert (told.kind, told.body["reason"]) == ("batch_refused", "Not authorized")
    assert queries.events(bench.engine, {}) == []


def test_a_device_of_another_issuer_is_let_in_as_soon_as_the_cloud_has_seen_it(bench: Bench) -> None:
    """Mosquitto asks for a CRL of each issuer: without one it lets none of its certificates in."""
    cutting = Cutting(bench.engine, bench.files, Sessions(bench.settings.broker).cut, time.time_ns)
    before = bench.device("a")
    authority = bench.cloud.side.authority
    assert isinstance(authority, LocalAuthority)
    authority.new_issuer(datetime.now(UTC))
    after = bench.device("b")
    assert (let_in(bench, before), let_in(bench, after)) == (True, False)
    cutting.look()
    deadline_s = time.monotonic() + WAIT_S
    while not let_in(bench, after):
        assert time.monotonic() < deadline_s
    assert let_in(bench, before)
