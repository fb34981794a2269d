"""The device's TLS key and certificate: made, renewed, both replaced. At every point they fit, and nothing told is gone."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_runtime.identity.credentials import CredentialStore, spki
from edge_runtime.identity.key_source import KeySource
from edge_runtime.wire.enrolment import Certified
from tools.crash.models import Model
from tools.crash.notes import Note, tell
from tools.crash.scenario import Scenario, State

DEVICE = "a"
AUTHORITY = "authority.pem"  # key and certificate of whoever signs; not the device's
LIFE = timedelta(days=60)


def prepare(folder: Path) -> None:
    key, name = ec.generate_private_key(ec.SECP256R1()), _name("root")
    made = _begin(name, name, key.public_key()).add_extension(x509.BasicConstraints(True, None), critical=True)
    certificate = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pkcs8, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / AUTHORITY).write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, plain) + certificate)


def run(folder: Path) -> None:
    """Enrolled, renewed, enrolled anew with another key."""
    store = CredentialStore(folder, DEVICE)
    _adopt(folder, store, store.key(), new_key=False)
    _adopt(folder, store, store.key(), new_key=False)
    _adopt(folder, store, store.key(new=True), new_key=True)


def recover(folder: Path) -> State:
    store = CredentialStore(folder, DEVICE)
    state = {"serial": "", "key": "", "fits": True, "private": True}
    if store.enrolled:
        current = store.current()
        state |= {"serial": f"{current.certificate().serial_number:x}", "key": spki(current.key.public_key()).hex()}
        try:
            current.context()
        except (ssl.SSLError, OSError):
            state["fits"] = False
    found = list(store.folder.glob("tls.key*")) if store.folder.exists() else []
    state["private"] = all(os.stat(p).st_mode & 0o077 == 0 for p in found)
    state["keys"] = sorted({spki(store.key(new=p.name.endswith(".new")).public_key()).hex() for p in found})
    _adopt(folder, store, store.key(), new_key=False)
    return state


def check(notes: Sequence[Note], state: State, model: Model) -> list[str]:
    if "error" in state:
        return [f"recovery failed: {state['error']}"]
    wrong = []
    adopted = [n["adopted"] for n in notes if "adopted" in n]
    begun = [n["begun"] for n in notes if "begun" in n]
    allowed = set(begun[len(adopted) :]) | ({adopted[-1]} if adopted else {""})
    if state["serial"] not in allowed:
        wrong.append(f"certificate {state['serial'] or 'none'}, expected one of {sorted(allowed)}")
    if not state["fits"] or not state["private"]:
        wrong.append("key and certificate do not fit, or others can read the key")
    told = [n["key"] for n in notes if "key" in n]
    if told and told[-1] not in state["keys"]:
        wrong.append("the key that a certificate was asked for is gone")
    return wrong


def _adopt(folder: Path, store: CredentialStore, key: KeySource, new_key: bool) -> None:
    tell(key=spki(key.public_key()).hex())
    given = _certify(folder, key)
    serial = f"{x509.load_pem_x509_certificate(given.certificate.encode()).serial_number:x}"
    tell(begun=serial)
    now_ns = round(datetime.now(UTC).timestamp() * 1e9)
    store.adopt(given, key, new_key, now_ns, lambda candidate: None)
    tell(adopted=serial)


def _certify(folder: Path, key: KeySource) -> Certified:
    data = (folder / AUTHORITY).read_bytes()
    by_key, by = serialization.load_pem_private_key(data, None), x509.load_pem_x509_certificate(data)
    assert isinstance(by_key, ec.EllipticCurvePrivateKey)
    request = x509.load_pem_x509_csr(key.request(DEVICE).encode()).public_key()
    assert isinstance(request, ec.EllipticCurvePublicKey)
    built = _begin(_name(DEVICE), by.subject, request)
    built = built.add_extension(x509.BasicConstraints(False, None), critical=True)
    built = built.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    made, root = (
        c.public_bytes(serialization.Encoding.PEM).decode() for c in (built.sign(by_key, hashes.SHA256()), by)
    )
    return Certified(DEVICE, made, "", root)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _begin(name: x509.Name, by: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(by).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + LIFE)


IDENTITY = Scenario("key and certificate made, renewed, replaced", run, recover, check, prepare)
