"""Certificates for the tests of the device: a root, what it signs, and a cloud without a network."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_runtime.identity.cloud import Cloud
from edge_runtime.identity.credentials import Credentials
from edge_runtime.wire.enrolment import Certified

NOW = datetime(2026, 6, 1, tzinfo=UTC)
NOW_NS = round(NOW.timestamp()) * 10**9
DAY_NS = 86_400 * 10**9


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


class Root:
    def __init__(self, name: str = "root") -> None:
        self._key, self._name = ec.generate_private_key(ec.SECP256R1()), name
        self.certificate = self.sign(name, self._key.public_key(), ca=True)

    def sign(
        self,
        name: str,
        public: ec.EllipticCurvePublicKey,
        begins: datetime = NOW - timedelta(days=1),
        days: int = 60,
        ca: bool = False,
        use: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> x509.Certificate:
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        builder = x509.CertificateBuilder().subject_name(named(name)).issuer_name(named(self._name)).public_key(public)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begins)
        builder = builder.not_valid_after(begins + timedelta(days=days))
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if not ca:
            builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def certify(self, csr: str, begins: datetime = NOW - timedelta(days=1), name: str = "a") -> Certified:
        public = x509.load_pem_x509_csr(csr.encode()).public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        return Certified(name, pem(self.sign(name, public, begins)), "", pem(self.certificate))


class FakeCloud(Cloud):
    """Signs what it is asked to; `fail` is raised by the question of that name."""

    def __init__(self, root: Root) -> None:
        super().__init__("https://cloud.example:8443")
        self.root, self.begins = root, NOW
        self.asked: list[str] = []
        self.fail: dict[str, Exception] = {}

    def _note(self, what: str) -> None:
        self.asked.append(what)
        if what in self.fail:
            raise self.fail[what]

    def renew(self, credentials: Credentials, csr: str) -> Certified:
        self._note("renew")
        return self.root.certify(csr, self.begins)

    def renew_expired(self, context: object, credentials: Credentials, csr: str) -> Certified:
        self._note("prove")
        return self.root.certify(csr, self.begins)

    def works(self, credentials: Credentials) -> None:
        self._note("works")
