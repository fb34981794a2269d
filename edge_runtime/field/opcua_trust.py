"""Who we are to an OPC UA server, and which servers we trust: files in one folder, looked after by the operator.

    own/certificate.der, own/key.pem   made at the first use: RSA 2048, for ten years; the key has mode 0600
    trusted/                           certificates of servers (.der, .crt, .pem) that may be spoken to
    rejected/                          what an unknown server has shown; moving a file to trusted/ accepts it

A server is trusted when exactly its certificate lies in trusted/, and it has not run out. No authority is asked.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import socket
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_runtime.durable import disk_errors
from edge_runtime.errors import EndpointError, ResourceError

VALID_DAYS = 3653
REJECTED_LIMIT = 100
CERTIFICATE_LIMIT_BYTES = 64 * 1024


class TrustList:
    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self._device = folder, device
        self.uri = f"urn:gudgeon:device:{device}"
        self.certificate, self.key = folder / "own" / "certificate.der", folder / "own" / "key.pem"

    def prepare(self) -> None:
        """Make the folders, and our own certificate where there is none yet."""
        with disk_errors(self.folder):
            for name in ("own", "trusted", "rejected"):
                (self.folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            if not (self.certificate.exists() and self.key.exists()):
                self._make()
            if self.key.stat().st_mode & 0o077:
                raise ResourceError(f"{self.key}: other users can read it; run: chmod 600 {self.key}")

    def check(self, endpoint: str, certificate: bytes, now: datetime.datetime) -> None:
        """EndpointError for a server that is not trusted; its certificate is then in rejected/."""
        name = f"{_short(certificate)}.der"
        if certificate not in self._trusted():
            self._reject(certificate, name)
            raise EndpointError(
                f"{endpoint}: its certificate is not trusted; if its thumbprint is {thumbprint(certificate)}, accept it with: "
                f"mv {self.folder / 'rejected' / name} {self.folder / 'trusted'}/"
            )
        until = x509.load_der_x509_certificate(certificate).not_valid_after_utc
        if until < now:
            raise EndpointError(
                f"{endpoint}: its certificate has run out on {until:%Y-%m-%d}; give the server a new one"
            )

    def _trusted(self) -> set[bytes]:
        out = set()
        for path in sorted((self.folder / "trusted").iterdir()):
            if (
                path.suffix.lower() in (".der", ".crt", ".cer", ".pem")
                and path.stat().st_size <= CERTIFICATE_LIMIT_BYTES
            ):
                with disk_errors(path):
                    out.add(_der(path.read_bytes()))
        return out

    def _reject(self, certificate: bytes, name: str) -> None:
        """Keep it for the operator; at most so many, so that nobody can fill the disk."""
        folder = self.folder / "rejected"
        if len(certificate) <= CERTIFICATE_LIMIT_BYTES and len(list(folder.iterdir())) < REJECTED_LIMIT:
            with disk_errors(folder):
                (folder / name).write_bytes(certificate)

    def _make(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        host = socket.gethostname()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Gudgeon {self._device}"[:64])])
        now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=True, key_encipherment=True, data_encipherment=True,
            key_agreement=False, key_cert_sign=True, crl_sign=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(self.uri), x509.DNSName(_dns(host))]), False
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
            .add_extension(usage, True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .sign(key, hashes.SHA256())
        )
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        descriptor = os.open(self.key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.DER))


def thumbprint(certificate: bytes) -> str:
    """SHA-256, as the tools of OPC UA servers show it."""
    return hashlib.sha256(certificate).hexdigest().upper()


def _short(certificate: bytes) -> str:
    try:
        names = x509.load_der_x509_certificate(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        name = str(names[0].value) if names else "server"
    except ValueError:
        name = "unreadable"
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)[:60]}-{thumbprint(certificate)[:16]}"


def _der(data: bytes) -> bytes:
    if not data.startswith(b"-----BEGIN"):
        return data
    try:
        return x509.load_pem_x509_certificate(data).public_bytes(serialization.Encoding.DER)
    except ValueError:
        return b""


def _dns(host: str) -> str:
    return host.encode("idna").decode() if host else "localhost"
