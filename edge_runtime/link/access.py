"""How the uplink proves who it is and whom it speaks to: TLS and password, from the `[broker]` section."""

from __future__ import annotations

import ssl

import paho.mqtt.client as mqtt

from edge_runtime.config import BrokerSection
from edge_runtime.durable import disk_errors
from edge_runtime.errors import ConfigError, ResourceError


def tls_context(broker: BrokerSection) -> ssl.SSLContext | None:
    """TLS 1.2 or newer; the broker's certificate and its name are always checked. None where no TLS is asked for."""
    if not broker.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=str(broker.ca_file) if broker.ca_file else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if broker.cert_file and broker.key_file:
            context.load_cert_chain(broker.cert_file, broker.key_file)
    except (ssl.SSLError, OSError) as error:
        names = [str(p) for p in (broker.ca_file, broker.cert_file, broker.key_file) if p]
        raise ConfigError(f"{', '.join(names)}: not usable for TLS: {error}; expected PEM files") from error
    return context


def password(broker: BrokerSection) -> str | None:
    if broker.password_file is None:
        return None
    with disk_errors(broker.password_file):
        if broker.password_file.stat().st_mode & 0o077:
            raise ResourceError(
                f"{broker.password_file}: other users can read it; run: chmod 600 {broker.password_file}"
            )
        return broker.password_file.read_text().strip()


class Access:
    """Read once at the start, so that a wrong file is told then; applied to every connection."""

    def __init__(self, broker: BrokerSection) -> None:
        self._context, self._username, self._password = tls_context(broker), broker.username, password(broker)

    def apply(self, client: mqtt.Client) -> None:
        if self._context is not None:
            client.tls_set_context(self._context)
        if self._username:
            client.username_pw_set(self._username, self._password)
