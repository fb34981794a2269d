"""A small certificate authority for a broker: real X.509, made for one run."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

BEFORE = datetime.timedelta(hours=1)
CA_LIFE = datetime.timedelta(days=30)


class Authority:
    """Writes `ca.pem`, and `server.pem` with `server.key` as often as `issue` is called."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ca, self.certificate, self.key = folder / "ca.pem", folder / "server.pem", folder / "server.key"
        self._ca_key = ec.generate_private_key(ec.SECP256R1())
        self._ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gudgeon chaos CA")])
        now = datetime.datetime.now(datetime.UTC)
        built = _begin(self._ca_name, self._ca_name, self._ca_key.public_key(), now + CA_LIFE)
        built = built.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        signed = built.add_extension(usage, critical=True).sign(self._ca_key, hashes.SHA256())
        self.ca.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def issue(self, addresses: list[str], life_s: float) -> datetime.datetime:
        """A new server certificate for these addresses; when it ends."""
        key = ec.generate_private_key(ec.SECP256R1())
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=life_s)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gudgeon chaos broker")])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(a)) for a in addresses])
        built = _begin(name, self._ca_name, key.public_key(), ends).add_extension(names, critical=False)
        signed = built.sign(self._ca_key, hashes.SHA256())
        self.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.key.touch(0o600)
        self.key.write_bytes(private)
        return ends


def _begin(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, ends: datetime.datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key)
    return (
        builder.serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.now(datetime.UTC) - BEFORE)
        .not_valid_after(ends)
    )
