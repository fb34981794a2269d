"""The uplink: its window as a model, and the whole of it against a real broker on the loopback."""

from __future__ import annotations

import itertools
import json
import random
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from edge_runtime.backoff import Backoff
from edge_runtime.clock import FakeClock, SystemClock
from edge_runtime.link import connection as connection_module
from edge_runtime.link.connection import uplink_backoff
from edge_runtime.link.spread import MARGIN, place_of
from edge_runtime.link.uns import Newest, encoder
from edge_runtime.link.uplink import Uplink
from edge_runtime.outbox.store import Outbox
from edge_runtime.tests.mqtt_broker import BrokerProcess
from edge_runtime.tests.waiting import PATIENCE_S, free_port, until
from edge_runtime.wire.batch import ZSTD_MAGIC, Ack, decode_batch, encode_ack
from edge_runtime.wire.envelope import Event
from edge_runtime.wire.topics import Place

PLACE = Place("acme", "site1", "area1", "line1", "cell1", "dev1")


KEY = Ed25519PrivateKey.generate()


def test_backoff_is_between_zero_and_a_ceiling_that_doubles() -> None:
    backoff = Backoff(0.2, 5.0, random.Random(1))
    for n in range(50):
        assert 0.0 <= backoff.next_s() <= min(5.0, 0.2 * 2**n)
    backoff.reset()
    assert backoff.next_s() <= 0.2


def test_the_uplinks_backoff_has_a_floor_and_a_cap() -> None:
    waits = [uplink_backoff().next_s() for _ in range(20)]
    assert max(waits) <= 0.2
    backoff = uplink_backoff()
    waits = [backoff.next_s() for _ in range(60)]
    assert all(30.0 <= w <= 600.0 for w in waits[8:])
    assert max(waits[20:]) > 300.0


class ShiftedClock(SystemClock):
    """Real time, moved forward by hand."""

    def __init__(self) -> None:
        self.ahead_ns = 0

    def monotonic_ns(self) -> int:
        return super().monotonic_ns() + self.ahead_ns


@pytest.fixture(autouse=True)
def _short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "PROBE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(connection_module, "IDLE_S", 0.1)


@pytest.fixture(scope="module")
def broker() -> Iterator[int]:
    server = BrokerProcess()
    server.start()
    yield server.port
    server.stop()


