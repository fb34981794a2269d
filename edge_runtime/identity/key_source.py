"""KeySource: the private half of the device's TLS key. It is made on the device and never leaves the place where it is kept.

A file (`FileKey`) is one such place; a security chip behind PKCS#11 would be another one, with the same four methods: nothing
else in this package touches a private key.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_runtime.durable import disk_errors, make_folder, make_secret, sync_folder
from edge_runtime.errors import ConfigError, ResourceError


class KeySource(Protocol):
    def public_key(self) -> ec.EllipticCurvePublicKey: ...

    def sign(self, data: bytes) -> bytes:
        """ECDSA with SHA-256, in DER."""
        ...

    def request(self, device: str) -> str:
        """A PKCS#10 request for CN = device and nothing else, in PEM."""
        ...

    def load(self, context: ssl.SSLContext, certificate: Path) -> None:
        """Let the context show this certificate (a file of PEM, the chain after it); ConfigError where the two do not fit."""
        ...


class FileKey:
    """EC P-256 in a PEM file, mode 0600. The file is made whole or not at all, and is on the disk before anybody is told the
    public half."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key = _load_or_make(path)

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._key.public_key()

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))

    def request(self, device: str) -> str:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
        made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self._key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM).decode()

    def load(self, context: ssl.SSLContext, certificate: Path) -> None:
        try:
            context.load_cert_chain(certificate, self.path)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"{certificate}: not usable with {self.path}: {error}; enrol the device again") from error


def _load_or_make(path: Path) -> ec.EllipticCurvePrivateKey:
    with disk_errors(path):
        if not path.exists():
            make_folder(path.parent.parent)
            path.parent.mkdir(exist_ok=True, mode=0o700)
            make_secret(path, _new_pem())
        for folder in (path.parent, path.parent.parent):
            sync_folder(folder)  # whoever made it may have been stopped before this
        if path.stat().st_mode & 0o077:
            raise ResourceError(f"{path}: other users can read this private key; run: chmod 600 {path}")
        pem = path.read_bytes()
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ResourceError(f"{path}: not a private key; move it away and enrol the device again") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ResourceError(f"{path}: not an elliptic curve key; move it away and enrol the device again")
    return key


def _new_pem() -> bytes:
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(serialization.Encoding.PEM, pkcs8, plain)
