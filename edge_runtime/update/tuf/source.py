"""Where metadata come from: one seam, `Source`. What it gives is trusted in nothing; the bounds are set here.

Implementations: `HttpSource` (a repository's `metadata/` address), `FolderSource` (a copy on a medium), and
`memory.MemoryRepository`, which ships for tests and simulation.
"""

from __future__ import annotations

import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from edge_runtime.errors import EndpointError

CHUNK_BYTES = 64 * 1024
READ_TIMEOUT_S = 20.0
#: one file of metadata, from the request to its last byte
DEADLINE_S = 60.0
#: HTTP states that mean: there is no such file
MISSING = (403, 404)


class MissingError(Exception):
    """The repository has no such file. Of the next root that is the usual answer."""


class Source(Protocol):
    def chunks(self, name: str) -> Iterator[bytes]:
        """`name` of the metadata folder, quoted for a URL, piece by piece, without an end if there is none; MissingError, or
        EndpointError where the repository cannot be reached or does not answer as it should."""
        ...


class HttpSource:
    """`url`: of the metadata folder. `context`: TLS with what this device trusts and is."""

    def __init__(
        self,
        url: str,
        context: ssl.SSLContext | None = None,
        deadline_s: float = DEADLINE_S,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise EndpointError(f"{url}: expected the address of a repository, http:// or https://")
        self._url = url if url.endswith("/") else f"{url}/"
        self._opener = urllib.request.build_opener(
            *([urllib.request.HTTPSHandler(context=context)] if context else []), _NoRedirects()
        )
        self._deadline_s, self._now_s = deadline_s, monotonic_s

    def chunks(self, name: str) -> Iterator[bytes]:
        url, end_s = self._url + name, self._now_s() + self._deadline_s
        try:
            with self._opener.open(url, timeout=min(READ_TIMEOUT_S, self._deadline_s)) as answer:
                while chunk := answer.read1(CHUNK_BYTES):
                    if self._now_s() > end_s:
                        raise EndpointError(f"{url}: not there after {self._deadline_s:g} s; tried again later")
                    yield chunk
        except urllib.error.HTTPError as error:
            if error.code in MISSING:
                raise MissingError(url) from error
            raise EndpointError(f"{url}: answered {error.code} {error.reason}; tried again later") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EndpointError(f"{url}: {error}; check the address and the network; tried again later") from error


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A repository does not send its devices elsewhere; a captive portal does."""

    def redirect_request(self, *_: object) -> None:
        return None


class FolderSource:
    """`folder`: of metadata, as `HttpSource` would serve it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def chunks(self, name: str) -> Iterator[bytes]:
        path = self._folder / name
        if path.parent != self._folder:
            raise MissingError(name)
        try:
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except FileNotFoundError as error:
            raise MissingError(name) from error
        except OSError as error:
            raise EndpointError(f"{path}: {error}; is the medium still there?") from error
