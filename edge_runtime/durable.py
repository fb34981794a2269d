"""Files that survive a power cut: write, fsync, rename, fsync the folder. OSErrors become one clear line."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_runtime.errors import ResourceError


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError on `path` into a ResourceError that says what to do."""
    try:
        yield
    except OSError as error:
        what = {
            errno.ENOSPC: "the disk is full; free some space",
            errno.EDQUOT: "the disk quota is used up; free some space",
            errno.EACCES: "permission denied; run as a user who may write there",
            errno.EROFS: "the file system is read-only; remount it or choose another state_dir",
        }.get(error.errno or 0, _text(error, path))
        raise ResourceError(f"{path}: {what}") from error


def _text(error: OSError, path: Path) -> str:
    """Without the number, and with the file where it is another one than `path`."""
    if error.strerror is None:
        return str(error)
    return error.strerror if error.filename in (None, str(path)) else f"{error.strerror}: {error.filename}"


def replace_file(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Put `data` at `path` so that after a power cut either the old or the new content is there, whole. `mode`: who may read
    a new file, less what the umask takes."""
    temporary = path.with_name(f".{path.name}.tmp")
    with disk_errors(path):
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def make_secret(path: Path, data: bytes) -> bool:
    """A new file for this user alone, whole or not at all; False where it was there: of processes that make it at the same time
    one wins for all. The caller flushes the folder, whoever made the file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def make_folder(path: Path) -> None:
    """`path` and what is missing above it, each name on the disk when this returns."""
    missing = [p for p in (path, *path.parents) if not p.is_dir()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
