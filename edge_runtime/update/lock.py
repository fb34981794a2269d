"""One writer at a time of `slots/` and `store/`: a lock on a file, which the kernel gives back when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_runtime.durable import disk_errors, make_folder
from edge_runtime.errors import ResourceError

LOCK = Path("update") / "lock"
WAIT_S = 20.0
TURN_S = 0.05


@contextmanager
def writing(state_dir: Path, wait_s: float = WAIT_S, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Hold the lock; ResourceError where somebody else holds it all the time."""
    path = state_dir / LOCK
    with disk_errors(path):
        make_folder(path.parent)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _take(fd, path, wait_s, sleep)
        yield
    finally:
        os.close(fd)


def _take(fd: int, path: Path, wait_s: float, sleep: Callable[[float], None]) -> None:
    for _ in range(max(1, round(wait_s / TURN_S))):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            sleep(TURN_S)
    raise ResourceError(f"{path}: an update or an installation is at work; try again when it has ended")
