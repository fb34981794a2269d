"""The listener for devices over real TLS: who gets in, to what, and for how long."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloud.access.limits import SharedLimit
from cloud.audit.log import rows
from cloud.ca.local import LocalAuthority
from cloud.devices import server
from cloud.devices.enrolment import OF_ALL
from cloud.devices.gate import BODY_LIMIT_BYTES
from cloud.devices.tests.listening import HOST, WAIT_S, Listening, exchange, listening, make_csr, make_key
from cloud.tests.databases import empty_store

A, B = "/device/v1/devices/a/certificate", "/device/v1/devices/b/certificate"


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Listening]:
    with empty_store("sqlite", tmp_path) as engine, listening(engine, tmp_path) as started:
        yield started


def test_a_certificate_opens_the_paths_of_its_own_device_only(cloud: Listening) -> None:
    a = cloud.device("a")
    found = cloud.ask("GET", A, certificate=a)
    assert (found.status, found.body["device"]) == (200, "a")
    other = cloud.ask("GET", B, certificate=a)
    assert (other.status, other.detail) == (403, "the certificate is that of a, and the path is that of 'b'")
    assert cloud.ask("GET", A).status == 401


def test_a_revocation_holds_for_the_next_request_of_a_connection_that_stands(cloud: Listening) -> None:
    connection = cloud.open(cloud.device("a"))
    assert exchange(connection, "GET", A).status == 200
    sock = connection.sock
    cloud.desk.revoke("a", "stolen")
    refused = exchange(connection, "GET", A)
    assert connection.sock is sock, "the same connection"
    assert (refused.status, refused.detail) == (403, "a was revoked (stolen)")


def test_an_expiry_holds_for_a_connection_that_stands(cloud: Listening) -> None:
    connection = cloud.open(cloud.device("a"))
    assert exchange(connection, "GET", A).status == 200
    cloud.clock.advance(timedelta(days=61))
    assert "expired" in exchange(connection, "GET", A).detail


def test_enrolment_over_the_wire_and_a_second_device_with_the_same_token(cloud: Listening) -> None:
    token = cloud.desk.make_token("a", "hw", timedelta(hours=1))
    key = make_key()
    asked = {"v": 1, "token": token.sent, "hardware": "hw", "csr": make_csr("a", key)}
    first = cloud.ask("POST", "/device/v1/enrol", asked)
    assert first.status == 200
    assert cloud.ask("POST", "/device/v1/enrol", asked).body == first.body, "an answer that was lost can be had again"
    second = cloud.ask("POST", "/device/v1/enrol", asked | {"csr": make_csr("a", make_key())})
    assert (second.status, second.detail) == (403, "the token was used already; make a new one")


def test_who_guesses_is_slowed_down(cloud: Listening) -> None:
    cloud.clock.stand()
    asked = {"v": 1, "token": "0" * 16 + ".x", "hardware": "hw", "csr": make_csr("a", make_key())}
    found = [cloud.ask("POST", "/device/v1/enrol", asked).status for _ in range(12)]
    assert found == [403] * 10 + [429] * 2
    with cloud.desk.engine.connect() as connection:
        logged = [(row.action, row.subject, row.outcome) for row, _ in rows(connection)]
    assert logged == [("identity.enrol", f"token {'0' * 16}", "refused")] * 10


def test_strangers_who_guess_keep_no_device_from_renewing(cloud: Listening) -> None:
    cloud.clock.stand()
    key = make_key()
    certificate = cloud.device("a", key)
    of_all = SharedLimit(cloud.desk.engine, "enrolment", *OF_ALL, cloud.clock)
    while of_all.take(""):
        pass
    asked = {"v": 1, "token": "0" * 16 + ".x", "hardware": "hw", "csr": make_csr("a", key)}
    assert cloud.ask("POST", "/device/v1/enrol", asked).status == 429
    renewal = {"v": 1, "csr": make_csr("a", key)}
    assert cloud.ask("POST", A, renewal, certificate).status == 200
    wrong = [cloud.ask("POST", A, renewal | {"csr": "x"}, certificate).status for _ in range(12)]
    assert wrong == [422] * 10 + [429] * 2, "what one device does wrong it does for itself"


def test_a_header_says_nothing_of_where_a_request_comes_from(cloud: Listening) -> None:
    cloud.clock.stand()
    asked = json.dumps({"v": 1, "token": "0" * 16 + ".x", "hardware": "hw", "csr": make_csr("a", make_key())})
    found = []
    for n in range(12):
        connection = cloud.open()
        connection.request("POST", "/device/v1/enrol", asked, {"x-forwarded-for": f"203.0.113.{n}"})
        found.append(connection.getresponse().status)
        connection.close()
    assert found == [403] * 10 + [429] * 2


LENGTH = b"content-length: %d\r\n\r\n" % (BODY_LIMIT_BYTES + 1)
CHUNK = b"transfer-encoding: chunked\r\n\r\n%x\r\n%s" % (BODY_LIMIT_BYTES + 1, b"x" * (BODY_LIMIT_BYTES + 1))


@pytest.mark.parametrize("rest", [LENGTH, CHUNK], ids=["told", "found"])
def test_a_body_over_the_limit_is_refused(cloud: Listening, rest: bytes) -> None:
    with socket.create_connection((HOST, cloud.port), WAIT_S) as raw:
        sock = cloud.context().wrap_socket(raw, server_hostname=HOST)
        sock.sendall(b"POST /device/v1/enrol HTTP/1.1\r\nhost: a\r\n" + rest)
        assert sock.recv(100).startswith(b"HTTP/1.1 413 ")


def closed(sock: ssl.SSLSocket) -> bool:
    try:
        return sock.recv(1) == b""
    except (ConnectionError, ssl.SSLError):
        return True


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nHost:", b"POST /device/v1/enrol HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n"]
)
def test_a_client_that_is_slow_is_cut_off(cloud: Listening, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    for name in ("HEAD_S", "BODY_S", "LOOK_S"):
        monkeypatch.setattr(server, name, 0.1)
    with socket.create_connection((HOST, cloud.port), WAIT_S) as raw:
        sock = cloud.context().wrap_socket(raw, server_hostname=HOST)
        sock.sendall(sent)
        assert closed(sock)


def test_a_certificate_of_another_authority_does_not_come_through_the_handshake(
    cloud: Listening, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    with empty_store("sqlite", tmp_path / "other") as engine:
        foreign = Listening(engine, tmp_path / "other", cloud.clock).device("a")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        cloud.ask("GET", A, certificate=foreign)


def test_tls_before_1_2_is_not_spoken(cloud: Listening) -> None:
    assert cloud.side._context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert cloud.side._context.verify_mode is ssl.CERT_OPTIONAL


def test_another_root_is_believed_without_a_restart(cloud: Listening, tmp_path: Path) -> None:
    before = cloud.device("a")
    LocalAuthority(tmp_path / "ca").new_root("Gudgeon", datetime.now(UTC))
    cloud.side.refresh()
    after = cloud.device("b")
    alone = after.with_name("b-alone.pem")  # without the link to the root before
    alone.write_bytes(after.read_bytes().rpartition(b"-----BEGIN CERTIFICATE")[0])
    newest, end, _ = cloud.side.authority.roots().partition(b"-----END CERTIFICATE-----\n")
    cloud.roots.write_bytes(newest + end)
    assert cloud.ask("GET", B, certificate=alone).status == 200, "the client knows the new root alone, too"
    assert cloud.ask("GET", A, certificate=before).status == 200
