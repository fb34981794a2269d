"""Attacks on who a device is: enrolment, renewal, certificates. Each against the real listener over TLS and the device's code."""

from __future__ import annotations

import base64
import http.server
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from cloud.ca.authority import Wanted
from cloud.ca.local import LocalAuthority
from cloud.devices.gate import BODY_LIMIT_BYTES
from cloud.devices.served import Served
from cloud.devices.tests.listening import Answer, Listening, exchange, listening, make_csr, make_key
from cloud.tests.databases import empty_store
from edge_runtime.config import DeviceConfig, DeviceSection
from edge_runtime.errors import GudgeonError
from edge_runtime.identity.cloud import Cloud
from edge_runtime.identity.credentials import Credentials, CredentialStore, trusting
from edge_runtime.identity.enroll_cli import enroll
from edge_runtime.wire.enrolment import Token, proof_bytes
from hil_tests.attacks.row import Attack

HARDWARE = "board:1"
HOUR = timedelta(hours=1)
ENROL, OF_A, OF_B = "/device/v1/enrol", "/device/v1/devices/a/certificate", "/device/v1/devices/b/certificate"


@contextmanager
def running(folder: Path) -> Iterator[Listening]:
    with empty_store("sqlite", folder) as engine, listening(engine, folder) as cloud:
        yield cloud


def refused(found: Answer, status: int, text: str) -> None:
    assert found.status == status, found
    assert text in found.detail, found


def raises(text: str, ask: Callable[[], object]) -> None:
    with pytest.raises((GudgeonError, ssl.SSLError, ConnectionError), match=re.escape(text)):
        ask()


def asked(token: Token, csr: str, hardware: str = HARDWARE) -> dict[str, Any]:
    return {"v": 1, "token": token.sent, "hardware": hardware, "csr": csr}


def device_at(folder: Path, cloud: Listening, days: int = 0) -> CredentialStore:
    """Device a with credentials that it was given so many days ago."""
    store = CredentialStore(folder / "state", "a")
    cloud.clock.advance(timedelta(days=-days))
    token = cloud.desk.make_token("a", HARDWARE, HOUR)
    given = cloud.desk.enrol(token.sent, HARDWARE, store.key().request("a"))
    store.adopt(given, store.key(), False, cloud.clock(), lambda _: None)
    cloud.clock.advance(timedelta(days=days))
    return store


def enrol_here(folder: Path, url: str, token: Token) -> Credentials:
    config = DeviceConfig(DeviceSection("a", folder / "state"))
    return enroll(config, url, token, HARDWARE, None, False)


def nothing_was_kept(folder: Path) -> None:
    assert not CredentialStore(folder / "state", "a").enrolled


def url_of(cloud: Listening) -> str:
    return f"https://localhost:{cloud.port}"


# ── tokens ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def token_reuse(folder: Path) -> None:
    with running(folder) as cloud:
        token = cloud.desk.make_token("a", HARDWARE, HOUR)
        first = cloud.ask("POST", ENROL, asked(token, make_csr("a", make_key())))
        refused(cloud.ask("POST", ENROL, asked(token, make_csr("a", make_key()))), 403, "used already")
        holds = x509.load_pem_x509_certificate(first.body["certificate"].encode())
        assert cloud.desk.check(holds, "a")["revoked_ns"] is None


def token_of_other_hardware(folder: Path) -> None:
    with running(folder) as cloud:
        token = cloud.desk.make_token("a", "board:2", HOUR)
        refused(
            cloud.ask("POST", ENROL, asked(token, make_csr("a", make_key()))), 403, "the token is for hardware board:2"
        )


def token_expired(folder: Path) -> None:
    with running(folder) as cloud:
        token = cloud.desk.make_token("a", HARDWARE, HOUR)
        cloud.clock.advance(HOUR)
        refused(cloud.ask("POST", ENROL, asked(token, make_csr("a", make_key()))), 403, "expired")


