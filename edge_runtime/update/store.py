"""The store: unpacked releases, each in a folder named by the SHA-256 of its artifact. What is there never changes.

    <state_dir>/store/<sha256>/            the files of a release, read-only
    <state_dir>/store/.<sha256>.making     being written; .<sha256>.gone: being removed. Both are cleaned at the next start

- A release is written beside its place, every file and name flushed, checked, and renamed into it: under its own name it is
  there whole or not at all.
- An artifact is packed in one way only (`wire.archive`): packing the folder again must give the hash that is its name. That
  is how a release is checked, whenever it is to run: no list of digests that could be changed along with it.
- `collect` removes what no record names, and nothing at all while a record cannot be read.
- There is a budget: what would not fit is refused before the first byte is written.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from edge_runtime.durable import disk_errors, make_folder, sync_folder
from edge_runtime.errors import BundleError, ResourceError
from edge_runtime.wire import archive

STORE = "store"
NAME = re.compile(r"[0-9a-f]{64}")
LEFT_OVER = re.compile(r"\.[0-9a-f]{64}\.(making|gone)")
RESERVE_BYTES = 16 * 1024 * 1024

#: makes this folder, and writes the files of a release into it
Fill = Callable[[Path], object]


def address(folder: Path) -> str:
    """The SHA-256 that the artifact of this folder has; ValueError where it is no release."""
    return archive.pack(folder, lambda piece: None).sha256


class Store:
    """`budget_bytes`: what all releases together may take; 0: no limit. `free_bytes`: of the disk that a folder is on."""

    def __init__(self, state_dir: Path, budget_bytes: int = 0, free_bytes: Callable[[Path], int] | None = None) -> None:
        self.folder = state_dir / STORE
        self._budget_bytes, self._free_bytes = budget_bytes, free_bytes or _free_bytes

    def path(self, sha256: str) -> Path:
        """Where this release lies, if it is there."""
        if not NAME.fullmatch(sha256):
            raise BundleError(f"store: {sha256[:80]!r} is not a SHA-256 in hex")
        return self.folder / sha256

    def names(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.folder) if NAME.fullmatch(name))
        except FileNotFoundError:
            return []

    def problem(self, sha256: str) -> str:
        """Why this release cannot run: it is not there, or not what its name says. "" where it is whole."""
        path = self.path(sha256)
        try:
            if path.is_symlink() or not path.is_dir():
                return f"release {sha256[:12]} is not in the store"
            found = address(path)
        except (OSError, ValueError) as error:
            return f"release {sha256[:12]} in the store is damaged: {str(error).partition(';')[0]}"
        return "" if found == sha256 else f"release {sha256[:12]} in the store is damaged: its files give {found[:12]}"

    def put(self, sha256: str, fill: Fill) -> Path:
        """Have `fill` write the release, check it and put it in its place; BundleError where what it wrote has another hash.
        One that is there and whole is left as it is."""
        path = self.path(sha256)
        if not self.problem(sha256):
            with disk_errors(self.folder):
                self._sync()  # who put it there may have been killed before its name was on the disk
            return path
        making = self.folder / f".{sha256}.making"
        with disk_errors(path):
            make_folder(self.folder)
            _remove_tree(making)
            try:
                fill(making)
                self._seal(making, sha256)
                self._remove(path)  # a damaged one
                making.rename(path)
                self._sync()
            except BaseException:
                with suppress(OSError):
                    _remove_tree(making)
                raise
        return path

    def _seal(self, making: Path, sha256: str) -> None:
        for name in os.listdir(making):
            fd = os.open(making / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fchmod(fd, 0o444)
                os.fsync(fd)
            finally:
                os.close(fd)
        sync_folder(making)
        try:
            found = address(making)
        except ValueError as error:
            raise BundleError(f"release {sha256[:12]}: {error}") from error
        if found != sha256:
            raise BundleError(f"release {sha256[:12]}: its files give the hash {found[:12]}; it is not packed as one")

    def collect(self, keep: Iterable[str]) -> list[str]:
        """Remove every release that is not in `keep`; which they were."""
        gone = sorted(set(self.names()) - set(keep))
        with disk_errors(self.folder):
            for name in gone:
                self._remove(self.folder / name)
            if gone:
                sync_folder(self.folder)
        return gone

    def clean(self) -> None:
        """Remove what an interrupted writing or removal has left; what is there is on the disk when this returns."""
        with disk_errors(self.folder):
            for path in self._left_over():
                _remove_tree(path)
            if self.folder.is_dir():
                self._sync()

    def _sync(self) -> None:
        """The names of the releases, and that of the store itself."""
        sync_folder(self.folder)
        sync_folder(self.folder.parent)

    def _left_over(self) -> Iterator[Path]:
        with suppress(FileNotFoundError):
            yield from [self.folder / name for name in os.listdir(self.folder) if LEFT_OVER.fullmatch(name)]

    def _remove(self, path: Path) -> None:
        """First out of its name, so that nothing is ever there by halves."""
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.exists():
            gone = self.folder / f".{path.name}.gone"
            _remove_tree(gone)
            path.rename(gone)
            sync_folder(self.folder)
            _remove_tree(gone)

    def size_bytes(self) -> int:
        """What all releases take."""
        return sum(_tree_bytes(self.folder / name) for name in self.names())

    def ask_room(self, size_bytes: int) -> None:
        """ResourceError where a release of this size does not fit the budget or the disk."""
        used = self.size_bytes()
        if self._budget_bytes and used + size_bytes > self._budget_bytes:
            raise ResourceError(
                f"{self.folder}: a release of {size_bytes} bytes beside {used} bytes is over the budget of "
                f"{self._budget_bytes}; raise [update] store_bytes"
            )
        with disk_errors(self.folder):
            free = self._free_bytes(self.folder)
        if free < size_bytes + RESERVE_BYTES:
            raise ResourceError(
                f"{self.folder}: {free} bytes are free on the disk, {size_bytes + RESERVE_BYTES} are needed; free some space"
            )


def _free_bytes(folder: Path) -> int:
    there = next(p for p in (folder, *folder.parents) if p.exists())
    return shutil.disk_usage(there).free


def _tree_bytes(path: Path) -> int:
    total = 0
    for entry in os.scandir(path):
        info = entry.stat(follow_symlinks=False)
        total += info.st_size if stat.S_ISREG(info.st_mode) else 0
    return total


def _remove_tree(path: Path) -> None:
    """Also where a symbolic link was planted: what it leads to stays."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
