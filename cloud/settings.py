"""Cloud configuration: `cloud.toml` to frozen dataclasses. Every key has a default; unknown keys are refused.

- Port 0 means any free port.
- A relative path, that of SQLite in `store.url` too, is taken from the folder that the file is in.
- The web server goes beyond this machine with TLS and required identities only; the embedded broker never does.
- A broker on another host is reached with TLS only.
- The listener for devices may be reached from anywhere: it asks for their certificates.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from sqlalchemy import URL

from cloud.access.roles import Role
from cloud.ca.authority import LONGEST, SHORTEST
from cloud.store.opening import store_url
from edge_runtime.config import load
from edge_runtime.mqtt_access import BrokerAccess, secret_file
from edge_runtime.wire.envelope import STREAMS

METRICS_HOST = "127.0.0.1"
METRICS_PORTS = 16
LONGEST_KEEP_DAYS = 36_500
HOST_NAME = re.compile(r"[A-Za-z0-9:](?:[A-Za-z0-9.:-]{0,251}[A-Za-z0-9:])?")


def is_loopback(host: str) -> bool:
    """Whether this is an address of this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_loopback(host: str) -> None:
    """ValueError unless `host` is this machine only."""
    if not is_loopback(host):
        raise ValueError(
            f"host is {host!r}, expected 127.0.0.1, ::1 or localhost: without identities nothing else may connect"
        )


def check_port(port: int) -> None:
    if not 0 <= port <= 65535:
        raise ValueError(f"port is {port}, expected 0 (any free port) to 65535")


@dataclass(frozen=True)
class HttpSection:
    """`cert_file`, `key_file`: TLS, a chain and its key in PEM. `names`: under which names and addresses browsers ask for this
    server, beside those of this machine; a request under another name is refused."""

    host: str = "127.0.0.1"
    port: int = 8080
    cert_file: Path | None = None
    key_file: Path | None = None
    names: tuple[str, ...] = ()

    @property
    def tls(self) -> bool:
        return self.cert_file is not None

    @property
    def beyond(self) -> bool:
        """Whether others than this machine are to be heard."""
        return bool(self.names) or not is_loopback(self.host)

    def __post_init__(self) -> None:
        check_port(self.port)
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("expected cert_file and key_file, or neither")
        if self.beyond and not self.tls:
            raise ValueError(
                "host or names go beyond this machine; give cert_file and key_file, so that it is reached with TLS"
            )


@dataclass(frozen=True)
class AccessSection:
    """Who may use the web server. `required`: nobody reads without signing in, also on this machine."""

    required: bool = False
    session_hours: float = 12.0
    idle_minutes: float = 60.0
    requests_per_s: float = 100.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("session_hours", 0.1, 720.0),
            ("idle_minutes", 1.0, 10_080.0),
            ("requests_per_s", 1.0, 100_000.0),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name):g}, expected {low:g} to {high:g}")


@dataclass(frozen=True)
class BrokerSection(BrokerAccess):
    """`embedded`: start a broker on this address; otherwise one already listens there (Mosquitto, EMQX …)."""

    embedded: bool = True
    host: str = "127.0.0.1"
    port: int = 1883

    def __post_init__(self) -> None:
        self.check(self.host)
        if self.embedded or not self.tls:
            check_loopback(self.host)
        check_port(self.port)
        if self.embedded and (self.tls or self.username):
            raise ValueError("the embedded broker knows neither TLS nor users; set embedded = false or leave them out")
        if not self.embedded and self.port == 0:
            raise ValueError("port is 0, expected the port of the broker, because embedded = false")


@dataclass(frozen=True)
class StoreSection:
    """`password_file`: of the PostgreSQL user, readable by its owner only. `key_file`: the key that statements are signed
    with, made at first use; by default beside the SQLite file, or `cloud.key` beside the configuration. `keep_days`: for how
    long Events are kept, 0 for ever; `keep_days_of`: the same for single streams."""

    url: str = "sqlite:///cloud.db"
    password_file: Path | None = None
    key_file: Path = Path()
    keep_days: int = 0
    keep_days_of: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        store_url(self.url)
        unknown = sorted({*self.keep_days_of} - {*STREAMS})
        if unknown:
            raise ValueError(f"keep_days_of.{unknown[0]} is no stream; expected one of {', '.join(STREAMS)}")
        for name, days in {"keep_days": self.keep_days, **self.keep_days_of}.items():
            if not 0 <= days <= LONGEST_KEEP_DAYS:
                raise ValueError(f"{name} is {days}, expected 0 (for ever) to {LONGEST_KEEP_DAYS} days")

    @cached_property
    def address(self) -> URL:
        """The URL with the password."""
        return store_url(self.url, secret_file(self.password_file) if self.password_file else None)


