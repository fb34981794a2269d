"""One contract, two authorities: our own, and step-ca behind a server that follows its documented API."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloud.ca.authority import Authority, Revoked, Wanted
from cloud.ca.certificates import common_name
from cloud.ca.local import LocalAuthority
from cloud.ca.step import StepAuthority, thumbprint
from cloud.ca.tests.step_server import step_server
from cloud.devices.served import Served
from cloud.devices.tests.listening import make_csr, make_key, pem_of
from edge_runtime.errors import ConfigError, EndpointError, GudgeonError

NOW = datetime.now(UTC)
DEVICE = Wanted("a", timedelta(days=60))
SERVER = Wanted("cloud", timedelta(days=30), "server", ("localhost", "127.0.0.1"))


def step(folder: Path, url: str, roots: bytes, key: ec.EllipticCurvePrivateKey, name: str = "gudgeon") -> StepAuthority:
    (folder / "root.pem").write_bytes(roots)
    (folder / "provisioner.key").write_text(pem_of(key))
    (folder / "provisioner.key").chmod(0o600)
    return StepAuthority(url, folder / "root.pem", name, folder / "provisioner.key")


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the test, not of the import: a token of step-ca lives five minutes, a run of all tests longer."""
    monkeypatch.setitem(globals(), "NOW", datetime.now(UTC).replace(microsecond=0))


@pytest.fixture(params=["local", "step"])
def authority(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Authority]:
    if request.param == "local":
        local = LocalAuthority(tmp_path / "ca")
        local.create("Test", NOW)
        yield local
        return
    key = make_key()
    with step_server(tmp_path, "gudgeon", key.public_key()) as server:
        yield step(tmp_path, server.url, server.authority.roots(), key)


def csr(name: str = "a") -> x509.CertificateSigningRequest:
    return x509.load_pem_x509_csr(make_csr(name, make_key()).encode())


def test_what_is_issued_has_key_name_and_life_that_were_asked_for_and_leads_to_a_root(authority: Authority) -> None:
    request = csr()
    issued = authority.issue(request, DEVICE, NOW)
    made = issued.certificate
    assert (made.public_key(), common_name(made)) == (request.public_key(), "a")
    assert abs(made.not_valid_after_utc - (NOW + DEVICE.life)) < timedelta(minutes=1)
    assert made.not_valid_before_utc <= NOW
    assert ExtendedKeyUsageOID.CLIENT_AUTH in made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    chain = x509.load_pem_x509_certificates(issued.full_chain)
    for one, by in zip(chain, [*chain[1:], x509.load_pem_x509_certificate(authority.roots())], strict=True):
        one.verify_directly_issued_by(by)


def test_a_server_gets_its_names(authority: Authority) -> None:
    made = authority.issue(csr("cloud"), SERVER, NOW).certificate
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(name.value) for name in names} == set(SERVER.names)


def test_the_certificate_of_a_listener_is_made_kept_and_made_anew_for_other_names(
    authority: Authority, tmp_path: Path
) -> None:
    clock = lambda: round(NOW.timestamp() * 1e9)  # noqa: E731
    served = Served(tmp_path / "served", ("localhost",), authority, clock)
    served.load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    assert not served.refresh(), "it holds"
    assert served.path.stat().st_mode & 0o777 == 0o600
    assert Served(tmp_path / "served", ("other.example",), authority, clock).refresh()
    later = lambda: round((NOW + timedelta(days=21)).timestamp() * 1e9)  # noqa: E731
    assert Served(tmp_path / "served", ("other.example",), authority, later)._due(NOW + timedelta(days=21))


def test_what_is_revoked_is_in_the_list_and_nothing_else(authority: Authority) -> None:
    good, bad = (authority.issue(csr(), DEVICE, NOW).certificate.serial_number for _ in range(2))
    authority.revoke(bad, "stolen")
    crl = x509.load_pem_x509_crl(authority.crl([Revoked(bad, NOW)], datetime.now(UTC)))
    assert crl.get_revoked_certificate_by_serial_number(bad)
    assert crl.get_revoked_certificate_by_serial_number(good) is None
    assert crl.next_update_utc
    assert crl.next_update_utc > NOW + timedelta(days=1)


def test_a_provisioner_that_step_ca_does_not_know_gets_nothing(tmp_path: Path) -> None:
    key = make_key()
    with step_server(tmp_path, "gudgeon", key.public_key()) as server:
        for asked in (
            step(tmp_path, server.url, server.authority.roots(), make_key()),
            step(tmp_path, server.url, server.authority.roots(), key, "other"),
        ):
            with pytest.raises(GudgeonError, match="HTTP 401"):
                asked.issue(csr(), DEVICE, NOW)
        stranger = LocalAuthority(tmp_path / "other")
        stranger.create("Other", NOW)
        with pytest.raises(EndpointError, match="CERTIFICATE_VERIFY_FAILED"):
            step(tmp_path, server.url, stranger.roots(), key).roots()


def test_the_thumbprint_is_that_of_rfc_7638(tmp_path: Path) -> None:
    """A key that was made known: x and y of RFC 7515, A.3."""
    x = int.from_bytes(bytes.fromhex("7fcdce2770f6c45d4183cbee6fdb4b7b580733357be9ef13bacf6e3c7bd15445"))
    y = int.from_bytes(bytes.fromhex("c7f144cd1bbd9b7e872cdfedb9eeb9f4b3695d6ea90b24ad8a4623288588e5ad"))
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    assert thumbprint(key) == "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"


def test_files_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("x")
    (tmp_path / "k").chmod(0o600)
    with pytest.raises(ConfigError, match="not a private key"):
        StepAuthority("https://ca", tmp_path / "k", "p", tmp_path / "k")
