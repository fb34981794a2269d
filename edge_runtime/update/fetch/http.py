"""The repository over HTTP: one connection a request, every byte against the pace, nothing believed but the bytes asked for.

Standard library only. It follows a redirect only to the same scheme, host and port, and at most three; asks for no compression;
takes an answer to a range only for that range; and refuses what a login page of a network (captive portal) gives: HTML, or a
redirect away. The length of a file is the caller's to check, its content the hash's.
"""

from __future__ import annotations

import http.client
import io
import os
import re
import socket
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from edge_runtime import __version__
from edge_runtime.errors import ConfigError
from edge_runtime.update.fetch import proxy as proxies
from edge_runtime.update.fetch.fetcher import READ_BYTES, FetchError, check_path
from edge_runtime.update.fetch.pace import Pace, SlowError
from edge_runtime.update.fetch.proxy import Proxy

REDIRECTS = frozenset({301, 302, 303, 307, 308})
REDIRECTS_LIMIT = 3
#: worth asking again soon; any other status of 400 and more is not
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
RETRY_AFTER_LIMIT_S = 3600.0
#: what the kernel keeps for us of a connection: this much at most is on the way, and lost, when it is cut
RECEIVE_BUFFER_BYTES = 128 * 1024
VERSION_LIMIT = 200
CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Address(NamedTuple):
    scheme: str
    host: str
    port: int