@dataclass(frozen=True)
class IngestSection:
    """`here`: ingest runs within `gudgeon cloud`; otherwise `gudgeon ingest` does it, as often as it is started.
    `metrics_port`: each `gudgeon ingest` serves /metrics on this port or the first free one of those above it; 0: nowhere."""

    here: bool = True
    metrics_port: int = 9465

    def __post_init__(self) -> None:
        check_port(self.metrics_port)
        if self.metrics_port + METRICS_PORTS > 65536:
            raise ValueError(f"metrics_port is {self.metrics_port}, expected 0 (off) to {65536 - METRICS_PORTS}")


@dataclass(frozen=True)
class SimulatorSection:
    """`stats_url`: where the simulated line tells its ground truth; empty where there is none."""

    stats_url: str = ""

    def __post_init__(self) -> None:
        if self.stats_url and not self.stats_url.startswith(("http://", "https://")):
            raise ValueError(f"stats_url is {self.stats_url!r}, expected http://HOST:PORT/stats or nothing")


@dataclass(frozen=True)
class OidcSection:
    """`roles`: a value of `role_claim` → the role here. `base_url`: of this server, as browsers see it."""

    issuer: str = ""
    client_id: str = ""
    client_secret_file: Path | None = None
    base_url: str = ""
    scopes: str = "openid profile email"
    role_claim: str = "groups"
    roles: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.issuer:
            return
        for name in ("issuer", "base_url"):
            parts = urlsplit(getattr(self, name))
            if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, expected https://… (http:// on this machine only)"
                )
        if self.base_url.endswith("/") or not self.client_id:
            raise ValueError("expected client_id, and base_url without a slash at its end")
        for word in self.roles.values():
            Role.of(word)


@dataclass(frozen=True)
class DevicesSection:
    """`serve`: listen for devices, over TLS. `names`: the host names and addresses by which they reach this machine. Their
    certificates hold for `certificate_days`; one that has expired can be renewed within `grace_days`. `broker_folder`: the files
    of a Mosquitto that devices reach at `broker_port` are kept here, and who is revoked loses its session there."""

    serve: bool = False
    host: str = "127.0.0.1"
    port: int = 8443
    names: tuple[str, ...] = ("localhost", "127.0.0.1")
    certificate_days: int = 60
    grace_days: int = 60
    broker_folder: Path | None = None
    broker_port: int = 8883

    def __post_init__(self) -> None:
        check_port(self.port)
        check_port(self.broker_port)
        if not self.names or not all(HOST_NAME.fullmatch(name) for name in self.names):
            raise ValueError(f"names is {list(self.names)}, expected host names and addresses of this machine")
        if not SHORTEST <= self.life <= LONGEST:
            raise ValueError(f"certificate_days is {self.certificate_days}, expected {SHORTEST.days} to {LONGEST.days}")
        if not 0 <= self.grace_days <= 365:
            raise ValueError(f"grace_days is {self.grace_days}, expected 0 to 365")

    @property
    def life(self) -> timedelta:
        return timedelta(days=self.certificate_days)

    @property
    def grace(self) -> timedelta:
        return timedelta(days=self.grace_days)


@dataclass(frozen=True)
class CaSection:
    """`local`: an authority of our own in `folder`, by default `ca` beside the key that statements are signed with. `step`:
    step-ca at `url`, whose root is `root_file`, asked through its JWK provisioner `provisioner` with the key in `key_file`."""

    kind: Literal["local", "step"] = "local"
    folder: Path = Path()
    name: str = "Gudgeon"
    url: str = ""
    root_file: Path | None = None
    provisioner: str = ""
    key_file: Path | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9 ._-]{1,40}", self.name):
            raise ValueError(f"name is {self.name!r}, expected 1 to 40 letters, digits and spaces")
        asked = (self.url, self.root_file, self.provisioner, self.key_file)
        if self.kind == "step" and not (all(asked) and self.url.startswith("https://")):
            raise ValueError('kind = "step" needs url = "https://…", root_file, provisioner and key_file')
        if self.kind == "local" and any(asked):
            raise ValueError('url, root_file, provisioner and key_file need kind = "step"')


