"""TLS to the broker. The broker's certificate is always checked, its name too: there is no setting that turns this off."""

from __future__ import annotations

import ssl

from edge_runtime.config import BrokerSection
from edge_runtime.errors import ConfigError


def context(broker: BrokerSection) -> ssl.SSLContext | None:
    """None where the configuration asks for no TLS; ConfigError names the file that cannot be used."""
    if not broker.tls:
        return None
    try:
        made = ssl.create_default_context(cafile=str(broker.ca_file) if broker.ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"broker.ca_file {broker.ca_file}: expected PEM certificates of the CA: {error}") from error
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if broker.cert_file and broker.key_file:
        try:
            made.load_cert_chain(broker.cert_file, broker.key_file)
        except (OSError, ssl.SSLError) as error:
            text = f"broker.cert_file {broker.cert_file}, broker.key_file {broker.key_file}"
            raise ConfigError(f"{text}: expected a PEM certificate and its key: {error}") from error
    return made
