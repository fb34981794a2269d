"""X.509 as this fleet uses it, pure: roots, the authorities below them, what they sign for devices and servers, and their CRLs.

root → issuer → leaf. A new root is also signed by the one before it (`cross`): whoever trusts only the old one believes what
the new one signs. So the path lengths are: root 2, cross 1, issuer 0.

Every certificate names its key and that of its signer (RFC 5280, 4.2.1).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud.ca.authority import BACKDATED, CRL_LIFE, Revoked, Wanted

Key = ec.EllipticCurvePrivateKey
ROOT_LIFE, ISSUER_LIFE = timedelta(days=20 * 365), timedelta(days=5 * 365)
USES = {"device": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def root(key: Key, name: str, now: datetime) -> x509.Certificate:
    subject = _name(name)
    built = _begin(subject, subject, key.public_key(), key.public_key(), now, ROOT_LIFE)
    return _authority(built, path_length=2).sign(key, hashes.SHA256())


def cross(new: x509.Certificate, old: x509.Certificate, old_key: Key, now: datetime) -> x509.Certificate:
    """The new root as the old one vouches for it."""
    public = new.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    life = old.not_valid_after_utc - now
    built = _begin(new.subject, old.subject, public, old_key.public_key(), now, life)
    return _authority(built, path_length=1).sign(old_key, hashes.SHA256())


def issuer(key: Key, name: str, by: x509.Certificate, by_key: Key, now: datetime) -> x509.Certificate:
    built = _begin(_name(name), by.subject, key.public_key(), by_key.public_key(), now, ISSUER_LIFE)
    return _authority(built, path_length=0).sign(by_key, hashes.SHA256())


def leaf(
    public: ec.EllipticCurvePublicKey, wanted: Wanted, by: x509.Certificate, by_key: Key, now: datetime
) -> x509.Certificate:
    life = min(wanted.life, by.not_valid_after_utc - now)
    built = _begin(_name(wanted.common_name), by.subject, public, by_key.public_key(), now, life)
    names = [_general_name(name) for name in wanted.names] or [x509.UniformResourceIdentifier(urn(wanted.common_name))]
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    return (
        built.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([USES[wanted.use]]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(by_key, hashes.SHA256())
    )


def crl(by: x509.Certificate, by_key: Key, revoked: Sequence[Revoked], now: datetime) -> x509.CertificateRevocationList:
    """Its number is the time, so that a later one always has a higher one."""
    built = x509.CertificateRevocationListBuilder().issuer_name(by.subject)
    built = built.last_update(now - BACKDATED).next_update(now + CRL_LIFE)
    built = built.add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
    built = built.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by_key.public_key()), critical=False)
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.serial).revocation_date(one.at)
        built = built.add_revoked_certificate(entry.build())
    return built.sign(by_key, hashes.SHA256())


def urn(device: str) -> str:
    return f"urn:gudgeon:device:{device}"


def common_name(certificate: x509.Certificate | x509.CertificateSigningRequest) -> str:
    """ "" unless there is exactly one."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _begin(
    subject: x509.Name,
    by: x509.Name,
    public: ec.EllipticCurvePublicKey,
    by_public: ec.EllipticCurvePublicKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(by).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    return (
        builder.not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by_public), critical=False)
    )


def _authority(builder: x509.CertificateBuilder, path_length: int) -> x509.CertificateBuilder:
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    constraints = x509.BasicConstraints(ca=True, path_length=path_length)
    return builder.add_extension(constraints, critical=True).add_extension(usage, critical=True)