class HttpReply:
    def __init__(self, response: http.client.HTTPResponse, sock: socket.socket, where: str) -> None:
        self._response, self._sock, self._where = response, sock, where
        self.start, self.total = _extent(response, where)
        version = response.headers.get("ETag", "")
        self.version = version if len(version) <= VERSION_LIMIT and version.isascii() else ""

    def read(self) -> bytes:
        try:
            return self._response.read1(READ_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise FetchError(f"{self._where}: the connection broke: {_why(error)}") from error

    def close(self) -> None:
        self._response.close()
        self._sock.close()


class HttpFetcher:
    """`base_url`: of the repository's folder. `tls`: with the device's certificate and the cloud's CA; None takes the system's
    certificates. `proxy`: an address, "direct", or "" for what the environment says."""

    def __init__(
        self,
        base_url: str,
        tls: ssl.SSLContext | None = None,
        proxy: str = "",
        environment: Mapping[str, str] = os.environ,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._base = base_url.rstrip("/") + "/"
        self._address = _address(self._base)
        if self._address.scheme == "http" and self._address.host not in LOOPBACK:
            raise ConfigError(f"{base_url}: plain http is for this machine alone; use https://")
        self._tls = tls or (ssl.create_default_context() if self._address.scheme == "https" else None)
        self._proxy = proxies.choose(proxy, environment, self._address.scheme, self._address.host)
        self._headers = dict(headers or {})

    def open(self, path: str, pace: Pace, start: int = 0, stop: int | None = None, version: str = "") -> HttpReply:
        url = urljoin(self._base, check_path(path))
        asked = dict(self._headers)
        if start or stop is not None:
            asked["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
            if version.startswith('"'):  # a weak one says nothing of bytes
                asked["If-Range"] = version
        for _ in range(REDIRECTS_LIMIT + 1):
            response, sock = self._request(url, asked, pace)
            try:
                if response.status not in REDIRECTS:
                    return self._reply(response, sock, url, start, stop)
                url = self._redirected(url, response.headers.get("Location", ""))
            except BaseException:
                response.close()
                sock.close()
                raise
            response.close()
            sock.close()
        raise FetchError(f"{url}: more than {REDIRECTS_LIMIT} redirects", again=False)

    def _reply(
        self, response: http.client.HTTPResponse, sock: socket.socket, url: str, start: int, stop: int | None
    ) -> HttpReply:
        _check_status(response, url)
        _check_kind(response, url)
        reply = HttpReply(response, sock, url)
        if response.status == 206 and (reply.start != start or not (start or stop is not None)):
            raise FetchError(f"{url}: asked for bytes from {start}, got them from {reply.start}", again=False)
        return reply

    def _redirected(self, url: str, location: str) -> str:
        try:
            target = urljoin(url, location)
            same = bool(location) and _address(target) == self._address
        except (ConfigError, ValueError):
            same = False
        if not same:
            raise FetchError(
                f"{url}: redirected away, to {location[:100]!r}; refused (a login page of this network? log in, or set a proxy)"
            )
        return target

    def _request(
        self, url: str, headers: Mapping[str, str], pace: Pace
    ) -> tuple[http.client.HTTPResponse, socket.socket]:
        pace.begin()
        try:
            sock = self._connect(pace)
        except (OSError, http.client.HTTPException, ValueError) as error:
            untrusted = isinstance(error, ssl.SSLCertVerificationError)
            hint = "; its certificate is not of the CA this device trusts" if untrusted else ""
            raise FetchError(f"{url}: no connection: {_why(error)}{hint}", again=not untrusted) from error
        try:
            sock.sendall(self._head(url, headers))
            return _begin(sock, pace), sock
        except (OSError, http.client.HTTPException, ValueError) as error:
            sock.close()
            raise FetchError(f"{url}: no answer: {_why(error)}") from error
        except BaseException:
            sock.close()
            raise

    def _head(self, url: str, headers: Mapping[str, str]) -> bytes:
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        lines = dict(headers)
        if self._proxy and self._address.scheme == "http":
            target = f"http://{parts.netloc}{target}"
            if self._proxy.authorization:
                lines["Proxy-Authorization"] = self._proxy.authorization
        lines |= {
            "Host": parts.netloc, "User-Agent": f"gudgeon/{__version__}", "Accept-Encoding": "identity", "Connection": "close",
        }  # fmt: skip
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        if any(c < " " or c > "~" for c in target + "".join(lines.values())):
            raise FetchError(f"{url[:200]!r}: cannot be asked for: expected printable characters only", again=False)
        return f"GET {target} HTTP/1.1\r\n{text}\r\n".encode("ascii")

    def _connect(self, pace: Pace) -> socket.socket:
        at = self._proxy or self._address
        sock = socket.create_connection((at.host, at.port), timeout=pace.patience_s(pace.limits.connect_s))
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            if self._tls is None or self._address.scheme == "http":
                return sock
            if self._proxy:
                _tunnel(sock, self._proxy, self._address, pace)
            sock.settimeout(pace.patience_s(pace.limits.connect_s))
            return self._tls.wrap_socket(sock, server_hostname=self._address.host)
        except BaseException:
            sock.close()
            raise


class _Wire(io.RawIOBase):
    """What comes off a socket, told to the pace byte by byte: headers that drip are as slow as a body that does."""

    def __init__(self, sock: socket.socket, pace: Pace) -> None:
        self._sock, self._pace = sock, pace

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._pace.patience_s(self._pace.limits.idle_s))
        try:
            count = self._sock.recv_into(buffer)
        except TimeoutError as error:
            self._pace.left_s()
            raise SlowError(f"no byte for {self._pace.limits.idle_s:.0f} s; given up") from error
        self._pace.received(count)
        return count


class _Paced:
    """As much of a socket as `http.client.HTTPResponse` uses."""

    def __init__(self, sock: socket.socket, pace: Pace) -> None:
        self._sock, self._pace = sock, pace

    def makefile(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(_Wire(self._sock, self._pace), READ_BYTES)


def _begin(sock: socket.socket, pace: Pace, method: str = "GET") -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(_Paced(sock, pace), method=method)  # type: ignore[arg-type]
    response.begin()
    return response


def _tunnel(sock: socket.socket, proxy: Proxy, to: Address, pace: Pace) -> None:
    host = f"[{to.host}]" if ":" in to.host else to.host
    secret = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
    sock.sendall(f"CONNECT {host}:{to.port} HTTP/1.1\r\nHost: {host}:{to.port}\r\n{secret}\r\n".encode())
    response = _begin(sock, pace, "CONNECT")
    if response.status != 200:
        raise FetchError(
            f"proxy {proxy.host}:{proxy.port}: refuses a tunnel to {host}:{to.port} with {response.status}",
            again=response.status in PASSING,
            after_s=_retry_after(response),
        )


def _check_status(response: http.client.HTTPResponse, url: str) -> None:
    status = response.status
    if status in (200, 206):
        return
    if status == 416:
        raise FetchError(
            f"{url}: ends before the bytes asked for (416): not the file that is meant", again=False, status=416
        )
    passing = status in PASSING
    then = "asked again later" if passing else "refused"
    raise FetchError(
        f"{url}: HTTP {status}; {then}",
        again=passing, after_s=_retry_after(response), missing=status in (404, 410), status=status,
    )  # fmt: skip


def _check_kind(response: http.client.HTTPResponse, url: str) -> None:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise FetchError(f"{url}: got a web page: a login page of this network? log in, or set a proxy")
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding != "identity":
        raise FetchError(f"{url}: comes as {coding[:40]!r}, which nobody asked for", again=False)


def _extent(response: http.client.HTTPResponse, where: str) -> tuple[int, int | None]:
    """From where to what total an answer goes."""
    if response.status == 200:
        return 0, response.length
    found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if found is None or int(found[1]) > int(found[2]):
        raise FetchError(f"{where}: a part of a file without saying which (Content-Range)", again=False)
    return int(found[1]), None if found[3] == "*" else int(found[3])


def _retry_after(response: http.client.HTTPResponse) -> float:
    """Seconds; a date is not read, the back-off waits anyway."""
    value = response.headers.get("Retry-After", "").strip()
    return min(float(value), RETRY_AFTER_LIMIT_S) if re.fullmatch(r"\d{1,9}", value, re.ASCII) else 0.0


def _address(url: str) -> Address:
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    except ValueError as error:
        raise ConfigError(f"{url[:200]!r}: {error}; expected https://host[:port]/path") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not port or parts.username is not None:
        raise ConfigError(f"{url[:200]!r}: expected https://host[:port]/path")
    return Address(parts.scheme, parts.hostname, port)


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__
