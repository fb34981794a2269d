"""A real listener for devices on this machine, with an authority of its own, and devices that ask it over TLS."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import Engine

from cloud.devices.side import DeviceSide
from cloud.enrol.desk import Desk
from cloud.settings import CloudSettings, DevicesSection, RegistrySection, StoreSection
from cloud.sockets import listen, port_of

HOST = "127.0.0.1"
WAIT_S = 60.0


class Answer(NamedTuple):
    status: int
    body: Any

    @property
    def detail(self) -> str:
        return str(self.body["detail"])


class Clock:
    """The cloud's time, which a test can move."""

    def __init__(self) -> None:
        self.ahead_ns = 0
        self.stands_ns: int | None = None

    def __call__(self) -> int:
        return (time.time_ns() if self.stands_ns is None else self.stands_ns) + self.ahead_ns

    def stand(self) -> None:
        """From now on it moves only when it is told to."""
        self.stands_ns = time.time_ns()

    def advance(self, by: timedelta) -> None:
        self.ahead_ns += round(by.total_seconds() * 1e9)


def make_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def make_csr(name: str, key: ec.EllipticCurvePrivateKey) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def pem_of(key: ec.EllipticCurvePrivateKey) -> str:
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, pkcs8, plain).decode()


class Listening:
    def __init__(self, engine: Engine, folder: Path, clock: Clock) -> None:
        self.folder, self.clock = folder, clock
        self.settings = CloudSettings(
            store=StoreSection(key_file=folder / "cloud.key"),
            devices=DevicesSection(serve=True, port=0),
            registry=RegistrySection(folder / "registry"),
        )
        self._sock = listen(HOST, 0, "devices.port")
        self.port = port_of(self._sock)
        self.side = DeviceSide(engine, self.settings, self._sock, clock)
        self.roots = folder / "roots.pem"
        self.roots.write_bytes(self.side.authority.roots())

    @property
    def desk(self) -> Desk:
        return self.side.desk

    def device(self, name: str, key: ec.EllipticCurvePrivateKey | None = None) -> Path:
        """Enrol a device; a file with its key and certificate."""
        key = key or make_key()
        token = self.desk.make_token(name, f"hw-{name}", timedelta(hours=1))
        got = self.desk.enrol(token.sent, f"hw-{name}", make_csr(name, key))
        path = self.folder / f"{name}-{token.number}.pem"
        path.write_text(pem_of(key) + got.certificate + got.chain)
        return path

    def context(self, certificate: Path | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.roots))
        if certificate:
            context.load_cert_chain(certificate)
        return context

    def open(self, certificate: Path | None = None) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(HOST, self.port, timeout=WAIT_S, context=self.context(certificate))

    def ask(self, method: str, path: str, body: Any = None, certificate: Path | None = None) -> Answer:
        connection = self.open(certificate)
        try:
            return exchange(connection, method, path, body)
        finally:
            connection.close()


def exchange(connection: http.client.HTTPSConnection, method: str, path: str, body: Any = None) -> Answer:
    connection.request(method, path, None if body is None else json.dumps(body))
    answer = connection.getresponse()
    return Answer(answer.status, json.loads(answer.read()))


@contextmanager
def listening(engine: Engine, folder: Path) -> Iterator[Listening]:
    started = Listening(engine, folder, Clock())
    started.side.start()
    try:
        yield started
    finally:
        started.side.stop()
