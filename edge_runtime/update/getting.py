"""How the updater gets an artifact: from a `Fetcher`, as a delta to what is in the store or whole, into
`<state_dir>/update/download/`, until its hash is right."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from edge_runtime.clock import Clock, SystemClock
from edge_runtime.update.fetch.artifact import fetch
from edge_runtime.update.fetch.fetcher import Fetcher
from edge_runtime.update.fetch.pace import DEFAULT, Limits
from edge_runtime.update.fetch.partial import Wanted
from edge_runtime.update.seams import DOWNLOADS, HaltError, Progress
from edge_runtime.update.tuf.target import Target


class Getting:
    """`fetcher`: made anew for each artifact, because certificates are renewed while the updater runs."""

    def __init__(self, fetcher: Callable[[], Fetcher], state_dir: Path, clock: Clock, limits: Limits = DEFAULT) -> None:
        self._fetcher, self._folder, self._clock, self._limits = fetcher, state_dir / DOWNLOADS, clock, limits

    def __call__(self, target: Target, have: Mapping[str, Path], progress: Progress) -> Path:
        wanted = Wanted(served_as(target.path, target.sha256), target.length, target.sha256)
        return fetch(self._fetcher(), wanted, self._folder, self._clock, have, self._limits, progress).path


def served_as(path: str, sha256: str) -> str:
    """Where a repository with consistent snapshots has an artifact."""
    folder, _, name = path.rpartition("/")
    return f"targets/{folder}/{sha256}.{name}"


class StoppableClock(SystemClock):
    """A wait ends, with HaltError, when the process shall end."""

    def __init__(self, stopping: threading.Event) -> None:
        super().__init__()
        self._stopping = stopping

    def sleep(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise HaltError