def token_guessing(folder: Path) -> None:
    """The number is known, the secret is not."""
    with running(folder) as cloud:
        cloud.clock.stand()
        token = cloud.desk.make_token("a", HARDWARE, HOUR)
        csr = make_csr("a", make_key())
        guesses = [cloud.ask("POST", ENROL, asked(token._replace(secret=f"{n:043}"), csr)) for n in range(12)]
        assert [guess.status for guess in guesses] == [403] * 10 + [429] * 2
        assert len({guess.detail for guess in guesses[:10]}) == 1, "a wrong guess tells nothing"
        refused(cloud.ask("POST", ENROL, asked(token, csr)), 429, "too many wrong tries")
        assert cloud.desk.enrol(token.sent, HARDWARE, csr), "the token itself is as good as before"


# ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _request(name: str, key: Any, *extensions: x509.ExtensionType) -> str:
    builder = x509.CertificateSigningRequestBuilder()
    builder = builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def csr_refused(make: Callable[[], str], text: str, folder: Path) -> None:
    with running(folder) as cloud:
        token = cloud.desk.make_token("a", HARDWARE, HOUR)
        refused(cloud.ask("POST", ENROL, asked(token, make())), 422, text)
        assert cloud.desk.enrol(token.sent, HARDWARE, make_csr("a", make_key())), "the token was not used up"


def csr_signed_by_another_key() -> str:
    """The public key of one, the signature of another: a request for a key that the asker does not have."""
    key, other = make_key(), make_key()
    der = x509.load_pem_x509_csr(make_csr("a", key).encode()).public_bytes(serialization.Encoding.DER)
    mine, theirs = (k.public_key().public_bytes(serialization.Encoding.DER, _SPKI) for k in (key, other))
    forged = x509.load_der_x509_csr(der.replace(mine, theirs))
    return forged.public_bytes(serialization.Encoding.PEM).decode()


_SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


def oversized_body(folder: Path) -> None:
    with running(folder) as cloud:
        connection = cloud.open()
        connection.putrequest("POST", ENROL)
        connection.putheader("content-length", str(BODY_LIMIT_BYTES + 1))
        connection.endheaders()
        assert connection.getresponse().status == 413
        refused(cloud.ask("POST", ENROL, {"v": 1, "token": "x" * 201, "hardware": "h", "csr": ""}), 422, "token")


# ── certificates ────────────────────────────────────────────────────────────────────────────────────────────────────


def certificate_of_another_authority(folder: Path) -> None:
    (folder / "other").mkdir()
    with running(folder) as cloud, running(folder / "other") as other:
        mine, foreign = cloud.device("a"), other.device("a")
        try:
            found = cloud.ask("GET", OF_A, certificate=foreign)
        except (ssl.SSLError, ConnectionError):
            pass
        else:
            raise AssertionError(found)
        assert cloud.ask("GET", OF_A, certificate=mine).status == 200


def certificate_nobody_knows(folder: Path) -> None:
    """Signed by our own authority and never given out: whoever gets at its key makes no device."""
    with running(folder) as cloud:
        cloud.device("a")
        key = make_key()
        request = x509.load_pem_x509_csr(make_csr("a", key).encode())
        issued = cloud.side.authority.issue(request, Wanted("a", timedelta(days=30)), datetime.now(UTC))
        pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        path = folder / "forged.pem"
        path.write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, plain) + issued.full_chain)
        refused(cloud.ask("GET", OF_A, certificate=path), 403, "was not given by this cloud")


def of_a_on_the_path_of_b(folder: Path) -> None:
    with running(folder) as cloud:
        a, b = cloud.device("a"), cloud.device("b")
        refused(cloud.ask("GET", OF_B, certificate=a), 403, "the certificate is that of a")
        asks = {"v": 1, "csr": make_csr("b", make_key())}
        refused(cloud.ask("POST", OF_B, asks, certificate=a), 403, "the certificate is that of a")
        assert cloud.ask("GET", OF_B, certificate=b).status == 200


def revoked_while_connected(folder: Path) -> None:
    with running(folder) as cloud:
        connection = cloud.open(cloud.device("a"))
        assert exchange(connection, "GET", OF_A).status == 200
        cloud.desk.revoke("a", "stolen")
        refused(exchange(connection, "GET", OF_A), 403, "a was revoked (stolen)")


# ── renewal ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def beyond_the_grace(folder: Path) -> None:
    with running(folder) as cloud:
        current = device_at(folder, cloud, days=121).current()
        csr, context = current.key.request("a"), trusting(current.roots_path)
        raises("are over", lambda: Cloud(url_of(cloud)).renew_expired(context, current, csr))


