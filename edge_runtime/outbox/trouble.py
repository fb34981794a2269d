"""What can be wrong with the outbox's file: how it is told, and how a damaged one is set aside."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_runtime.errors import ResourceError

BUSY_TIMEOUT_MS = 2000
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class DamagedError(Exception):
    """A page of the file cannot be read; a new file has taken its place."""


def is_damage(error: sqlite3.Error) -> bool:
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF in DAMAGE


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """No other process opens the file meanwhile, or sets it aside."""
    try:
        lock = path.with_name(f"{path.name}.lock").open("w")
    except OSError as error:
        raise ResourceError(explain(path, error)) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def set_aside(path: Path, wall_ns: int) -> None:
    """Never deleted."""
    kept = path.with_name(f"{path.name}.damaged-{wall_ns}")
    path.rename(kept)
    for suffix in ("-wal", "-shm"):
        side = path.with_name(path.name + suffix)
        if side.exists():
            side.rename(kept.with_name(kept.name + suffix))


def newest_aside(path: Path) -> str | None:
    """The name of the file in whose place a new one is made: found, because a crash may lie in between."""
    names = [p.name for p in path.parent.glob(f"{path.name}.damaged-*")]
    return max((n for n in names if not n.endswith(("-wal", "-shm"))), default=None)


def explain(path: Path, error: BaseException) -> str:
    text = str(error)
    if "full" in text or "No space left" in text:
        return f"{path}: the disk is full; free some space"
    if isinstance(error, OSError) or "readonly" in text or "unable to open" in text:
        return f"{path}: cannot be written ({text}); check that the folder exists and its permissions"
    if "disk I/O error" in text:
        return f"{path}: cannot be read or written ({text}); the disk may have turned read-only, or be failing"
    if "locked" in text:
        return f"{path}: stayed locked for {BUSY_TIMEOUT_MS} ms by another process; stop the other one"
    return f"{path}: {text}"
