"""The server's own certificate: made by the authority when it is missing, soon over, or for other names; loaded for the next
connections without a restart."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from cloud.ca.authority import SERVER_LIFE, Authority, Wanted
from cloud.ca.certificates import Key, new_key
from cloud.enrol.desk import Clock
from edge_runtime.durable import disk_errors, replace_file

NAME = "gudgeon-cloud"


class Served:
    """`server.pem` in `folder`: key, certificate and chain in one file, so that they always fit; readable by this user only."""

    def __init__(self, folder: Path, names: tuple[str, ...], authority: Authority, now_ns: Clock) -> None:
        self.path = folder / "server.pem"
        self._names, self._authority, self._now_ns = names, authority, now_ns

    def refresh(self, context: ssl.SSLContext | None = None) -> bool:
        """Make it anew where that is due; True where it was. It is loaded into `context` then."""
        now = datetime.fromtimestamp(self._now_ns() / 1e9, UTC)
        due = self._due(now)
        if due:
            self._make(now)
        if context is not None and due:
            context.load_cert_chain(self.path)
        return due

    def load(self, context: ssl.SSLContext) -> None:
        if not self.refresh(context):
            context.load_cert_chain(self.path)

    def _due(self, now: datetime) -> bool:
        with disk_errors(self.path):
            if not self.path.exists():
                return True
            data = self.path.read_bytes()
        try:
            chain = x509.load_pem_x509_certificates(data[data.index(b"-----BEGIN CERTIFICATE") :])
        except ValueError:
            return True
        made = chain[0]
        if now > made.not_valid_after_utc - (made.not_valid_after_utc - made.not_valid_before_utc) / 3:
            return True
        names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        there = {str(n.value) for n in names}
        return there != set(self._names) or not self._still_trusted(chain)

    def _still_trusted(self, chain: list[x509.Certificate]) -> bool:
        roots = x509.load_pem_x509_certificates(self._authority.roots())
        newest = roots[0].subject
        return any(certificate.issuer == newest for certificate in chain[1:])

    def _make(self, now: datetime) -> None:
        key = new_key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        issued = self._authority.issue(request, Wanted(NAME, SERVER_LIFE, "server", self._names), now)
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(self.path, _pem(key) + issued.full_chain, mode=0o600)


def _pem(key: Key) -> bytes:
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, pkcs8, plain)
