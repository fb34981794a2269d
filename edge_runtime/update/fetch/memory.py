"""A repository in memory, for tests and simulation: counts what it gave, and breaks off where it is told to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field

from edge_runtime.update.fetch.fetcher import READ_BYTES, FetchError, check_path
from edge_runtime.update.fetch.pace import Pace


@dataclass
class MemoryReply:
    start: int
    total: int | None
    version: str
    pieces: Iterator[bytes]

    def read(self) -> bytes:
        return next(self.pieces, b"")

    def close(self) -> None:
        self.pieces = iter(())


@dataclass
class MemoryFetcher:
    """`trouble(path, number of the request)`: an error to give instead. `cut(path, position)`: break off before this byte.
    `ranges` False: as a server that knows none. `asked`: what was asked for."""

    files: MutableMapping[str, bytes]
    trouble: Callable[[str, int], FetchError | None] = lambda path, number: None
    cut: Callable[[str, int], bool] = lambda path, position: False
    ranges: bool = True
    given_bytes: int = 0
    asked: list[tuple[str, int, int | None]] = field(default_factory=list)

    def open(self, path: str, pace: Pace, start: int = 0, stop: int | None = None, version: str = "") -> MemoryReply:
        pace.begin()
        self.asked.append((check_path(path), start, stop))
        if error := self.trouble(path, len(self.asked)):
            raise error
        if path not in self.files:
            raise FetchError(f"{path}: not in this repository", again=False, missing=True)
        data = self.files[path]
        now = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        if not self.ranges or (version and version != now):
            start, stop = 0, None
        if start > len(data):
            raise FetchError(f"{path}: has only {len(data)} bytes", again=False, status=416)
        return MemoryReply(start, len(data), now, self._pieces(path, data, pace, start, stop or len(data)))

    def _pieces(self, path: str, data: bytes, pace: Pace, start: int, stop: int) -> Iterator[bytes]:
        for at in range(start, min(stop, len(data)), READ_BYTES):
            if self.cut(path, at):
                raise FetchError(f"{path}: the connection broke at {at}")
            piece = data[at : min(at + READ_BYTES, stop)]
            self.given_bytes += len(piece)
            pace.received(len(piece))
            yield piece
