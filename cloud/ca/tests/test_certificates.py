"""The local authority: what it signs is what RFC 5280 and OpenSSL want, and its rotation locks nobody out."""

from __future__ import annotations

import os
import shutil
import ssl
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloud.ca.authority import Issued, Revoked, Wanted
from cloud.ca.local import LocalAuthority
from cloud.devices.tests.listening import make_csr, make_key, pem_of
from edge_runtime.errors import DataError, ResourceError

NOW = datetime.now(UTC)
LIFE = timedelta(days=60)


def authority(folder: Path) -> LocalAuthority:
    made = LocalAuthority(folder / "ca")
    made.create("Test", NOW)
    return made


def issue(by: LocalAuthority, use: str = "device", folder: Path | None = None) -> Issued:
    key = make_key()
    wanted = Wanted("a", LIFE) if use == "device" else Wanted("cloud", LIFE, "server", ("localhost", "127.0.0.1"))
    issued = by.issue(x509.load_pem_x509_csr(make_csr("a", key).encode()), wanted, NOW)
    if folder:
        (folder / f"{use}.pem").write_text(pem_of(key) + issued.full_chain.decode())
    return issued


def shake(folder: Path, roots_of_client: bytes, roots_of_server: bytes) -> str:
    """A handshake in memory, both sides with a certificate, all checks on, those of strict X.509 too; the client's name."""
    server, client = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ssl.create_default_context(cadata=roots_of_client.decode()),
    )
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(cadata=roots_of_server.decode())
    for context, name in ((server, "server"), (client, "device")):
        context.load_cert_chain(folder / f"{name}.pem")
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(6):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    subject = (ends[1].getpeercert() or {})["subject"]
    return str(dict(pair[0] for pair in subject)["commonName"])  # type: ignore[misc]


def test_extensions_are_those_of_the_use_and_no_more(tmp_path: Path) -> None:
    by = authority(tmp_path)
    for use, oid in (("device", ExtendedKeyUsageOID.CLIENT_AUTH), ("server", ExtendedKeyUsageOID.SERVER_AUTH)):
        found = issue(by, use).certificate.extensions
        assert list(found.get_extension_for_class(x509.ExtendedKeyUsage).value) == [oid]
        constraints = found.get_extension_for_class(x509.BasicConstraints)
        assert (constraints.critical, constraints.value.ca) == (True, False)
        usage = found.get_extension_for_class(x509.KeyUsage)
        assert (usage.critical, usage.value.digital_signature, usage.value.key_cert_sign) == (True, True, False)
    issuer, root = by.issuers()[0].certificate, by.root(1)
    lengths = [c.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length for c in (root, issuer)]
    assert lengths == [2, 0]
    skid = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    leaf = issue(by).certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert leaf.key_identifier == skid


def test_a_strict_handshake_in_both_directions(tmp_path: Path) -> None:
    by = authority(tmp_path)
    issue(by, "device", tmp_path)
    issue(by, "server", tmp_path)
    assert shake(tmp_path, by.roots(), by.roots()) == "a"


def test_a_device_certificate_serves_nobody(tmp_path: Path) -> None:
    by = authority(tmp_path)
    issue(by, "device", tmp_path)
    shutil.copy(tmp_path / "device.pem", tmp_path / "server.pem")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(tmp_path, by.roots(), by.roots())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_takes_certificate_and_list_and_refuses_what_is_revoked(tmp_path: Path) -> None:
    by = authority(tmp_path)
    good, bad = issue(by), issue(by)
    by.new_issuer(NOW)
    issued_by_both = (good, bad, issue(by))
    revoked = [Revoked(bad.certificate.serial_number, NOW)]
    (tmp_path / "roots.pem").write_bytes(by.roots())
    (tmp_path / "crl.pem").write_bytes(by.crl(revoked, NOW))
    told = []
    for one in issued_by_both:
        (tmp_path / "leaf.pem").write_bytes(one.pem)
        (tmp_path / "chain.pem").write_bytes(one.chain)
        command = ["openssl", "verify", "-x509_strict", "-crl_check", "-CRLfile", "crl.pem", "-CAfile", "roots.pem",
                   "-untrusted", "chain.pem", "-purpose", "sslclient", "leaf.pem"]  # fmt: skip
        told.append(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False))
    assert [t.returncode == 0 for t in told] == [True, False, True], [t.stderr for t in told]
    assert "certificate revoked" in told[1].stderr


def test_a_new_root_is_believed_by_those_who_know_only_the_old_one_until_it_is_retired(tmp_path: Path) -> None:
    by = authority(tmp_path)
    old = by.roots()
    issue(by, "device", tmp_path)  # of the old root
    by.new_root("Test", NOW)
    assert by.root_numbers() == [1, 2]
    issue(by, "server", tmp_path)  # of the new one
    assert shake(tmp_path, old, by.roots()) == "a", "the device knows the old root only"
    issue(by, "device", tmp_path)
    assert shake(tmp_path, by.roots(), old) == "a", "the server knows the old root only"
    assert shake(tmp_path, by.roots(), by.roots()) == "a"
    with pytest.raises(DataError, match="retire root 1 first"):
        by.new_root("Test", NOW)
    by.retire_root(1)
    issue(by, "server", tmp_path)
    assert shake(tmp_path, by.roots(), by.roots()) == "a"
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(tmp_path, old, by.roots())
    assert len(x509.load_pem_x509_certificates(by.roots())) == 1
    for wrong in (1, 2):
        with pytest.raises(DataError, match=r"no root 1|make another one first"):
            by.retire_root(wrong)


def test_the_root_key_may_be_away_for_all_but_rotation(tmp_path: Path) -> None:
    by = authority(tmp_path)
    key = tmp_path / "ca" / "roots" / "1" / "key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700
    moved = key.rename(tmp_path / "safe.pem")
    assert issue(by).certificate
    assert by.crl([], NOW)
    with pytest.raises(ResourceError, match="bring the root's key back"):
        by.new_issuer(NOW)
    moved.rename(key)
    assert by.new_issuer(NOW).number == 2


def test_keys_that_others_can_read_are_refused(tmp_path: Path) -> None:
    by = authority(tmp_path)
    (tmp_path / "ca" / "issuers" / "1" / "key.pem").chmod(0o640)
    with pytest.raises(ResourceError, match="chmod 600"):
        issue(by)


@pytest.mark.parametrize("crash", range(2))
def test_what_a_crash_left_half_made_is_made_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: int
) -> None:
    left = [crash]

    def rename(self: Path, target: Path) -> Path:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        os.rename(self, target)
        return target

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            authority(tmp_path)
    by = authority(tmp_path)
    assert ([*by.root_numbers()], [i.number for i in by.issuers()]) == ([1], [1])
    assert issue(by).certificate


def test_a_life_ends_no_later_than_that_of_the_authority(tmp_path: Path) -> None:
    by, key = authority(tmp_path), make_key()
    late = by.issuers()[0].certificate.not_valid_after_utc - timedelta(days=1)
    issued = by.issue(x509.load_pem_x509_csr(make_csr("a", key).encode()), Wanted("a", LIFE), late)
    assert issued.certificate.not_valid_after_utc == late + timedelta(days=1)