def stolen_certificate_without_its_key(folder: Path) -> None:
    with running(folder) as cloud:
        current = device_at(folder, cloud, days=70).current()
        thief = replace(current, key=CredentialStore(folder / "thief", "a").key())
        csr, context = thief.key.request("a"), trusting(current.roots_path)
        raises("not signed with the key", lambda: Cloud(url_of(cloud)).renew_expired(context, thief, csr))


def revoked_and_expired(folder: Path) -> None:
    with running(folder) as cloud:
        current = device_at(folder, cloud, days=70).current()
        cloud.desk.revoke("a", "stolen")
        csr, context = current.key.request("a"), trusting(current.roots_path)
        raises("a was revoked (stolen)", lambda: Cloud(url_of(cloud)).renew_expired(context, current, csr))


def replayed_renewal(folder: Path) -> None:
    """Soon it gives what was given, for a key that only the device has; later nothing."""
    with running(folder) as cloud:
        current = device_at(folder, cloud, days=70).current()
        csr = current.key.request("a")
        challenge = cloud.ask("POST", "/device/v1/devices/a/challenge", {"v": 1}).body["challenge"]
        proof = base64.b64encode(current.key.sign(proof_bytes("a", challenge, csr))).decode()
        old = current.certificate().public_bytes(serialization.Encoding.PEM).decode()
        recorded = {"v": 1, "csr": csr, "certificate": old, "challenge": challenge, "proof": proof}
        first = cloud.ask("POST", OF_A, recorded)
        assert cloud.ask("POST", OF_A, recorded).body == first.body
        refused(cloud.ask("POST", OF_A, recorded | {"csr": make_csr("a", make_key())}), 403, "not signed with the key")
        cloud.clock.advance(timedelta(minutes=6))
        refused(cloud.ask("POST", OF_A, recorded), 403, "the challenge does not hold")


# ── the other end ───────────────────────────────────────────────────────────────────────────────────────────────────


