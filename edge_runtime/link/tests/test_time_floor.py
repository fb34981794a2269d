"""A clock that is behind: certificates are judged at the least that the time can be; against a real TLS server.

The certificates lie in the future of this machine's clock, so that to OpenSSL it is a machine whose clock is behind."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion

from edge_runtime.clock import FakeClock
from edge_runtime.config import BrokerSection
from edge_runtime.link.access import FloorAccess
from edge_runtime.link.time_floor import RELEASED_NS, SAVE_EVERY_NS, TimeFloor
from edge_runtime.mqtt_access import Access
from edge_runtime.tests.waiting import PATIENCE_S

NOW = datetime.now(UTC).replace(microsecond=0)
YEAR = timedelta(days=365)
SOON = NOW + YEAR * 1.5  # the floor of most tests
S = 1_000_000_000


def ns(at: datetime) -> int:
    return round(at.timestamp()) * S


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass
class Signer:
    """An authority, or one below it."""

    subject: x509.Name
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, first: datetime, last: datetime, host: str = ""
    ) -> bytes:
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(self.subject).public_key(key.public_key())
        made = made.serial_number(x509.random_serial_number()).not_valid_before(first).not_valid_after(last)
        made = made.add_extension(x509.BasicConstraints(ca=not host, path_length=None), critical=True)
        if host:
            made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        return made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Server:
    """A TLS server on the loopback; `heard` is what clients sent to it after the handshake."""

    def __init__(self, folder: Path, chain: bytes, key: ec.EllipticCurvePrivateKey) -> None:
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / "server.pem").write_bytes(chain + pem)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "server.pem")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.heard: list[bytes] = []
        self.ended = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            try:
                peer.settimeout(PATIENCE_S)
                with self._context.wrap_socket(peer, server_side=True) as sock:
                    self.heard.append(sock.recv(4096))
            except OSError:
                peer.close()
            self.ended.release()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE_S)


@dataclass
class World:
    """An authority, one below it, and a server with a certificate of the latter."""

    folder: Path
    root: Signer = field(default_factory=lambda: Signer(name("root")))
    middle: Signer = field(default_factory=lambda: Signer(name("middle")))
    servers: list[Server] = field(default_factory=list)

    def server(
        self,
        leaf: tuple[datetime, datetime] = (NOW + YEAR, NOW + 2 * YEAR),
        middle: tuple[datetime, datetime] = (NOW + YEAR / 2, NOW + 3 * YEAR),
        host: str = "localhost",
    ) -> Server:
        (self.folder / "ca.pem").write_bytes(
            self.root.sign(self.root.subject, self.root.key, NOW + YEAR / 4, NOW + 9 * YEAR)
        )
        key = ec.generate_private_key(ec.SECP256R1())
        chain = self.middle.sign(name("server"), key, *leaf, host=host)
        chain += self.root.sign(self.middle.subject, self.middle.key, *middle)
        self.servers.append(Server(self.folder, chain, key))
        return self.servers[-1]

    def dial(self, server: Server, floor: datetime | None, system: datetime = NOW) -> str:
        """Connect as the uplink does; what it failed of, "" where the server heard the CONNECT."""
        clock = FakeClock(wall_ns=ns(system))
        held = TimeFloor(self.folder / "none.json", clock, ns(floor)) if floor else None
        section = BrokerSection(
            host="localhost", port=server.port, tls=True, ca_file=self.folder / "ca.pem", username="u"
        )
        client = mqtt.Client(CallbackAPIVersion.VERSION2)
        client.connect_timeout = PATIENCE_S
        (FloorAccess(section, held) if held else Access(section)).apply(client)
        try:
            client.connect("localhost", server.port)
        except OSError as error:
            return str(error)
        client.loop_write()
        sock = client.socket()
        assert server.ended.acquire(timeout=PATIENCE_S)
        assert sock is not None
        sock.close()
        return "" if server.heard and server.heard[-1][:1] == b"\x10" else "the server heard nothing"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    for server in made.servers:
        server.close()


def test_with_its_own_clock_alone_the_device_is_shut_out(world: World) -> None:
    assert "not yet valid" in world.dial(world.server(), None)


def test_a_clock_that_is_behind_the_floor_is_no_stop(world: World) -> None:
    server = world.server()
    assert world.dial(server, SOON) == ""
    assert world.dial(server, SOON, system=datetime(1970, 1, 1, tzinfo=UTC)) == ""


def test_a_clock_that_is_not_behind_the_floor_is_believed(world: World) -> None:
    assert "not yet valid" in world.dial(world.server(), NOW - YEAR, system=NOW)


@pytest.mark.parametrize(
    ("leaf", "middle"),
    [
        ((NOW + YEAR, NOW + 1.4 * YEAR), (NOW, NOW + 3 * YEAR)),  # the server's has expired at the floor
        ((NOW + 1.6 * YEAR, NOW + 3 * YEAR), (NOW, NOW + 3 * YEAR)),  # and this one is not valid yet
        ((NOW + YEAR, NOW + 2 * YEAR), (NOW, NOW + 1.4 * YEAR)),  # the authority's in between has expired
        ((NOW + YEAR, NOW + 2 * YEAR), (NOW + 1.6 * YEAR, NOW + 3 * YEAR)),
    ],
)
def test_every_certificate_must_be_valid_at_the_floor(
    world: World, leaf: tuple[datetime, datetime], middle: tuple[datetime, datetime]
) -> None:
    server = world.server(leaf, middle)
    found = world.dial(server, SOON)
    assert "certificate verify failed" in found
    assert "set the clock" in found
    assert server.ended.acquire(timeout=PATIENCE_S)
    assert not any(server.heard)  # above all no password


def test_the_name_and_the_authority_are_checked_as_ever(world: World) -> None:
    assert "ostname mismatch" in world.dial(world.server(host="elsewhere"), SOON)
    stranger = World(world.folder, root=Signer(name("root")))
    server = stranger.server()
    (world.folder / "ca.pem").write_bytes(
        world.root.sign(world.root.subject, world.root.key, NOW - YEAR, NOW + 9 * YEAR)
    )
    found = world.dial(server, SOON)
    server.close()
    assert "certificate verify failed" in found
    assert "set the clock" not in found


def test_what_has_expired_by_the_real_clock_stays_refused(world: World) -> None:
    server = world.server((NOW - YEAR, NOW - YEAR / 2), (NOW - YEAR, NOW + YEAR))
    (world.folder / "ca.pem").write_bytes(
        world.root.sign(world.root.subject, world.root.key, NOW - YEAR, NOW + 9 * YEAR)
    )
    assert "expired" in world.dial(server, NOW - 0.7 * YEAR, system=NOW)


# ── the floor itself ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_floor_only_rises_and_moves_with_the_monotonic_clock(tmp_path: Path) -> None:
    clock = FakeClock(wall_ns=0)
    floor = TimeFloor(tmp_path / "t.json", clock)
    assert floor.now_ns() == RELEASED_NS
    assert floor.clock_is_behind
    floor.seen(RELEASED_NS + 100 * S)
    floor.seen(RELEASED_NS + 50 * S)
    clock.advance(10)
    assert floor.now_ns() == RELEASED_NS + 110 * S
    floor.seen(2**62)  # no such year
    assert floor.now_ns() == RELEASED_NS + 110 * S
    clock._wall_ns = RELEASED_NS + 200 * S
    assert not floor.clock_is_behind


def test_the_floor_is_kept_once_an_hour_and_survives(tmp_path: Path) -> None:
    clock, path = FakeClock(), tmp_path / "t.json"
    floor = TimeFloor(path, clock)
    floor.seen(RELEASED_NS + SAVE_EVERY_NS - 1)
    assert not path.exists()
    clock.advance(1)
    floor.seen(RELEASED_NS + SAVE_EVERY_NS)
    first = json.loads(path.read_text())["trusted_ns"]
    assert first >= RELEASED_NS + SAVE_EVERY_NS
    clock.advance(1800)
    floor.seen(0)
    assert json.loads(path.read_text())["trusted_ns"] == first
    assert TimeFloor(path, FakeClock(wall_ns=0)).now_ns() == first


@pytest.mark.parametrize("text", ["", "{}", '{"trusted_ns": "x"}', '{"trusted_ns": 99999999999999999999999}', "[]"])
def test_a_damaged_file_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    assert TimeFloor(tmp_path / "t.json", FakeClock()).now_ns() == RELEASED_NS


def test_the_day_of_release_is_past() -> None:
    assert time.time_ns() > RELEASED_NS
