"""Our own authority: keys and certificates in one folder, readable by this user only.

    roots/<n>/certificate.pem key.pem [cross.pem]      `key.pem` is needed to make issuers and the next root: keep it elsewhere
    issuers/<n>/certificate.pem key.pem root           what signs; the highest number that is there

- Every folder appears whole or not at all: made beside its place, flushed, renamed.
- Files are read anew at each use, so that a rotation made by another process holds at once.
- An old issuer stays, for the CRL of what it has signed; a root stays until `retire_root`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloud.ca import certificates
from cloud.ca.authority import Authority, Issued, Revoked, Wanted
from cloud.ca.certificates import Key
from edge_runtime.durable import disk_errors, sync_folder
from edge_runtime.errors import DataError, ResourceError

CERTIFICATE, KEY, CROSS, ROOT = "certificate.pem", "key.pem", "cross.pem", "root"


@dataclass(frozen=True)
class Issuer:
    number: int
    root: int
    certificate: x509.Certificate
    folder: Path


class LocalAuthority(Authority):
    """The authority in `folder`; `create` makes one where there is none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._roots, self._issuers = folder / "roots", folder / "issuers"

    def create(self, name: str, now: datetime) -> None:
        """Root and issuer, where they are missing: also after a crash between the two."""
        with disk_errors(self._folder):
            for path in (self._folder, self._roots, self._issuers):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._numbers(self._roots):
            self._add_root(1, name, now)
        if not self._numbers(self._issuers):
            self.new_issuer(now)

    # ── the interface ───────────────────────────────────────────────────────────────────────────────────────────────

    def issue(self, request: x509.CertificateSigningRequest, wanted: Wanted, now: datetime) -> Issued:
        by, public = self.issuers()[-1], request.public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise DataError("the request has no elliptic curve key")
        certificate = certificates.leaf(public, wanted, by.certificate, _read_key(by.folder / KEY), now)
        return Issued(certificate, _pem(by.certificate) + self._cross(by.root))

    def revoke(self, serial: int, reason: str) -> None:
        """Nothing to do: `crl` is given what is revoked."""

    def crl(self, revoked: Sequence[Revoked], now: datetime) -> bytes:
        alive = [i for i in self.issuers() if i.certificate.not_valid_after_utc > now]
        lists = [certificates.crl(i.certificate, _read_key(i.folder / KEY), revoked, now) for i in alive]
        return b"".join(made.public_bytes(serialization.Encoding.PEM) for made in lists)

    def roots(self) -> bytes:
        return b"".join(_pem(self.root(number)) for number in reversed(self.root_numbers()))

    def rotation(self) -> str:
        return f"{self.root_numbers()} {self._numbers(self._issuers)}"

    # ── rotation ────────────────────────────────────────────────────────────────────────────────────────────────────

    def new_issuer(self, now: datetime) -> Issuer:
        """From now on it signs. The newest root vouches for it."""
        number, by = max(self._numbers(self._issuers), default=0) + 1, self.root_numbers()[-1]
        root, root_key, key = self.root(by), self._root_key(by), certificates.new_key()
        name = f"{certificates.common_name(root)} issuer {number}"
        made = certificates.issuer(key, name, root, root_key, now)
        self._write(self._issuers / str(number), {CERTIFICATE: _pem(made), KEY: _key_pem(key), ROOT: str(by).encode()})
        return self.issuers()[-1]

    def new_root(self, name: str, now: datetime) -> Issuer:
        """A root that the one before vouches for, and an issuer below it. Both roots are trusted until `retire_root`; there are
        never more than two."""
        if len(trusted := self.root_numbers()) > 1:
            raise DataError(f"roots {trusted[0]} and {trusted[1]} are both trusted; retire root {trusted[0]} first")
        self._add_root(self.root_numbers()[-1] + 1, name, now)
        return self.new_issuer(now)

    def retire_root(self, number: int) -> None:
        """From now on nobody is told to trust it; what it signed through its issuers is worth nothing any more."""
        if number not in self.root_numbers():
            raise DataError(f"there is no root {number}; there are {', '.join(map(str, self.root_numbers()))}")
        if number == self.root_numbers()[-1]:
            raise DataError(f"root {number} is the newest; make another one first")
        with disk_errors(self._roots):
            (self._roots / str(number)).rename(self._roots / f"{number}.retired")
            sync_folder(self._roots)

    # ── what is there ───────────────────────────────────────────────────────────────────────────────────────────────

    def root_numbers(self) -> list[int]:
        numbers = self._numbers(self._roots)
        if not numbers:
            raise ResourceError(f"{self._roots}: there is no certificate authority; `gudgeon cloud` makes one")
        return numbers

    def root(self, number: int) -> x509.Certificate:
        return _read_certificate(self._roots / str(number) / CERTIFICATE)

    def issuers(self) -> list[Issuer]:
        """Of roots that are trusted, the oldest first."""
        trusted, found = set(self.root_numbers()), []
        for number in self._numbers(self._issuers):
            folder = self._issuers / str(number)
            with disk_errors(folder):
                by = int((folder / ROOT).read_text())
            if by in trusted:
                found.append(Issuer(number, by, _read_certificate(folder / CERTIFICATE), folder))
        if not found:
            raise ResourceError(f"{self._issuers}: there is no issuer; run: gudgeon devices ca new-issuer")
        return found

    def _cross(self, root: int) -> bytes:
        """The link from this root to the one before, while that is still trusted."""
        if root == self.root_numbers()[0]:
            return b""
        path = self._roots / str(root) / CROSS
        with disk_errors(path):
            return path.read_bytes()

    def _add_root(self, number: int, name: str, now: datetime) -> None:
        key = certificates.new_key()
        made = certificates.root(key, name if number == 1 else f"{name} {number}", now)
        files = {CERTIFICATE: _pem(made), KEY: _key_pem(key)}
        if number > 1:
            old = self.root_numbers()[-1]
            files[CROSS] = _pem(certificates.cross(made, self.root(old), self._root_key(old), now))
        self._write(self._roots / str(number), files)

    def _root_key(self, number: int) -> Key:
        path = self._roots / str(number) / KEY
        if not path.exists():
            raise ResourceError(f"{path}: not here; bring the root's key back for as long as this takes")
        return _read_key(path)

    def _numbers(self, folder: Path) -> list[int]:
        with disk_errors(folder):
            return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal()) if folder.exists() else []

    def _write(self, folder: Path, files: Mapping[str, bytes]) -> None:
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
        with disk_errors(folder):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(mode=0o700)
            for name, data in files.items():
                fd = os.open(temporary / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(fd, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            sync_folder(temporary)
            temporary.rename(folder)
            sync_folder(folder.parent)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: Key) -> bytes:
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, pkcs8, plain)


def _read_certificate(path: Path) -> x509.Certificate:
    with disk_errors(path):
        data = path.read_bytes()
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError as error:
        raise DataError(f"{path}: not a certificate; restore the folder of the authority from its backup") from error


def _read_key(path: Path) -> Key:
    with disk_errors(path):
        if path.stat().st_mode & 0o077:
            raise ResourceError(f"{path}: other users can read this private key; run: chmod 600 {path}")
        data = path.read_bytes()
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: not a private key; restore the folder of the authority from its backup") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DataError(f"{path}: expected an elliptic curve key")
    return key
