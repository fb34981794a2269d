"""TLS and password of the uplink: what is wrong is told at the start, with the file's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.config import BrokerSection
from edge_runtime.errors import ConfigError, ResourceError
from edge_runtime.link.access import Access, password, tls_context


def test_without_a_ca_there_is_no_tls() -> None:
    assert tls_context(BrokerSection()) is None
    Access(BrokerSection())


def test_what_is_no_certificate_is_told(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    with pytest.raises(ResourceError, match=r"ca\.pem"):
        tls_context(BrokerSection(ca_file=ca))
    ca.write_text("rubbish")
    with pytest.raises(ConfigError, match=r"ca\.pem: not usable for TLS"):
        tls_context(BrokerSection(ca_file=ca))


def test_a_password_is_for_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("secret\n")
    path.chmod(0o644)
    section = BrokerSection(username="u", password_file=path)
    with pytest.raises(ResourceError, match="chmod 600") as caught:
        password(section)
    assert "secret" not in str(caught.value)
    path.chmod(0o600)
    assert password(section) == "secret"


def test_a_password_never_crosses_the_network_in_the_clear() -> None:
    with pytest.raises(ValueError, match="set ca_file"):
        BrokerSection(host="broker.example", username="u")
    with pytest.raises(ValueError, match="go together"):
        BrokerSection(cert_file=Path("c"))
