"""What the device uses to say who it is: the key stays, and only what works replaces what is there."""

from __future__ import annotations

import os
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge_runtime.errors import ConfigError, DataError, EndpointError, ResourceError
from edge_runtime.identity.credentials import Credentials, CredentialStore, spki
from edge_runtime.identity.key_source import FileKey
from edge_runtime.identity.tests.made import NOW, NOW_NS, Root, pem
from edge_runtime.tls_files import CERTIFICATE, KEY
from edge_runtime.wire.enrolment import Certified


def works(_: Credentials) -> None:
    """It was tried."""


def enrolled(folder: Path, root: Root) -> CredentialStore:
    store = CredentialStore(folder, "a")
    store.adopt(root.certify(store.key().request("a")), store.key(), False, NOW_NS, works)
    return store


def test_the_key_is_made_once_for_this_user_only_and_asks_for_one_name(tmp_path: Path) -> None:
    key = FileKey(tmp_path / KEY)
    assert stat.S_IMODE((tmp_path / KEY).stat().st_mode) == 0o600
    assert spki(FileKey(tmp_path / KEY).public_key()) == spki(key.public_key())
    request = x509.load_pem_x509_csr(key.request("a").encode())
    assert (request.is_signature_valid, request.subject.rfc4514_string(), len(request.extensions)) == (True, "CN=a", 0)
    (tmp_path / KEY).chmod(0o640)
    with pytest.raises(ResourceError, match="chmod 600"):
        FileKey(tmp_path / KEY)


def test_what_works_is_in_place_and_nothing_else_is_left(tmp_path: Path) -> None:
    store = enrolled(tmp_path, Root())
    assert {p.name for p in store.folder.iterdir()} == {"tls.key", "tls.pem", "ca.pem"}
    assert store.current().context().get_ca_certs()


def test_before_enrolment_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gudgeon enroll"):
        CredentialStore(tmp_path, "a").current()


def test_what_does_not_work_replaces_nothing(tmp_path: Path) -> None:
    root = Root()
    store = enrolled(tmp_path, root)
    before = (tmp_path / CERTIFICATE).read_bytes()

    def fails(candidate: Credentials) -> None:
        assert candidate.certificate_path.read_bytes() != before, "it is tried from its own file"
        raise EndpointError("no answer")

    with pytest.raises(EndpointError):
        store.adopt(root.certify(store.key().request("a")), store.key(), False, NOW_NS, fails)
    assert (tmp_path / CERTIFICATE).read_bytes() == before


OTHER = Root("other")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "of another device": ({"name": "b"}, "this device is a"),
    "not yet valid": ({"begins": NOW + timedelta(days=1)}, "set the clock"),
    "expired": ({"begins": NOW - timedelta(days=90)}, "set the clock"),
    "for servers": ({"use": ExtendedKeyUsageOID.SERVER_AUTH}, "not made for a client"),
    "an authority": ({"ca": True}, "not made for a client"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_certificate_that_this_device_cannot_use_is_not_even_tried(tmp_path: Path, case: str) -> None:
    root, store = Root(), CredentialStore(tmp_path, "a")
    changed, text = BAD[case]
    made = root.sign(**{"name": "a", "public": store.key().public_key(), **changed})
    given = Certified("a", pem(made), "", pem(root.certificate))
    with pytest.raises(DataError, match=text):
        store.adopt(given, store.key(), False, NOW_NS, lambda _: pytest.fail("tried"))
    assert not store.enrolled


def test_a_certificate_of_another_key_or_root_is_not_tried(tmp_path: Path) -> None:
    root, store = Root(), CredentialStore(tmp_path, "a")
    csr, other = store.key().request("a"), FileKey(tmp_path / "other.key").request("a")
    for given, text in (
        (root.certify(other), "another key"),
        (root.certify(csr)._replace(roots=pem(OTHER.certificate)), "does not lead to a root"),
        (root.certify(csr)._replace(certificate="rubbish"), "PEM"),
    ):
        with pytest.raises(DataError, match=text):
            store.adopt(given, store.key(), False, NOW_NS, lambda _: pytest.fail("tried"))


def test_a_chain_over_an_intermediate_leads_to_the_root(tmp_path: Path) -> None:
    root, store = Root(), CredentialStore(tmp_path, "a")
    between = Root("between")
    issuer = root.sign("between", between.certificate.public_key(), ca=True)  # type: ignore[arg-type]
    given = between.certify(store.key().request("a"))._replace(chain=pem(issuer), roots=pem(root.certificate))
    assert store.adopt(given, store.key(), False, NOW_NS, works).certificate().issuer == issuer.subject


@pytest.mark.parametrize("crash", range(8))
def test_a_new_key_and_its_certificate_fit_after_a_crash_at_any_replacement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: int
) -> None:
    root = Root()
    store = enrolled(tmp_path, root)
    old, new = spki(store.key().public_key()), store.key(new=True)
    left = [crash]

    def replace(self: Path, target: Path) -> Path:
        if left[0] == 0:
            raise KeyboardInterrupt  # the power is gone
        left[0] -= 1
        os.rename(self, target)
        return target

    given = root.certify(new.request("a"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        try:
            store.adopt(given, new, True, NOW_NS, works)
            ended = True
        except KeyboardInterrupt:
            ended = False
    found = CredentialStore(tmp_path, "a").current()
    assert found.context(), "key and certificate fit"
    now = spki(found.key.public_key())
    assert now == (spki(new.public_key()) if ended or now != old else old)
    assert ended == (crash >= 5), "the crash was where it was meant"