class Cloud:
    """The other side: keeps what comes, and acknowledges it when `acking`."""

    def __init__(self, port: int, acking: bool = True) -> None:
        self.acking = acking
        self.events: list[Event] = []
        self.status: list[dict[str, Any]] = []
        self.ready = threading.Event()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, "cloud", clean_session=True, protocol=mqtt.MQTTv311)
        self.client.on_connect = lambda c, *_: c.subscribe([(PLACE.topic("events"), 1), (PLACE.topic("status"), 1)])
        self.client.on_subscribe = lambda *_: self.ready.set()
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self.ready.wait(PATIENCE_S)

    def _on_message(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic.endswith("/status"):
            self.status.append(json.loads(message.payload))
            return
        payload = bytes(message.payload)
        if payload.startswith(ZSTD_MAGIC):
            payload = zstandard.ZstdDecompressor().decompress(payload, max_output_size=1 << 20)
        batch = decode_batch(payload)
        self.events += batch.events
        if self.acking:
            upto: dict[str, int] = {}
            for e in self.events:
                upto[e.stream] = max(e.seq, upto.get(e.stream, 0))
            client.publish(PLACE.topic("ack"), encode_ack(Ack(batch.checkpoint.chain, upto)), qos=1)

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def turn_until(uplink: Uplink, done: Callable[[], bool]) -> None:
    until(done, uplink.turn)


def test_events_go_out_are_acknowledged_and_leave_the_outbox(broker: int, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", "dev1", "boot")
    outbox.append_many([("decision", "decision", {"n": n}) for n in range(450)])
    cloud = Cloud(broker)
    uplink = Uplink(PLACE, "boot", "127.0.0.1", broker, outbox, KEY)
    turn_until(uplink, lambda: outbox.depth() == 0)
    assert [e.seq for e in cloud.events] == list(range(1, 451))
    outbox.append("fault", "plc_lost", {})
    assert uplink.drain(PATIENCE_S)
    assert cloud.events[-1].kind == "plc_lost"
    uplink.close()
    until(lambda: len(cloud.status) >= 2)
    assert [s["online"] for s in cloud.status] == [True, False]
    cloud.stop()


def test_what_the_cloud_does_not_confirm_is_kept_and_sent_again(broker: int, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", "dev1", "boot")
    outbox.append("decision", "decision", {})
    cloud = Cloud(broker, acking=False)
    clock = ShiftedClock()
    uplink = Uplink(PLACE, "boot", "127.0.0.1", broker, outbox, KEY, clock=clock)
    turn_until(uplink, lambda: len(cloud.events) == 1)
    assert outbox.depth() == 1
    cloud.acking = True
    clock.ahead_ns = 11_000_000_000
    turn_until(uplink, lambda: outbox.depth() == 0)
    assert [e.seq for e in cloud.events] == [1, 1]
    uplink.close()
    cloud.stop()


def test_a_broker_that_is_down_is_waited_for(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", "dev1", "boot")
    outbox.append("decision", "decision", {})
    clock = FakeClock()
    uplink = Uplink(PLACE, "boot", "127.0.0.1", free_port(), outbox, KEY, clock=clock)
    for _ in range(30):
        uplink.turn()
    assert not uplink.connected
    assert not uplink.drain(1.0)
    assert outbox.depth() == 1


@pytest.fixture
def kicking() -> Iterator[tuple[int, list[int]]]:
    """A broker that accepts and closes: its port, and a list with one item for each connection."""
    accepted: list[int] = []
    server = socket.create_server(("127.0.0.1", 0))

    def kick() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            peer.recv(4096)
            peer.sendall(b"\x20\x02\x00\x00")  # CONNACK, MQTT 3.1.1
            accepted.append(1)
            peer.close()

    threading.Thread(target=kick, daemon=True).start()
    yield server.getsockname()[1], accepted
    server.close()


def test_a_broker_that_accepts_and_kicks_is_a_failure(tmp_path: Path, kicking: tuple[int, list[int]]) -> None:
    """Its connections never stand long enough to forget the failures before."""
    port, accepted = kicking
    outbox = Outbox(tmp_path / "outbox.db", "dev1", "boot")
    clock = FakeClock()
    uplink = Uplink(PLACE, "boot", "127.0.0.1", port, outbox, KEY, clock=clock)
    uplink._protocol, uplink._protocol_proven = 1, True
    turn_until(uplink, lambda: uplink._backoff.tries == 9)
    assert len(accepted) == 9
    assert uplink.retry_s >= 30.0


def test_an_answer_that_came_while_the_process_stood_still_counts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        clock, outbox = FakeClock(), Outbox(tmp_path / "outbox.db", "dev1", "boot")
        uplink = Uplink(PLACE, "boot", "127.0.0.1", server.getsockname()[1], outbox, KEY, clock=clock)
        fd = uplink.advance()
        assert fd is not None
        with server.accept()[0] as peer:
            peer.sendall(b"\x20\x03\x00\x00\x00")  # CONNACK, MQTT 5
            assert select.select([fd], [], [], PATIENCE_S)[0]
            clock.advance(connection_module.CONNECT_TIMEOUT_S)
            assert uplink.advance() == fd
    assert uplink.connected
    assert uplink._protocol == 0


def test_who_is_kicked_dials_once_in_a_window(tmp_path: Path, kicking: tuple[int, list[int]]) -> None:
    """Also the device whose place is at the very beginning of it."""
    name = next(f"dev{i}" for i in range(10_000) if place_of(f"dev{i}") < 0.001)
    place = Place("acme", "site1", "area1", "line1", "cell1", name)
    clock, outbox = ShiftedClock(), Outbox(tmp_path / "outbox.db", name, "boot")
    uplink = Uplink(place, "boot", "127.0.0.1", kicking[0], outbox, KEY, clock=clock, reconnect_spread_s=20.0)
    uplink._protocol, uplink._protocol_proven = 1, True
    dials: list[int] = []
    while len(dials) < 4:
        drive_until(uplink, lambda: uplink._client is None and uplink.retry_ns > clock.monotonic_ns())
        dials.append(uplink.retry_ns)
        clock.ahead_ns += uplink.retry_ns - clock.monotonic_ns()
        uplink.advance()
    window_ns = round(MARGIN * 20.0 * 1e9)
    assert [b - a for a, b in itertools.pairwise(dials)] == [window_ns] * 3


def test_live_records_overtake_the_backlog(broker: int, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", "dev1", "boot")
    for _ in range(20):
        outbox.append_many([("telemetry", "k", {"x": "y" * 100})] * 200)
    cloud = Cloud(broker, acking=False)
    uplink = Uplink(PLACE, "boot", "127.0.0.1", broker, outbox, KEY)
    turn_until(uplink, lambda: len(cloud.events) >= 200)
    outbox.append_many([("alarm", "k", {}), ("telemetry", "live", {})])
    turn_until(uplink, lambda: any(e.kind == "live" for e in cloud.events))
    streams = [e.stream for e in cloud.events]
    assert "alarm" in streams
    assert len(cloud.events) < 1500
    backlog = [e.seq for e in cloud.events if e.stream == "telemetry" and e.kind == "k"]
    assert backlog == sorted(backlog)
    uplink.close()
    cloud.stop()


def test_the_newest_event_of_each_kind_is_told_plainly_beside_the_batches(broker: int, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", "dev1", "boot")
    outbox.append("alarm", "hot", {"n": 1})
    cloud = Cloud(broker)
    plain: dict[str, Any] = {}
    reader = mqtt.Client(CallbackAPIVersion.VERSION2, "reader", clean_session=True, protocol=mqtt.MQTTv311)
    reader.on_connect = lambda c, *_: c.subscribe(PLACE.now("alarm", "hot").replace("alarm/hot", "#"))
    reader.on_message = lambda c, d, m: plain.update({m.topic: json.loads(m.payload)})
    reader.connect("127.0.0.1", broker)
    reader.loop_start()
    newest = Newest(PLACE, encoder("json"), outbox.last)
    uplink = Uplink(PLACE, "boot", "127.0.0.1", broker, outbox, KEY, newest=newest)
    turn_until(uplink, lambda: plain.get(PLACE.now("alarm", "hot"), {}).get("seq") == 1)
    outbox.append("decision", "decision", {"part_seq": 7})
    turn_until(uplink, lambda: PLACE.now("decision", "decision") in plain)
    assert plain[PLACE.now("decision", "decision")]["body"] == {"part_seq": 7}
    turn_until(uplink, lambda: outbox.depth() == 0)
    assert {e.kind for e in cloud.events} == {"hot", "decision"}
    uplink.close()
    reader.loop_stop()
    cloud.stop()


def test_a_lost_fleet_dials_one_after_the_other(broker: int, tmp_path: Path) -> None:
    """Driven from outside, as `gudgeon fleet` does: after the loss each waits for its own place in the window."""
    clock = FakeClock()
    waits = {}
    for name in ("fleet-1", "fleet-2", "fleet-3"):
        place = Place("acme", "site1", "area1", "line1", "cell1", name)
        outbox = Outbox(tmp_path / f"{name}.db", name, "boot")
        uplink = Uplink(place, "boot", "127.0.0.1", broker, outbox, KEY, clock=clock, reconnect_spread_s=100.0)
        uplink._protocol, uplink._protocol_proven = 1, True
        drive_until(uplink, lambda uplink=uplink: uplink.connected)  # type: ignore[misc]
        assert uplink._client is not None
        uplink._client.socket().shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        drive_until(uplink, lambda uplink=uplink: not uplink.connected)  # type: ignore[misc]
        waits[name] = uplink.retry_s
        clock.advance(waits[name])
        drive_until(uplink, lambda uplink=uplink: uplink.connected)  # type: ignore[misc]
        uplink.close()
    for name, wait_s in waits.items():
        assert wait_s == pytest.approx(place_of(name) * MARGIN * 100.0, abs=1.0)


def drive_until(uplink: Uplink, done: Callable[[], bool]) -> None:
    """`Uplink.turn` by hand."""

    def turn() -> None:
        if (fd := uplink.advance()) is not None:
            readable, writable, _ = select.select([fd], [fd] if uplink.wants_write else [], [], 0.05)
            uplink.exchange(bool(readable), bool(writable))

    until(done, turn)


def test_a_refused_subscription_and_what_the_broker_said_at_the_end_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(tmp_path / "outbox.db", "dev1", "boot")
    uplink = Uplink(PLACE, "boot", "127.0.0.1", 1, outbox, KEY)
    client = uplink._make_client(MQTTProtocolVersion.MQTTv5)
    reasons = [ReasonCode(PacketTypes.SUBACK, text) for text in ("Not authorized", "Granted QoS 1")]
    for _ in range(2):
        uplink._on_subscribe(client, None, 1, reasons, None)
    told = outbox.last("fault")
    assert told is not None
    assert (told.kind, told.body, outbox.depth()) == ("subscription_refused", {"reasons": ["Not authorized"]}, 1)
    taken = ReasonCode(PacketTypes.DISCONNECT, "Session taken over")
    uplink._on_disconnect(client, None, mqtt.DisconnectFlags(True), taken, None)
    uplink._protocol_proven = True
    uplink._lost("the broker closed the connection")
    assert "the broker ends the connection: Session taken over" in str([vars(r) for r in caplog.records])
