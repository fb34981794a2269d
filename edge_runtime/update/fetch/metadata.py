"""Metadata by the same roads as artifacts, with a deadline, a least rate and the same proxy. A `tuf.source.Source`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edge_runtime.clock import Clock
from edge_runtime.update.fetch.fetcher import Fetcher, FetchError
from edge_runtime.update.fetch.pace import Limits, Pace
from edge_runtime.update.tuf.source import MISSING, MissingError

#: of one file
LIMITS = Limits(deadline_s=60.0, least_bytes_s=64.0, window_s=20.0, idle_s=20.0)


class FetchedMetadata:
    """`fetcher`: made anew for each file, because certificates are renewed while the updater runs."""

    def __init__(self, fetcher: Callable[[], Fetcher], clock: Clock, limits: Limits = LIMITS) -> None:
        self._fetcher, self._clock, self._limits = fetcher, clock, limits

    def chunks(self, name: str) -> Iterator[bytes]:
        path = f"metadata/{name}"
        try:
            reply = self._fetcher().open(path, Pace(self._clock, self._limits))
        except FetchError as error:
            if error.missing or error.status in MISSING:
                raise MissingError(path) from error
            raise
        try:
            count = 0
            while piece := reply.read():
                count += len(piece)
                yield piece
        finally:
            reply.close()
        if reply.total not in (None, count):
            raise FetchError(f"{path}: ended after {count} of {reply.total} bytes")
