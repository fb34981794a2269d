"""How an MQTT client proves who it is and whom it speaks to: TLS and password. Device and cloud share it.

Files are read at the start, so that a wrong one is told then, and again before a connection where they have changed (a renewed
certificate); ones that are wrong then are told, and what was read before goes on.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_runtime import log
from edge_runtime.durable import disk_errors
from edge_runtime.errors import ConfigError, ResourceError
from edge_runtime.tls_files import CERTIFICATE

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class BrokerAccess:
    """`tls`: the broker must show a certificate of `ca_file` (else of the system's authorities) for its host. `cert_file`
    and `key_file` are our own certificate. `password_file` holds one line and belongs to this user alone."""

    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    username: str = ""
    password_file: Path | None = None

    def check(self, host: str) -> None:
        """ValueError for what does not go together."""
        if not self.tls and (self.ca_file or self.cert_file or self.key_file):
            raise ValueError("ca_file, cert_file and key_file need tls = true")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("expected cert_file and key_file, or neither")
        if (self.username or self.password_file) and not self.tls and host not in LOOPBACK:
            raise ValueError(f"a password would cross the network to {host} unencrypted; set tls = true")


def tls_context(access: BrokerAccess) -> ssl.SSLContext | None:
    """TLS 1.2 or newer; the broker's certificate and its name are always checked. None where no TLS is asked for."""
    if not access.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=str(access.ca_file) if access.ca_file else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if access.cert_file and access.key_file:
            context.load_cert_chain(access.cert_file, access.key_file)
    except (ssl.SSLError, OSError) as error:
        names = [str(p) for p in (access.ca_file, access.cert_file, access.key_file) if p]
        if missing := [name for name in names if not Path(name).exists()]:
            hint = "; run: gudgeon enroll" if access.cert_file and access.cert_file.name == CERTIFICATE.name else ""
            raise ConfigError(f"{', '.join(missing)}: no such file, so not usable for TLS{hint}") from error
        raise ConfigError(f"{', '.join(names)}: not usable for TLS: {error}; expected PEM files") from error
    return context


def secret_file(path: Path) -> str:
    """The one line of a file that nobody else may read."""
    with disk_errors(path):
        if path.stat().st_mode & 0o077:
            raise ResourceError(f"{path}: other users can read it; run: chmod 600 {path}")
        return path.read_text().strip()


def _stamps(access: BrokerAccess) -> list[tuple[int, int]]:
    """What changes when a file is replaced."""
    with disk_errors(access.ca_file or access.cert_file or Path()):
        found = [path.stat() for path in (access.ca_file, access.cert_file, access.key_file) if path and path.exists()]
    return [(one.st_ino, one.st_mtime_ns) for one in found]


class Client(Protocol):
    """What is needed of `paho.mqtt.client.Client`."""

    def tls_set_context(self, context: ssl.SSLContext | None = ...) -> None: ...
    def username_pw_set(self, username: str | None, password: str | None = ...) -> None: ...


class Access:
    """Applied to every connection."""

    def __init__(self, broker: BrokerAccess) -> None:
        self._broker, self._username, self._seen = broker, broker.username, _stamps(broker)
        self._password = secret_file(broker.password_file) if broker.password_file else None
        self._contexts = self._load()

    def _load(self) -> tuple[ssl.SSLContext | None, ...]:
        return (tls_context(self._broker),)

    @property
    def tls(self) -> bool:
        return self._contexts[0] is not None

    def context(self) -> ssl.SSLContext | None:
        """For the next connection; None without TLS."""
        self._refresh()
        return self._contexts[0]

    def _refresh(self) -> None:
        stamps = _stamps(self._broker)
        if stamps == self._seen:
            return
        try:
            self._contexts = self._load()
        except (ConfigError, ResourceError) as error:
            log.say(logging.WARNING, "the changed files for TLS cannot be used; those before go on", reason=str(error))
        self._seen = stamps

    def apply(self, client: Client) -> None:
        context = self.context()
        if context is not None:
            client.tls_set_context(context)
        if self._username:
            client.username_pw_set(self._username, self._password)
