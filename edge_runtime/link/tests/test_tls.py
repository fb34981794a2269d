"""What makes a TLS context, and what is refused. The handshake itself: `hil_tests/test_70_chaos.py::test_tls_expiry`."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from edge_runtime.config import BrokerSection
from edge_runtime.errors import ConfigError
from edge_runtime.link.tls import context


def test_no_tls_unless_it_is_asked_for() -> None:
    assert context(BrokerSection()) is None


def test_the_broker_is_always_checked() -> None:
    made = context(BrokerSection(tls=True))
    assert made is not None
    assert made.verify_mode is ssl.CERT_REQUIRED
    assert made.check_hostname
    assert made.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("name", ["ca_file", "cert_file"])
def test_a_file_that_is_no_certificate_is_named(tmp_path: Path, name: str) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    files = {name: wrong} | ({"key_file": wrong} if name == "cert_file" else {})
    with pytest.raises(ConfigError, match=f"broker.{name} .*wrong.pem.*expected"):
        context(BrokerSection(tls=True, **files))  # type: ignore[arg-type]


def test_files_without_tls_and_halves_of_a_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="tls = true"):
        BrokerSection(ca_file=Path("ca.pem"))
    with pytest.raises(ValueError, match="or neither"):
        BrokerSection(tls=True, cert_file=Path("cert.pem"))
