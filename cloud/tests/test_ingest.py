"""Ingest against a real broker on loopback."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from cloud import ingest as ingest_module
from cloud.broker import EmbeddedBroker
from cloud.ingest import Ingest
from cloud.messages import Connected
from cloud.sockets import listen, port_of
from cloud.store import queries
from cloud.tests.databases import writer_of
from cloud.tests.made import PLACE, WAIT_S, FakeDevice, batch, decision, event, until


@pytest.fixture
def broker() -> Iterator[tuple[EmbeddedBroker, int]]:
    sock = listen("127.0.0.1", 0, "broker.port")
    port = port_of(sock)
    started = EmbeddedBroker(sock)
    started.start()
    yield started, port
    started.stop()


@pytest.fixture
def ingest(engine: Engine, broker: tuple[EmbeddedBroker, int]) -> Iterator[Ingest]:
    started = Ingest(writer_of(engine), "127.0.0.1", broker[1], embedded=True)
    started.start()
    assert started.connected.wait(WAIT_S)
    yield started
    started.stop()


@pytest.fixture
def device(broker: tuple[EmbeddedBroker, int], ingest: Ingest) -> Iterator[FakeDevice]:
    connected = FakeDevice(broker[1])
    yield connected
    connected.close()


def test_a_batch_is_acknowledged_after_it_is_in_the_store(engine: Engine, device: FakeDevice) -> None:
    assert device.send([decision(1), decision(2), event(1, "alarm", "hot")]) == {"decision": 2, "alarm": 1}
    assert len(queries.events(engine, {})) == 3
    assert device.send([decision(2), decision(4)]) == {"decision": 2}
    assert device.send([decision(3)]) == {"decision": 4}


def test_bad_messages_are_kept_and_the_next_good_one_is_taken(
    engine: Engine, device: FakeDevice, ingest: Ingest
) -> None:
    device.send_raw("events", b"rubbish")
    device.send_raw("events", b"{}")
    assert device.send([decision(1)]) == {"decision": 1}
    assert ingest.counts["rejected"] == len(queries.rejections(engine, 0, 10)) == 2


def test_a_device_is_online_until_it_says_otherwise(engine: Engine, device: FakeDevice) -> None:
    device.send_raw("status", b'{"online": true, "boot_id": "b7"}', retain=True)
    device.send([decision(1)])
    (row,) = queries.devices(engine)
    assert (row["online"], row["boot_id"]) == (True, "b7")
    device.send_raw("status", b'{"online": false, "boot_id": "b7"}', retain=True)
    device.send_raw("events", b"")  # ordered behind it
    assert until(lambda: queries.devices(engine)[0]["online"] is False)


def test_the_broker_goes_away_and_comes_back(engine: Engine) -> None:
    sock = listen("127.0.0.1", 0, "broker.port")
    port = port_of(sock)
    first = EmbeddedBroker(sock)
    first.start()
    ingest = Ingest(writer_of(engine), "127.0.0.1", port, embedded=True)
    ingest.start()
    assert ingest.connected.wait(WAIT_S)
    first.stop()
    assert until(lambda: not ingest.connected.is_set())
    second = EmbeddedBroker(listen("127.0.0.1", port, "broker.port"))
    second.start()
    assert ingest.connected.wait(WAIT_S)
    device = FakeDevice(port)
    assert device.send([decision(1)]) == {"decision": 1}
    device.close()
    ingest.stop()
    second.stop()


def test_no_broker_at_start_is_waited_for(engine: Engine) -> None:
    sock = listen("127.0.0.1", 0, "broker.port")
    port = port_of(sock)
    sock.close()
    ingest = Ingest(writer_of(engine), "127.0.0.1", port, embedded=True)
    ingest.start()
    broker = EmbeddedBroker(listen("127.0.0.1", port, "broker.port"))
    broker.start()
    assert ingest.connected.wait(WAIT_S)
    ingest.stop()
    broker.stop()


def test_both_ends_send_at_once(device: FakeDevice, broker: tuple[EmbeddedBroker, int]) -> None:
    """Every TCP socket of this process to the broker's port has TCP_NODELAY: ingest's, the test device's, the broker's."""
    found = [s for s in _tcp_sockets() if broker[1] in (s.getsockname()[1], s.getpeername()[1])]
    assert len(found) >= 4
    assert all(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for s in found)
    for s in found:
        s.close()


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x10\xff\xff\xff\xff", b"\x10\x04\x00\x04MQ", bytes(range(256))]
)
def test_a_stranger_on_the_port_disturbs_nobody(
    sent: bytes, device: FakeDevice, broker: tuple[EmbeddedBroker, int]
) -> None:
    with socket.create_connection(("127.0.0.1", broker[1])) as stranger:
        stranger.sendall(sent)
        assert device.send([decision(1)]) == {"decision": 1}
    assert device.send([decision(2)]) == {"decision": 2}


def test_messages_that_wait_share_a_commit(engine: Engine) -> None:
    ingest = Ingest(writer_of(engine), "127.0.0.1", 1)
    acks = ingest._commit([Connected(), *(batch([decision(n)]) for n in range(1, 40))])
    assert [(place, ack.committed) for place, ack in acks] == [(PLACE, {"decision": 39})]
    assert ingest.counts["commits"] == 1


def test_a_store_that_fails_acknowledges_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OperationalError("INSERT", {}, OSError("database or disk is full"))

    writer = writer_of(engine)
    monkeypatch.setattr(writer, "commit", full)
    monkeypatch.setattr(ingest_module, "STORE_PAUSE_S", 0.0)
    ingest = Ingest(writer, "127.0.0.1", 1)
    assert ingest._commit([batch([decision(1)]), batch([decision(2)])]) == []
    assert ingest.counts["not_committed"] == 2


def _tcp_sockets() -> Iterator[socket.socket]:
    """Copies of this process's connected TCP sockets."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(Path("/proc/self/fd") / name).startswith("socket:"):
                continue
            copy = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        try:
            if copy.family == socket.AF_INET and copy.getpeername():
                yield copy
                continue
        except OSError:
            pass
        copy.close()
