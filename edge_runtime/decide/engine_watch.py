"""Since when has the engine of a model on trial had the part that it has now? Sixteen bytes of shared memory, written by
`control` around each part of a trial and read by the supervisor: a hang in native code stops Python, so nobody in `control`
can tell it.

    int64 since_ns   monotonic time at which the engine got the part; 0: it has none
    int64 limit_ns   for how long it may have it; 0: no trial, nobody looks

Outside of a trial nothing is written. A PLC or a camera that keeps `control` waiting is no hang. The memory is no file on a
disk: the first write to a page of one may wait for the journal. `path` is a link to it in /proc, which ends with `control`.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path

from edge_runtime.durable import disk_errors

PATH = Path("run") / "engine.watch"
SIZE_BYTES = 16


class EngineWatch:
    """The side of `control`: `with watch: engine.infer(…)`. It does nothing while `limit_ms` is 0."""

    def __init__(self, path: Path, monotonic_ns: Callable[[], int]) -> None:
        self._fd = os.memfd_create("engine.watch")
        os.ftruncate(self._fd, SIZE_BYTES)
        self._map = mmap.mmap(self._fd, SIZE_BYTES)
        with disk_errors(path):
            path.unlink(missing_ok=True)
            path.symlink_to(f"/proc/{os.getpid()}/fd/{self._fd}")
        self._fields = memoryview(self._map).cast("q")
        self._monotonic_ns = monotonic_ns

    def limit(self, limit_ms: int) -> None:
        self._fields[0] = 0
        self._fields[1] = limit_ms * 1_000_000

    def __enter__(self) -> None:
        self._fields[0] = self._monotonic_ns()

    def __exit__(self, *_: object) -> None:
        self._fields[0] = 0


def hung_s(path: Path, now_ns: int) -> float | None:
    """For how long the engine has had its part, where that is too long; None otherwise, and where nobody is on trial."""
    try:
        fields = memoryview(path.read_bytes()).cast("q")
        since_ns, limit_ns = fields
    except (OSError, ValueError, TypeError):
        return None
    if not limit_ns or not since_ns or now_ns - since_ns <= limit_ns:
        return None
    return (now_ns - since_ns) / 1e9
