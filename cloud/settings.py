"""Cloud configuration: `cloud.toml` to frozen dataclasses. Every key has a default; unknown keys are refused.

- Port 0 means any free port.
- A relative SQLite path is taken from the folder that the file is in.
- Until devices and users have identities, web server and broker stay on this machine: other hosts are refused.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge_runtime.config import load

SQLITE = "sqlite:///"


def check_loopback(host: str) -> None:
    """ValueError unless `host` is this machine only."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ValueError(
            f"host is {host!r}, expected 127.0.0.1, ::1 or localhost: without identities nothing else may connect"
        )


def check_port(port: int) -> None:
    if not 0 <= port <= 65535:
        raise ValueError(f"port is {port}, expected 0 (any free port) to 65535")


@dataclass(frozen=True)
class HttpSection:
    host: str = "127.0.0.1"
    port: int = 8080

    def __post_init__(self) -> None:
        check_loopback(self.host)
        check_port(self.port)


@dataclass(frozen=True)
class BrokerSection:
    """`embedded`: start a broker on this address; otherwise one already listens there (Mosquitto, EMQX …)."""

    embedded: bool = True
    host: str = "127.0.0.1"
    port: int = 1883

    def __post_init__(self) -> None:
        check_loopback(self.host)
        check_port(self.port)
        if not self.embedded and self.port == 0:
            raise ValueError("port is 0, expected the port of the broker, because embedded = false")


@dataclass(frozen=True)
class StoreSection:
    url: str = "sqlite:///cloud.db"

    def __post_init__(self) -> None:
        if not self.url.startswith(SQLITE) or self.url[len(SQLITE) :] in ("", ":memory:"):
            raise ValueError(f"url is {self.url!r}, expected sqlite:///FILE")

    @property
    def path(self) -> Path:
        return Path(self.url[len(SQLITE) :])


@dataclass(frozen=True)
class SimulatorSection:
    """`stats_url`: where the simulated line tells its ground truth; empty where there is none."""

    stats_url: str = ""

    def __post_init__(self) -> None:
        if self.stats_url and not self.stats_url.startswith(("http://", "https://")):
            raise ValueError(f"stats_url is {self.stats_url!r}, expected http://HOST:PORT/stats or nothing")


@dataclass(frozen=True)
class CloudSettings:
    http: HttpSection = field(default_factory=HttpSection)
    broker: BrokerSection = field(default_factory=BrokerSection)
    store: StoreSection = field(default_factory=StoreSection)
    simulator: SimulatorSection = field(default_factory=SimulatorSection)


def load_cloud(path: Path) -> CloudSettings:
    """Read `cloud.toml`; ConfigError names file, key and what was expected."""
    settings = load(path, CloudSettings)
    absolute = (path.parent / settings.store.path).resolve()
    return replace(settings, store=StoreSection(f"{SQLITE}{absolute}"))