@dataclass(frozen=True)
class RegistrySection:
    """`folder`: of the registry that devices are served from, made by `gudgeon repo init`; None where there is none. The cloud
    signs its snapshot and timestamp anew by itself."""

    folder: Path | None = None


@dataclass(frozen=True)
class RolloutsSection:
    """How soon a device asks again: one that is taking an update, one whose turn it is but for which there is no room yet, and
    all others."""

    busy_s: int = 20
    waiting_s: int = 120
    idle_s: int = 300

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 1 <= value <= 86_400:
                raise ValueError(f"{name} is {value}, expected 1 to 86400 seconds")


@dataclass(frozen=True)
class DdiSection:
    """`serve`: hawkBit's device routes on the listener for devices. `poll_s`: how soon a client asks again. What a gateway for
    many devices shows lies in `gateway_token_file`; without it there is no such gateway."""

    serve: bool = False
    tenant: str = "DEFAULT"
    poll_s: int = 300
    gateway_token_file: Path | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.tenant):
            raise ValueError(f"tenant is {self.tenant!r}, expected 1 to 64 of A-Z a-z 0-9 _ -")
        if not 1 <= self.poll_s < 86_400:
            raise ValueError(f"poll_s is {self.poll_s}, expected 1 to 86399 seconds")


@dataclass(frozen=True)
class CloudSettings:
    http: HttpSection = field(default_factory=HttpSection)
    broker: BrokerSection = field(default_factory=BrokerSection)
    store: StoreSection = field(default_factory=StoreSection)
    ingest: IngestSection = field(default_factory=IngestSection)
    simulator: SimulatorSection = field(default_factory=SimulatorSection)
    devices: DevicesSection = field(default_factory=DevicesSection)
    ca: CaSection = field(default_factory=CaSection)
    access: AccessSection = field(default_factory=AccessSection)
    oidc: OidcSection = field(default_factory=OidcSection)
    registry: RegistrySection = field(default_factory=RegistrySection)
    rollouts: RolloutsSection = field(default_factory=RolloutsSection)
    ddi: DdiSection = field(default_factory=DdiSection)

    @property
    def ca_folder(self) -> Path:
        """Of the local authority; the certificate of the listener for devices lies here too."""
        return self.ca.folder if self.ca.folder != Path() else self.store.key_file.with_name("ca")

    @property
    def token_file(self) -> Path:
        """Beside the key: what a writer to the API must know."""
        return self.store.key_file.with_suffix(".token")

    @property
    def anchor_file(self) -> Path:
        """Beside the key: the newest signed checkpoint of the audit log."""
        return self.store.key_file.with_suffix(".audit")

    def __post_init__(self) -> None:
        if self.broker.embedded and not self.ingest.here:
            raise ValueError("the embedded broker serves ingest in this process only; set broker.embedded = false")
        if self.ddi.serve and not (self.devices.serve and self.registry.folder):
            raise ValueError("ddi.serve needs serve = true in [devices] and a folder in [registry]")
        if self.http.beyond and not self.access.required:
            raise ValueError("http.host or http.names go beyond this machine; set required = true in [access]")


def load_cloud(path: Path) -> CloudSettings:
    """Read `cloud.toml`; ConfigError names file, key and what was expected."""
    settings = load(path, CloudSettings)
    return replace(settings, store=_resolved(settings.store, path.parent.resolve()))


def _resolved(store: StoreSection, folder: Path) -> StoreSection:
    url, key_file = store_url(store.url), folder / "cloud.key"
    if url.drivername == "sqlite":
        url = url.set(database=str(folder / str(url.database)))
        key_file = Path(str(url.database)).with_suffix(".key")
    if store.key_file != Path():
        key_file = folder / store.key_file
    password_file = folder / store.password_file if store.password_file else None
    return replace(store, url=url.render_as_string(hide_password=False), password_file=password_file, key_file=key_file)
