"""The seam between what is fetched and where it comes from: one `Fetcher`, and a `Reply` that is read piece by piece.

`http` is the cloud, `folder` a USB stick or any other mount, `memory` the fake for tests. Paths are those below the repository's
folder (`targets/models/surface/<sha256>.2.tar`). All of them tell trouble as a `FetchError`, which says whether asking again
helps.
"""

from __future__ import annotations

import re
from typing import Protocol

from edge_runtime.errors import EndpointError
from edge_runtime.update.fetch.pace import Pace

PATH_LIMIT = 512
PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~-]*(/[A-Za-z0-9_][A-Za-z0-9._+~-]*)*", re.ASCII)
READ_BYTES = 64 * 1024


class FetchError(EndpointError):
    """`again`: whether the same question may be answered better soon; `after_s`: not before, as the server asked;
    `missing`: there is no such file; `status`: of HTTP, 0 where there was no answer."""

    def __init__(
        self, text: str, *, again: bool = True, after_s: float = 0.0, missing: bool = False, status: int = 0
    ) -> None:
        super().__init__(text)
        self.again, self.after_s, self.missing, self.status = again, after_s, missing, status


class Reply(Protocol):
    """What came: bytes from `start` on, of a file of `total` bytes (None: not told) in the state that `version` names."""

    @property
    def start(self) -> int: ...
    @property
    def total(self) -> int | None: ...
    @property
    def version(self) -> str: ...
    def read(self) -> bytes:
        """The next bytes, at most `READ_BYTES`; b"" at the end."""
        ...

    def close(self) -> None: ...


class Fetcher(Protocol):
    def open(self, path: str, pace: Pace, start: int = 0, stop: int | None = None, version: str = "") -> Reply:
        """Ask for bytes `start` to `stop` of a file. Where it is no longer in the state `version`, or the other side cannot
        give a part, the reply starts at 0."""
        ...


def check_path(path: str) -> str:
    """The same path; FetchError where it could lead anywhere but down."""
    if len(path) > PATH_LIMIT or not PATH.fullmatch(path):
        raise FetchError(
            f"{path[:100]!r} is not a path of a repository: expected names of A-Z a-z 0-9 . _ + - and /", again=False
        )
    return path


def fetch_small(fetcher: Fetcher, path: str, pace: Pace, limit_bytes: int) -> bytes:
    """A whole small file; FetchError where it is larger than that."""
    reply = fetcher.open(path, pace)
    try:
        whole = bytearray()
        while piece := reply.read():
            whole += piece
            if len(whole) > limit_bytes:
                raise FetchError(f"{path}: more than {limit_bytes} bytes, refused", again=False)
    finally:
        reply.close()
    if reply.total is not None and reply.total != len(whole):
        raise FetchError(f"{path}: ended after {len(whole)} of {reply.total} bytes")
    return bytes(whole)
