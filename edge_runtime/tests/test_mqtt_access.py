"""TLS and password of an MQTT client: what is wrong is told at the start, with the file's name."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from edge_runtime.config import BrokerSection, DeviceConfig, DeviceSection
from edge_runtime.durable import replace_file
from edge_runtime.errors import ConfigError, ResourceError
from edge_runtime.identity.credentials import CredentialStore
from edge_runtime.identity.tests.made import NOW_NS, Root
from edge_runtime.mqtt_access import Access, secret_file, tls_context
from edge_runtime.tls_files import CERTIFICATE


def test_without_a_ca_there_is_no_tls() -> None:
    assert tls_context(BrokerSection()) is None
    Access(BrokerSection())


def test_what_is_no_certificate_is_told(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    for text in (None, "rubbish"):
        if text:
            ca.write_text(text)
        with pytest.raises(ConfigError, match=r"ca\.pem: .*not usable for TLS"):
            tls_context(BrokerSection(tls=True, ca_file=ca))


def test_the_broker_is_always_checked() -> None:
    made = tls_context(BrokerSection(tls=True))
    assert made is not None
    assert made.verify_mode is ssl.CERT_REQUIRED
    assert made.check_hostname
    assert made.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_password_is_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("secret\n")
    path.chmod(0o644)
    with pytest.raises(ResourceError, match="chmod 600") as caught:
        secret_file(path)
    assert "secret" not in str(caught.value)
    path.chmod(0o600)
    assert secret_file(path) == "secret"


def test_a_password_never_crosses_the_network_in_the_clear() -> None:
    with pytest.raises(ValueError, match="set tls = true"):
        BrokerSection(host="broker.example", username="u")
    with pytest.raises(ValueError, match="need tls = true"):
        BrokerSection(ca_file=Path("c"))
    with pytest.raises(ValueError, match="or neither"):
        BrokerSection(tls=True, cert_file=Path("c"))


def test_a_renewed_certificate_is_used_for_the_next_connection_and_a_broken_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, store = Root(), CredentialStore(tmp_path, "a")

    def renew() -> None:
        store.adopt(root.certify(store.key().request("a")), store.key(), False, NOW_NS, lambda _: None)

    renew()
    device = DeviceConfig(DeviceSection("a", tmp_path), broker=BrokerSection(tls=True, enrolled=True))
    access = Access(device.broker_access)
    first = access.context()
    assert access.context() is first
    renew()
    second = access.context()
    assert second is not first
    replace_file(tmp_path / CERTIFICATE, b"rubbish")
    assert access.context() is second
    assert "cannot be used" in caplog.text
    renew()
    assert access.context() is not second


def test_enrolled_leaves_no_room_for_other_files() -> None:
    for wrong in ({"tls": False}, {"ca_file": Path("c")}, {"username": "u"}):
        with pytest.raises(ValueError, match="enrolled = true goes with tls = true"):
            BrokerSection(**{"tls": True, "enrolled": True, **wrong})  # type: ignore[arg-type]
