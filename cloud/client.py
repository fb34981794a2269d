"""The REST API of a running cloud, as commands ask it.

With --config cloud.toml address and token are the cloud's own; elsewhere --cloud URL and --token-file F, which holds an
operator's API token. The file is read at each question and never shown.
"""

from __future__ import annotations

import argparse
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from cloud.settings import load_cloud
from edge_runtime.errors import EndpointError, GudgeonError, ResourceError, UsageError
from edge_runtime.mqtt_access import secret_file

TIMEOUT_S = 15.0
STREAM_TIMEOUT_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="cloud.toml", help="take address and token from here")
    parser.add_argument("--cloud", metavar="URL", help="such as http://127.0.0.1:8080 (that of --config)")
    parser.add_argument(
        "--token-file", type=Path, metavar="F", help="an operator's API token, or the cloud's own (that of --config)"
    )
    parser.add_argument("--ca-file", type=Path, metavar="F", help="who signs the cloud's certificate (the system's)")


def add_token_arguments(parser: argparse.ArgumentParser) -> None:
    """For commands that only read, with --cloud URL."""
    parser.add_argument("--token-file", type=Path, metavar="F", help="with --cloud: an operator's API token")
    parser.add_argument("--ca-file", type=Path, metavar="F", help="who signs the cloud's certificate (the system's)")


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if not args.cloud and not args.config:
        parser.error("expected --config cloud.toml, or --cloud URL and --token-file F")


def bearer(token_file: Path | None) -> dict[str, str]:
    """The header with the token of this file, if there is one."""
    return {"authorization": f"Bearer {secret_file(token_file)}"} if token_file else {}


def trusted(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"--ca-file {ca_file}: {error}; expected certificates in PEM") from error


def address(url: str) -> str:
    """Where the API of the cloud at this URL is; UsageError where it is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--cloud {url}: no address of a cloud; expected http://HOST:PORT or https://HOST:PORT")
    return url.rstrip("/") + "/api/v1"


@contextmanager
def streamed(args: argparse.Namespace, path: str, params: Mapping[str, Any]) -> Iterator[httpx.Response]:
    """An answer that is read piece by piece, with the arguments of `add_token_arguments`."""
    url = address(args.cloud) + path
    asked: dict[str, Any] = {"params": params, "headers": bearer(args.token_file), "verify": trusted(args.ca_file)}
    try:
        with httpx.stream("GET", url, timeout=STREAM_TIMEOUT_S, trust_env=False, **asked) as answer:
            if not answer.is_success:
                answer.read()
                raise _refused(url, answer)
            yield answer
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(url, error) from error


def _refused(url: str, answer: httpx.Response) -> GudgeonError:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = answer.text[:300]
    text = f"{url}: {answer.status_code}: {detail}"
    return UsageError(text) if answer.status_code in (404, 413, 422) else GudgeonError(text)


def _unreachable(url: str, error: Exception) -> EndpointError:
    return EndpointError(f"{url}: {error}; check the address and that `gudgeon cloud` runs")


class Client:
    def __init__(self, args: argparse.Namespace) -> None:
        settings = load_cloud(args.config) if args.config else None
        if settings and not args.cloud and settings.http.port == 0:
            raise UsageError("http.port is 0 in the configuration; say where the cloud is with --cloud URL")
        scheme = "https" if settings and settings.http.tls else "http"
        base = (
            args.cloud or f"{scheme}://{settings.http.host if settings else ''}:{settings.http.port if settings else 0}"
        )
        self._base = address(base)
        self._token_file = args.token_file or (settings.token_file if settings else None)
        self._client = httpx.Client(timeout=TIMEOUT_S, trust_env=False, verify=trusted(args.ca_file))

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **params: Any) -> Any:
        there = self._token_file is not None and self._token_file.exists()
        return self._ask("GET", path, params=params, headers=self._bearer() if there else {})

    def post(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
        return self._ask("POST", path, json=body, headers={**self._bearer(), **(headers or {})})

    def _bearer(self) -> dict[str, str]:
        if self._token_file is None:
            raise UsageError(
                "to change something the cloud's token is needed; say --token-file F, or --config cloud.toml"
            )
        if not self._token_file.exists():
            raise ResourceError(f"{self._token_file}: no such file; the cloud makes it at its first start")
        return {"authorization": f"Bearer {secret_file(self._token_file)}"}

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        url = f"{self._base}{path}"
        try:
            answer = self._client.request(method, url, **more)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _unreachable(url, error) from error
        if not answer.is_success:
            raise _refused(url, answer)
        return answer.json()
