"""Authority: who signs the certificates of devices and servers. One interface, one file an implementation, one contract test.

It knows no devices, no tokens and no revocations: whom to sign for is decided in `cloud.enrol`, and what is revoked stands in
the store. Of a request only the public key is taken; names, life and extensions are the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

SHORTEST, LONGEST = timedelta(days=30), timedelta(days=90)
SERVER_LIFE = timedelta(days=30)
CRL_LIFE = timedelta(days=7)
#: certificates begin a little before now, for clocks that are a little behind
BACKDATED = timedelta(minutes=10)


class Wanted(NamedTuple):
    """`use`: a device shows it to servers, or a server to devices. `names`: host names and addresses of a server."""

    common_name: str
    life: timedelta
    use: Literal["device", "server"] = "device"
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Issued:
    """`chain`: the authorities between `certificate` and a root, in PEM."""

    certificate: x509.Certificate
    chain: bytes

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def full_chain(self) -> bytes:
        """What is shown in a handshake."""
        return self.pem + self.chain


class Revoked(NamedTuple):
    serial: int
    at: datetime


class Authority(Protocol):
    def issue(self, request: x509.CertificateSigningRequest, wanted: Wanted, now: datetime) -> Issued:
        """EndpointError or ResourceError where the authority cannot do it now."""
        ...

    def revoke(self, serial: int, reason: str) -> None:
        """Where the authority keeps a list of its own; the store is what counts."""
        ...

    def crl(self, revoked: Sequence[Revoked], now: datetime) -> bytes:
        """A list in PEM of each authority that has signed certificates which may still be valid."""
        ...

    def roots(self) -> bytes:
        """All roots that are trusted now, in PEM, the newest first."""
        ...

    def rotation(self) -> str:
        """Another text after roots or issuers have changed, told at once and without a network; "" where that cannot be."""
        ...


def fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


def serial_text(serial: int) -> str:
    """As certificates are named in the store and in every command."""
    return f"{serial:040x}"
