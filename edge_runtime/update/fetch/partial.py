"""A file that is being fetched, as it stands on the disk: what came so far, in chunks of 1 MiB, and the hash of each.

    <folder>/<sha256>.part      the bytes, each chunk at its place; its room is taken at once
    <folder>/<sha256>.chunks    512 bytes of JSON {v, sha256, length, version}, then of each chunk its SHA-256, or 32 zeros;
                                then of the chunk under way {index, length so far, SHA-256 so far}
    <folder>/<sha256>           the whole file, when its hash was right
    <folder>/<sha256>.deltas/   the same of deltas that lead to it (`artifact`)

A chunk counts only if its bytes have the hash that is noted for it: so nothing needs an order of writes, and after a power cut
or a change by somebody else just the chunks that suffered are fetched again. Whether it is the right file only the hash of the
whole says.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edge_runtime.durable import disk_errors, sync_folder
from edge_runtime.errors import ResourceError

VERSION = 1
CHUNK_BYTES = 1024 * 1024
HEAD_BYTES = 512
HASH_BYTES = 32
NONE = bytes(HASH_BYTES)
TAIL = struct.Struct("<QQ32s")
TAIL_BYTES = 256 * 1024
FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
OURS = re.compile(r"[0-9a-f]{64}(\.(part|chunks|deltas))?")


@dataclass(frozen=True)
class Wanted:
    """What is to be fetched: its path in the repository, and length and SHA-256 as signed."""

    path: str
    length: int
    sha256: str


class Run(NamedTuple):
    """Bytes that are not there yet."""

    start: int
    stop: int


class Partial:
    """Opened, each chunk that is noted is read and checked. ResourceError where the disk does not take it."""

    def __init__(self, folder: Path, wanted: Wanted, leave_free_bytes: int = 0) -> None:
        self.wanted, self._folder = wanted, folder
        self._part, self._notes = folder / f"{wanted.sha256}.part", folder / f"{wanted.sha256}.chunks"
        self._leave_free_bytes = leave_free_bytes
        self.hashes = [NONE] * -(-wanted.length // CHUNK_BYTES)
        self.version = ""
        self.begun = b""
        self._fd = self._notes_fd = -1
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                if not self._resume():
                    self._create()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        for fd in (self._fd, self._notes_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._notes_fd = -1

    @property
    def held_bytes(self) -> int:
        return sum(self.size(i) for i, noted in enumerate(self.hashes) if noted != NONE)

    def size(self, index: int) -> int:
        return min(CHUNK_BYTES, self.wanted.length - index * CHUNK_BYTES)

    def missing(self) -> Run | None:
        """The first chunks in a row that are not there; None when all are."""
        holes = [i for i, noted in enumerate(self.hashes) if noted == NONE]
        if not holes:
            return None
        last = next((i for i in range(holes[0], len(self.hashes)) if self.hashes[i] != NONE), len(self.hashes))
        return Run(holes[0] * CHUNK_BYTES, min(last * CHUNK_BYTES, self.wanted.length))

    def put(self, index: int, data: bytes) -> None:
        """Keep a chunk: its bytes on the disk, then its hash."""
        noted = hashlib.sha256(data).digest()
        if self.hashes[index] == noted:
            return
        with disk_errors(self._part):
            _write(self._fd, data, index * CHUNK_BYTES)
            os.fdatasync(self._fd)
            _write(self._notes_fd, noted, HEAD_BYTES + index * HASH_BYTES)
            os.fdatasync(self._notes_fd)
        self.hashes[index] = noted

    def put_tail(self, index: int, data: bytes, kept: int) -> None:
        """Keep the beginning of a chunk, `kept` bytes of which were kept before. Not flushed: it is for a process that dies, and
        may be gone after a power cut."""
        with disk_errors(self._part):
            _write(self._fd, data[kept:], index * CHUNK_BYTES + kept)
            tail = TAIL.pack(index, len(data), hashlib.sha256(data).digest())
            _write(self._notes_fd, tail, HEAD_BYTES + HASH_BYTES * len(self.hashes))

    def belongs_to(self, version: str) -> None:
        """Note which state of the other side's file the chunks are of."""
        if version != self.version:
            self.version = version
            with disk_errors(self._notes):
                _write(self._notes_fd, self._head(), 0)
                os.fdatasync(self._notes_fd)

    def forget(self) -> None:
        """Begin anew: no chunk counts."""
        self.hashes = [NONE] * len(self.hashes)
        self.version, self.begun = "", b""
        with disk_errors(self._notes):
            _write(self._notes_fd, self._head() + NONE * len(self.hashes) + bytes(TAIL.size), 0)
            os.fdatasync(self._notes_fd)

    def finish(self) -> Path | None:
        """Give the file its name, where its hash is right; else None, and it is still here."""
        with disk_errors(self._part):
            if _hash(self._fd, self.wanted.length) != self.wanted.sha256:
                return None
            os.fsync(self._fd)
            done = self._folder / self.wanted.sha256
            self._part.replace(done)
            self._notes.unlink(missing_ok=True)
            sync_folder(self._folder)
        self.close()
        return done

    def discard(self) -> None:
        """Give its room back."""
        self.close()
        with disk_errors(self._folder):
            self._part.unlink(missing_ok=True)
            self._notes.unlink(missing_ok=True)

    def _head(self) -> bytes:
        value = {"v": VERSION, "sha256": self.wanted.sha256, "length": self.wanted.length, "version": self.version}
        return json.dumps(value).encode().ljust(HEAD_BYTES)

    def _resume(self) -> bool:
        """Take up what is there; False where there is nothing, or nothing of use."""
        try:
            self._fd = os.open(self._part, FILE)
            self._notes_fd = os.open(self._notes, FILE)
        except FileNotFoundError:
            return False
        notes = os.pread(self._notes_fd, HEAD_BYTES + HASH_BYTES * len(self.hashes), 0)
        try:
            head = json.loads(notes[:HEAD_BYTES])
            known = {"v": VERSION, "sha256": self.wanted.sha256, "length": self.wanted.length}
            if not isinstance(head["version"], str) or head != {**known, "version": head["version"]}:
                return False
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        self.version = head["version"]
        for index in range(len(self.hashes)):
            noted = notes[HEAD_BYTES + index * HASH_BYTES :][:HASH_BYTES]
            if len(noted) == HASH_BYTES and noted != NONE:
                data = os.pread(self._fd, self.size(index), index * CHUNK_BYTES)
                if len(data) == self.size(index) and hashlib.sha256(data).digest() == noted:
                    self.hashes[index] = noted
        self.begun = self._tail()
        return True

    def _tail(self) -> bytes:
        """What is there of the first chunk that is missing."""
        noted = os.pread(self._notes_fd, TAIL.size, HEAD_BYTES + HASH_BYTES * len(self.hashes))
        hole = self.missing()
        if hole is None or len(noted) != TAIL.size:
            return b""
        index, length, sha256 = TAIL.unpack(noted)
        if index * CHUNK_BYTES != hole.start or not 0 < length < self.size(index):
            return b""
        data = os.pread(self._fd, length, hole.start)
        return data if hashlib.sha256(data).digest() == sha256 else b""

    def _create(self) -> None:
        self.close()
        for path in (self._part, self._notes):
            path.unlink(missing_ok=True)
        free = os.statvfs(self._folder)
        if free.f_bavail * free.f_frsize < self.wanted.length + self._leave_free_bytes:
            raise ResourceError(
                f"{self._folder}: {self.wanted.path} needs {self.wanted.length} bytes and {self._leave_free_bytes} "
                f"must stay free, {free.f_bavail * free.f_frsize} are; free some space"
            )
        try:
            self._fd = os.open(self._part, FILE | os.O_CREAT | os.O_EXCL, 0o600)
            self._notes_fd = os.open(self._notes, FILE | os.O_CREAT | os.O_EXCL, 0o600)
            _take_room(self._fd, self.wanted.length)
            _write(self._notes_fd, self._head() + NONE * len(self.hashes), 0)
            os.fsync(self._fd)
            os.fsync(self._notes_fd)
            sync_folder(self._folder)
        except OSError:
            for path in (self._part, self._notes):
                path.unlink(missing_ok=True)
            raise