class _Portal(http.server.BaseHTTPRequestHandler):
    """Answers everything with a login page, and politely."""

    def do_GET(self) -> None:
        page = b"<html>Welcome to Hotel Wi-Fi, please log in</html>"
        self.send_response(200)
        self.send_header("content-length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(folder: Path, names: tuple[str, ...], authority: LocalAuthority, handler: Any = _Portal) -> Iterator[str]:
    """An HTTPS server with a certificate of this authority."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    Served(folder, names, authority, lambda: round(datetime.now(UTC).timestamp() * 1e9)).load(context)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"https://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def stranger(folder: Path) -> LocalAuthority:
    made = LocalAuthority(folder / "stranger")
    made.create("Stranger", datetime.now(UTC))
    return made


def captive_portal(folder: Path) -> None:
    with running(folder) as cloud, serving(folder, ("localhost",), stranger(folder)) as url:
        token = cloud.desk.make_token("a", HARDWARE, HOUR)
        raises("login page", lambda: enrol_here(folder, url, token))
        nothing_was_kept(folder)
        assert enrol_here(folder, url_of(cloud), token), "with the way free the same token works"


def answer_without_end(folder: Path) -> None:
    """One byte of a header now and then: each in time, all together never."""
    ended = threading.Event()

    class Dripping(_Portal):
        def do_GET(self) -> None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            with suppress(OSError):
                while not ended.wait(0.05):
                    self.wfile.write(b"x-more: 1\r\n")

    with running(folder) as cloud, serving(folder, ("localhost",), stranger(folder), Dripping) as url:
        token = cloud.desk.make_token("a", HARDWARE, HOUR)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("edge_runtime.identity.cloud.TOTAL_S", 0.5)
            raises(url, lambda: enrol_here(folder, url, token))
        ended.set()
        nothing_was_kept(folder)


def another_cloud(folder: Path) -> None:
    """It speaks our protocol, with an authority of its own: the fingerprint in the token is another one."""
    (folder / "other").mkdir()
    with running(folder) as cloud, running(folder / "other") as other:
        token = cloud.desk.make_token("a", HARDWARE, HOUR)
        raises("this is not the cloud that made the token", lambda: enrol_here(folder, url_of(other), token))
        nothing_was_kept(folder)


def in_the_middle(folder: Path) -> None:
    """It passes the true root on, which is no secret, and shows a certificate of its own."""
    with running(folder) as cloud:
        true_roots = json.dumps({"roots": cloud.side.authority.roots().decode()}).encode()
        heard: list[bytes] = []

        class Middle(_Portal):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-length", str(len(true_roots)))
                self.end_headers()
                self.wfile.write(true_roots)

            def do_POST(self) -> None:
                heard.append(self.rfile.read(int(self.headers["content-length"])))

        with serving(folder, ("localhost",), stranger(folder), Middle) as url:
            token = cloud.desk.make_token("a", HARDWARE, HOUR)
            raises("its certificate is not one of our cloud", lambda: enrol_here(folder, url, token))
        assert heard == [], "the token was not told"
        nothing_was_kept(folder)


def server_of_another_name(folder: Path) -> None:
    """A true certificate of our authority, stolen from another of our machines."""
    with running(folder) as cloud:
        authority = LocalAuthority(cloud.settings.ca_folder)
        store = device_at(folder, cloud)
        with serving(folder, ("elsewhere.example",), authority) as url:
            raises("its certificate is not one of our cloud", lambda: Cloud(url).works(store.current()))


def device_that_plays_the_cloud(folder: Path) -> None:
    """A certificate of a device is worth nothing as that of a server."""
    with running(folder) as cloud:
        store, thief = device_at(folder, cloud), cloud.device("localhost")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Portal)
        server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(thief)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            url = f"https://localhost:{server.server_address[1]}"
            raises("its certificate is not one of our cloud", lambda: Cloud(url).works(store.current()))
        finally:
            server.shutdown()
            server.server_close()


AREA = "identity"
CSR: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("a request for another name", "is for another name", lambda: make_csr("b", make_key())),
    (
        "a request for two names",
        "asks for",
        lambda: _request("a", make_key(), x509.SubjectAlternativeName([x509.DNSName("b")])),
    ),
    ("a request to be an authority", "asks for", lambda: _request("a", make_key(), x509.BasicConstraints(True, None))),
    ("a request with a weak key", "too weak", lambda: _request("a", rsa.generate_private_key(65537, 1024))),
    (
        "a request on a curve nobody asked for",
        "too weak",
        lambda: _request("a", ec.generate_private_key(ec.SECP256K1())),
    ),
    ("a request for the key of another", "not signed with its own key", csr_signed_by_another_key),
)
ROWS: list[Attack] = [
    Attack(AREA, "a token is used twice", "used already", token_reuse),
    Attack(AREA, "a token is used on other hardware", "the token is for hardware", token_of_other_hardware),
    Attack(AREA, "a token is used after its time", "expired", token_expired),
    Attack(AREA, "a token is guessed", "too many wrong tries", token_guessing),
    *(Attack(AREA, name, told, partial(csr_refused, make, told)) for name, told, make in CSR),
    Attack(AREA, "a body without end", "413", oversized_body),
    Attack(AREA, "a certificate of another authority", "no handshake", certificate_of_another_authority),
    Attack(
        AREA,
        "a certificate that was signed behind the cloud's back",
        "was not given by this cloud",
        certificate_nobody_knows,
    ),
    Attack(AREA, "the certificate of a on the path of b", "the certificate is that of a", of_a_on_the_path_of_b),
    Attack(AREA, "revoked while connected", "was revoked", revoked_while_connected),
    Attack(AREA, "renewal beyond the grace", "are over", beyond_the_grace),
    Attack(
        AREA,
        "renewal with a stolen certificate, without its key",
        "not signed with the key",
        stolen_certificate_without_its_key,
    ),
    Attack(AREA, "renewal after revocation and expiry", "was revoked", revoked_and_expired),
    Attack(AREA, "a renewal is replayed", "the challenge does not hold", replayed_renewal),
    Attack(AREA, "a captive portal answers the enrolment", "login page", captive_portal),
    Attack(AREA, "an answer without end", "check address and network", answer_without_end),
    Attack(AREA, "another cloud answers the enrolment", "this is not the cloud", another_cloud),
    Attack(AREA, "somebody in the middle has the true root", "not one of our cloud", in_the_middle),
    Attack(AREA, "a server with the certificate of another host", "not one of our cloud", server_of_another_name),
    Attack(AREA, "a device plays the cloud", "not one of our cloud", device_that_plays_the_cloud),
]
