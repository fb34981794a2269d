"""Credentials: the device's certificate, its key and the roots that it trusts, in `<state_dir>/identity`. They change only for
ones that were found to work.

    tls.key   the private key (`key_source`)            tls.pem   certificate and chain            ca.pem   roots

- New ones are checked (name, key, use, time, chain to a root), then tried: a real request to the cloud with them must be
  answered. Only then do they take the place of the old ones. Until then they lie beside them as `….new`.
- The certificate is replaced before the key that belongs to it, and what a crash leaves in between is put right by the next
  who opens them: a `tls.key.new` whose certificate is in place moves in.
- The three names are stable, so that other programs on the device (MQTT clients, `curl`) can use them.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_runtime.durable import disk_errors, replace_file, sync_folder
from edge_runtime.errors import ConfigError, DataError
from edge_runtime.identity.key_source import FileKey, KeySource
from edge_runtime.tls_files import CERTIFICATE, FOLDER, KEY, ROOTS
from edge_runtime.wire.enrolment import Certified

NEW = ".new"
#: opens a connection with credentials that are on trial: EndpointError, or any other error of ours, where they do not work
Try = Callable[["Credentials"], None]


@dataclass(frozen=True)
class Credentials:
    """One set of files. `key` may be one that is on trial, too."""

    device: str
    key: KeySource
    certificate_path: Path
    roots_path: Path

    def certificate(self) -> x509.Certificate:
        return load_chain(self.certificate_path)[0]

    def context(self) -> ssl.SSLContext:
        """For a connection to the cloud: TLS 1.2 or newer, only our roots, the host's name checked, our certificate shown."""
        context = trusting(self.roots_path)
        self.key.load(context, self.certificate_path)
        return context


class CredentialStore:
    """Opens what is there and puts right what a crash left. `make_key` gives the key that is kept at a path."""

    def __init__(self, state_dir: Path, device: str, make_key: Callable[[Path], KeySource] = FileKey) -> None:
        self._state_dir, self.device, self._make_key = state_dir, device, make_key
        self._finish()

    @property
    def folder(self) -> Path:
        return self._state_dir / FOLDER

    def _path(self, name: Path, new: bool = False) -> Path:
        return self._state_dir / (f"{name}{NEW}" if new else name)

    @property
    def enrolled(self) -> bool:
        with disk_errors(self.folder):
            return self._path(CERTIFICATE).exists() and self._path(ROOTS).exists()

    def key(self, new: bool = False) -> KeySource:
        """The key in use, made at first; `new`: the one that shall take its place, the same one until it has."""
        return self._make_key(self._path(KEY, new))

    def current(self) -> Credentials:
        if not self.enrolled:
            raise ConfigError(f"{self._path(CERTIFICATE)}: no such file; enrol the device first: gudgeon enroll")
        return Credentials(self.device, self.key(), self._path(CERTIFICATE), self._path(ROOTS))

    def adopt(self, given: Certified, key: KeySource, new_key: bool, now_ns: int, attempt: Try) -> Credentials:
        """Check, try, replace. Whatever goes wrong before the replacement changes nothing of what is in use."""
        leaf = check(given, self.device, key.public_key(), now_ns)
        candidate = Credentials(self.device, key, self._path(CERTIFICATE, True), self._path(ROOTS, True))
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        shown, roots = (given.certificate + given.chain).encode(), given.roots.encode()
        replace_file(candidate.certificate_path, shown)
        replace_file(candidate.roots_path, roots)
        attempt(candidate)
        replace_file(self._path(ROOTS), roots)
        replace_file(self._path(CERTIFICATE), shown)
        if new_key:
            self._finish()
        with disk_errors(self.folder):
            for path in (candidate.certificate_path, candidate.roots_path):
                path.unlink(missing_ok=True)
            sync_folder(self.folder)
            sync_folder(self.folder.parent)
        found = self.current()
        assert found.certificate() == leaf
        return found

    def _finish(self) -> None:
        """A new key whose certificate is in place takes its place, too."""
        waiting, certificate = self._path(KEY, True), self._path(CERTIFICATE)
        with disk_errors(self.folder):
            if not waiting.exists() or not certificate.exists():
                return
            if spki(load_chain(certificate)[0].public_key()) == spki(self._make_key(waiting).public_key()):
                waiting.replace(self._path(KEY))
                sync_folder(self.folder)


def trusting(roots: Path) -> ssl.SSLContext:
    """A context that believes these roots and nobody else."""
    try:
        context = ssl.create_default_context(cafile=str(roots))
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"{roots}: not usable for TLS: {error}; expected certificates in PEM") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def load_chain(path: Path) -> list[x509.Certificate]:
    with disk_errors(path):
        data = path.read_bytes()
    return read_chain(data, str(path))


def read_chain(data: bytes, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise DataError(f"{what}: expected certificates in PEM; enrol the device again") from error


def spki(key: object) -> bytes:
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def check(given: Certified, device: str, public: ec.EllipticCurvePublicKey, now_ns: int) -> x509.Certificate:
    """The certificate, where it is one that this device can use; DataError says what is wrong. What TLS checks once more is
    checked here, too, so that the reason can be told."""
    leaf = read_chain(given.certificate.encode(), "the certificate that the cloud sent")[0]
    names = [(a.oid, a.value) for a in leaf.subject]
    if given.device != device or names != [(NameOID.COMMON_NAME, device)]:
        raise DataError(f"the cloud sent a certificate for {given.device[:64]!r}, and this device is {device}")
    found = leaf.public_key()
    if not isinstance(found, ec.EllipticCurvePublicKey) or spki(found) != spki(public):
        raise DataError("the cloud sent a certificate for another key than this device's; ask again")
    now = datetime.fromtimestamp(now_ns // 10**9, UTC)
    if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
        first, last = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        raise DataError(
            f"the cloud sent a certificate that is valid from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}, and it is "
            f"{now:%Y-%m-%d %H:%M} here (UTC); set the clock"
        )
    if not _for_clients(leaf):
        raise DataError("the cloud sent a certificate that is not made for a client; ask again")
    roots = read_chain(given.roots.encode(), "the roots that the cloud sent")
    between = x509.load_pem_x509_certificates(given.chain.encode()) if given.chain.strip() else []
    if not leads_to(leaf, between, roots):
        raise DataError("the cloud sent a certificate that does not lead to a root that it sent; ask again")
    return leaf


def leads_to(leaf: x509.Certificate, between: list[x509.Certificate], roots: list[x509.Certificate]) -> bool:
    """Do the signatures lead from here to one of the roots? Longer chains than ours are not followed."""
    at, left = leaf, list(between)
    for _ in range(len(between) + 1):
        if any(_signed_by(at, root) for root in roots):
            return True
        step = next((one for one in left if _signed_by(at, one)), None)
        if step is None:
            return False
        left.remove(step)
        at = step
    return False


def _signed_by(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _for_clients(leaf: x509.Certificate) -> bool:
    try:
        uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        authority = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.CLIENT_AUTH in uses and not authority
