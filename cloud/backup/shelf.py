"""Copies of files as they were at a moment: contents once each by their hash, a list for each moment at which something was
new."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from edge_runtime.durable import disk_errors, replace_file, sync_folder
from edge_runtime.errors import DataError

CHUNK = 1024 * 1024
LIST_BYTES = 64 * 1024 * 1024


class Kept(NamedTuple):
    """`path`: relative to where it is restored. `group`: `state` or `registry`."""

    path: str
    mode: int
    sha256: str
    group: str


class Source(NamedTuple):
    """A file or folder to be kept, under the name `path`."""

    place: Path
    path: str
    group: str = "state"


def iso(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def oldest(times: Sequence[int]) -> str:
    return f"of {iso(times[0])}" if times else "none: nothing was kept here"


class Shelf:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamps: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def prepare(self) -> None:
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            for name in ("blobs", "files"):
                (self._folder / name).mkdir(exist_ok=True)

    def times(self) -> list[int]:
        return sorted(int(p.stem) for p in (self._folder / "files").glob("*.json") if p.stem.isdecimal())

    def list(self, time_ns: int) -> list[Kept]:
        path = self._folder / "files" / f"{time_ns:020d}.json"
        with disk_errors(path):
            data = path.read_bytes()
        try:
            return [Kept(str(k["path"]), int(k["mode"]), str(k["sha256"]), str(k["group"])) for k in json.loads(data)]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not a list of kept files: {error}; restore an earlier moment") from error

    def keep(self, sources: Iterable[Source], now_ns: int) -> bool:
        """Whether something was new. A file that goes away or changes while it is read is read again the next time."""
        found = sorted(Kept(name, mode, self._put(place), group) for place, name, mode, group in _walk(sources))
        times = self.times()
        if times and self.list(times[-1]) == found:
            return False
        told: list[Mapping[str, Any]] = [kept._asdict() for kept in found]
        replace_file(self._folder / "files" / f"{now_ns:020d}.json", json.dumps(told, indent=0).encode())
        return True

    def restore(self, kept: Kept, into: Path) -> Path:
        """The restored file; DataError where its content is not what was kept."""
        target = (into / kept.path).resolve()
        if not target.is_relative_to(into.resolve()):
            raise DataError(f"{kept.path}: leads out of {into}; this list was tampered with")
        blob = self._folder / "blobs" / kept.sha256
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            digest = hashlib.sha256()
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, kept.mode & 0o777)
            with os.fdopen(fd, "wb") as out, blob.open("rb") as file:
                for chunk in iter(lambda: file.read(CHUNK), b""):
                    digest.update(chunk)
                    out.write(chunk)
                out.flush()
                os.fsync(out.fileno())
        if digest.hexdigest() != kept.sha256:
            raise DataError(f"{blob}: damaged; restore from another copy of the backup")
        return target

    def _put(self, place: Path) -> str:
        """The hash of the content; a file that looks as before is not read again."""
        with disk_errors(place), place.open("rb") as file:
            found = os.fstat(file.fileno())
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if place in self._stamps and self._stamps[place][0] == stamp:
                return self._stamps[place][1]
            temporary = self._folder / "blobs" / f".{os.getpid()}"
            digest = hashlib.sha256()
            with temporary.open("wb") as out:
                for chunk in iter(lambda: file.read(CHUNK), b""):
                    digest.update(chunk)
                    out.write(chunk)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(self._folder / "blobs" / digest.hexdigest())
            sync_folder(self._folder / "blobs")
        self._stamps[place] = (stamp, digest.hexdigest())
        return digest.hexdigest()


def _walk(sources: Iterable[Source]) -> Iterator[tuple[Path, str, int, str]]:
    """Regular files only; links and sockets are left out."""
    for source in sources:
        if source.place.is_dir():
            places = sorted(
                p for p in source.place.rglob("*") if not any(part.startswith(".") for part in p.parts[-1:])
            )
        else:
            places = [source.place]
        for place in places:
            try:
                found = place.lstat()
            except FileNotFoundError:
                continue
            if stat.S_ISREG(found.st_mode):
                inner = place.relative_to(source.place).as_posix()
                name = source.path if inner == "." else f"{source.path}/{inner}"
                yield place, name, stat.S_IMODE(found.st_mode), source.group
