"""Through which HTTP proxy a host is reached: as `[update] proxy` says, or as the environment does (`https_proxy`, `no_proxy`).
Pure.

Only proxies that are spoken to in plain HTTP (`http://[user:password@]host:port`); what goes through to an https:// address is a
tunnel, so that the proxy sees no more than the host's name.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from edge_runtime.errors import ConfigError

#: the setting that means: none, whatever the environment says
DIRECT = "direct"


@dataclass(frozen=True)
class Proxy:
    host: str
    port: int
    authorization: str = field(default="", repr=False)


def choose(setting: str, environment: Mapping[str, str], scheme: str, host: str) -> Proxy | None:
    """The proxy for a host; the setting first, "" asks the environment."""
    if setting == DIRECT:
        return None
    if setting:
        return read(setting, "[update] proxy")
    if spared(host, _variable(environment, "no_proxy")):
        return None
    for name in (f"{scheme}_proxy", "all_proxy"):
        if value := _variable(environment, name):
            return read(value, name)
    return None


def read(value: str, where: str) -> Proxy:
    """ConfigError where it is no such address; the password is never repeated."""
    parts = urlsplit(value if "://" in value else f"http://{value}")
    try:
        port = parts.port or 3128
    except ValueError:
        port = 0
    if parts.scheme != "http" or not parts.hostname or not port or parts.path not in ("", "/") or parts.query:
        raise ConfigError(f"{where}: expected http://[user:password@]host:port or {DIRECT!r}; correct it")
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(parts.hostname, port, authorization)


def spared(host: str, no_proxy: str) -> bool:
    """Whether a list such as `localhost,.plant.example` names the host or a domain above it."""
    for entry in no_proxy.lower().replace(",", " ").split():
        name = entry.removeprefix("*").removeprefix(".").partition(":")[0]
        if entry == "*" or (name and (host.lower() == name or host.lower().endswith(f".{name}"))):
            return True
    return False


def _variable(environment: Mapping[str, str], name: str) -> str:
    """Both spellings, but HTTP_PROXY not: a web server sets it from a request's header."""
    value = environment.get(name, "")
    return value or ("" if name == "http_proxy" else environment.get(name.upper(), ""))
