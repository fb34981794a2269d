"""The repository as a folder: a USB stick or any other mount. Nothing on it is followed: no symbolic link, no device, no way out.

The medium may be read-only, slow, or pulled out in the middle: that is trouble as with a network, and what was read is kept.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from edge_runtime.errors import DataError
from edge_runtime.update.fetch.fetcher import READ_BYTES, FetchError, check_path
from edge_runtime.update.fetch.pace import Pace

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FolderReply:
    def __init__(self, fd: int, where: str, pace: Pace, start: int, stop: int | None) -> None:
        status = os.fstat(fd)
        self._fd, self._where, self._pace = fd, where, pace
        self.start, self.total = start, status.st_size
        self.version = f'"{status.st_size:x}-{status.st_mtime_ns:x}"'
        self._at = start
        self._stop = status.st_size if stop is None else min(stop, status.st_size)

    def read(self) -> bytes:
        try:
            piece = (
                os.pread(self._fd, min(READ_BYTES, self._stop - self._at), self._at) if self._at < self._stop else b""
            )
        except OSError as error:
            raise FetchError(f"{self._where}: cannot be read ({error.strerror}); is the medium still there?") from error
        self._at += len(piece)
        self._pace.received(len(piece))
        return piece

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FolderFetcher:
    """`root`: the repository's folder, with `metadata/` and `targets/`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        if not root.is_dir():
            raise DataError(
                f"{root}: no such folder; mount the medium, or name the folder that `gudgeon repo export` made"
            )

    def open(self, path: str, pace: Pace, start: int = 0, stop: int | None = None, version: str = "") -> FolderReply:
        pace.begin()
        where = str(self._root / check_path(path))
        try:
            fd = self._walk(path.split("/"))
        except FileNotFoundError as error:
            raise FetchError(f"{where}: not on this medium", again=not self._root.is_dir(), missing=True) from error
        except OSError as error:
            raise FetchError(
                f"{where}: cannot be opened ({error.strerror}); links are not followed", again=False
            ) from error
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise FetchError(f"{where}: not a regular file", again=False)
            reply = FolderReply(fd, where, pace, start, stop)
            if version and version != reply.version:
                return FolderReply(fd, where, pace, 0, None)
            if start > reply.total:
                raise FetchError(f"{where}: has only {reply.total} bytes", again=False, status=416)
            return reply
        except BaseException:
            os.close(fd)
            raise

    def _walk(self, names: list[str]) -> int:
        """Down from the root, name by name, each opened without following it."""
        at = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in names[:-1]:
                below = os.open(name, FOLDER, dir_fd=at)
                os.close(at)
                at = below
            return os.open(names[-1], FILE, dir_fd=at)
        finally:
            os.close(at)