def finished(folder: Path, wanted: Wanted) -> Path | None:
    """The whole file, where it was fetched before and its hash is still right."""
    path = folder / wanted.sha256
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        right = os.fstat(fd).st_size == wanted.length and _hash(fd, wanted.length) == wanted.sha256
        for suffix in (".part", ".chunks") if right else ():  # of a try that ended right after the file had its name
            (folder / f"{wanted.sha256}{suffix}").unlink(missing_ok=True)
        sync_folder(folder)
    except OSError:
        right = False
    finally:
        os.close(fd)
    if not right:
        with disk_errors(path):
            path.unlink()
    return path if right else None


def sweep(folder: Path, keep: Collection[str] = ()) -> None:
    """Remove what was fetched, wholly or in part, of anything but the artifacts with these hashes."""
    with disk_errors(folder):
        for path in folder.iterdir() if folder.is_dir() else ():
            if not OURS.fullmatch(path.name) or path.name[:64] in keep:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _take_room(fd: int, length: int) -> None:
    """So that a disk that is too small says so before the first byte is fetched. A file system that cannot says it later."""
    if not length:
        return
    try:
        os.posix_fallocate(fd, 0, length)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        os.ftruncate(fd, length)


def _write(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, at)
        view, at = view[count:], at + count


def _hash(fd: int, length: int) -> str:
    sha256 = hashlib.sha256()
    for at in range(0, length, CHUNK_BYTES):
        sha256.update(os.pread(fd, min(CHUNK_BYTES, length - at), at))
    return sha256.hexdigest()
