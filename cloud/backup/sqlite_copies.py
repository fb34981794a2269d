"""Copies of a SQLite store while it is in use: whole ones (base), and of each later moment the pages that changed since.

SQLite has no archive of its log. Its online backup gives the whole file as of one moment, so a moment between two copies cannot
be restored: what is lost at most is what was committed since the last copy, and that is what `--every` sets. A copy is only
made where somebody has committed since; it reads the whole file once.

A copy is one file, written whole or not at all: a line of JSON (page size, pages, hash of the whole database, the copy before),
then, compressed, the number and content of each page. The time in its name is that when it was complete: nothing in it is
younger.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import zstandard

from cloud.backup.shelf import oldest
from edge_runtime.durable import disk_errors, replace_file, sync_folder
from edge_runtime.errors import DataError

DAY_NS = 86_400 * 1_000_000_000
NUMBER = 4  # bytes of a page's number
HEADER_BYTES = 4096


class Header(NamedTuple):
    page_size: int
    pages: int
    sha256: str
    before: int | None


class SqliteCopies:
    """`now_ns` is asked when a copy is complete. Pages are told apart by 16 bytes of hash each, kept in memory."""

    def __init__(self, folder: Path, now_ns: Callable[[], int]) -> None:
        self._folder, self._now_ns = folder, now_ns
        self._known: list[bytes] = []
        self._last: int | None = None
        self._base_ns = 0
        self._watch: sqlite3.Connection | None = None
        self._version = -1

    def times(self) -> list[int]:
        """Of the copies, the oldest first."""
        return sorted(int(p.stem) for p in self._folder.iterdir() if p.suffix in (".base", ".change"))

    def seen_ns(self) -> int:
        """Up to when nothing was committed that is not in a copy."""
        try:
            return int((self._folder / "seen").read_text())
        except (OSError, ValueError):
            return 0

    def copy(self, database: Path) -> int | None:
        """The time of a new copy; None where nothing was committed since the last one."""
        with disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        looked_ns = self._now_ns()
        version = self._data_version(database)
        made = None
        if version != self._version or self._last is None:
            made = self._copy(database)
            self._version = version
            looked_ns = max(looked_ns, made)
        replace_file(self._folder / "seen", str(looked_ns).encode())
        return made

    def _data_version(self, database: Path) -> int:
        """Changes whenever another connection has committed."""
        if self._watch is None:
            self._watch = sqlite3.connect(f"file:{database}?mode=ro", uri=True, check_same_thread=False)
        return int(self._watch.execute("PRAGMA data_version").fetchone()[0])

    def _copy(self, database: Path) -> int:
        temporary = self._folder / f".copy.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        try:
            source, target = sqlite3.connect(database), sqlite3.connect(temporary)
            try:
                source.backup(target)
            finally:
                source.close()
                target.close()
            return self._write(temporary, self._now_ns())
        finally:
            temporary.unlink(missing_ok=True)

    def _write(self, whole: Path, at_ns: int) -> int:
        page_size, digest, found = _page_size(whole), hashlib.sha256(), list[bytes]()
        is_base = self._last is None or at_ns - self._base_ns >= DAY_NS
        changed = []
        with whole.open("rb") as file:
            for number, page in enumerate(iter(lambda: file.read(page_size), b"")):
                digest.update(page)
                found.append(hashlib.blake2b(page, digest_size=16).digest())
                if is_base or number >= len(self._known) or self._known[number] != found[-1]:
                    changed.append(number)
            header = Header(page_size, len(found), digest.hexdigest(), None if is_base else self._last)
            path = self._folder / f"{at_ns:020d}.{'base' if is_base else 'change'}"
            with disk_errors(path):
                _write_pages(path, header, file, changed)
        self._known, self._last = found, at_ns
        self._base_ns = at_ns if is_base else self._base_ns
        return at_ns

    def restore(self, at_ns: int | None, into: Path) -> int:
        """Put the newest copy that is no younger than `at_ns` at `into`; its time. DataError where there is none."""
        fits = [n for n in self.times() if at_ns is None or n <= at_ns]
        if not fits:
            raise DataError(f"{self._folder}: no copy of the store is old enough; the oldest is {oldest(self.times())}")
        chain, at = list[Path](), fits[-1]
        while True:
            path = next((p for s in (".base", ".change") if (p := self._folder / f"{at:020d}{s}").exists()), None)
            if path is None:
                raise DataError(f"{self._folder}: the copy of {at} is missing; restore an earlier moment")
            chain.insert(0, path)
            header = _read_header(path)
            if header.before is None:
                break
            if header.before >= at:
                raise DataError(f"{path}: follows a later copy; it was tampered with")
            at = header.before
        _put_together(chain, into)
        return fits[-1]

    def prune(self, before_ns: int) -> int:
        """Delete copies that are not needed to restore any moment from `before_ns` on; how many."""
        bases = sorted(int(p.stem) for p in self._folder.glob("*.base"))
        needed_from = max((n for n in bases if n <= before_ns), default=0)
        gone = [p for p in self._folder.iterdir() if p.suffix in (".base", ".change") and int(p.stem) < needed_from]
        for path in gone:
            path.unlink()
        return len(gone)


def _page_size(database: Path) -> int:
    with database.open("rb") as file:
        size = int.from_bytes(file.read(18)[16:18])
    return 65_536 if size == 1 else size


def _write_pages(path: Path, header: Header, source: IO[bytes], numbers: list[int]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as out:
        out.write(json.dumps(header._asdict()).encode() + b"\n")
        with zstandard.ZstdCompressor(level=3).stream_writer(out, closefd=False) as packed:
            for number in numbers:
                source.seek(number * header.page_size)
                packed.write(number.to_bytes(NUMBER) + source.read(header.page_size))
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def _read_header(path: Path) -> Header:
    with disk_errors(path), path.open("rb") as file:
        line = file.readline(HEADER_BYTES)
    try:
        found = Header(**json.loads(line))
        if not 512 <= found.page_size <= 65_536 or not 0 < found.pages < 2**32:
            raise ValueError(f"{found.pages} pages of {found.page_size} bytes")
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: not a copy of a store: {error}; restore an earlier moment") from error
    return found


def _put_together(chain: list[Path], into: Path) -> None:
    """The whole database, or no file."""
    try:
        with disk_errors(into):
            fd = os.open(into, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "w+b") as out:
                digest, wanted = _write_chain(chain, out)
        if digest != wanted:
            raise DataError(f"{chain[-1]}: the database does not come out as it was; restore an earlier moment")
    except DataError:
        into.unlink()
        raise


def _write_chain(chain: list[Path], out: IO[bytes]) -> tuple[str, str]:
    """The hash of what came out, and of what should."""
    wanted = ""
    for path in chain:
        header = _read_header(path)
        wanted = header.sha256
        for number, page in _pages(path, header):
            out.seek(number * header.page_size)
            out.write(page)
        out.truncate(header.pages * header.page_size)
    out.flush()
    os.fsync(out.fileno())
    out.seek(0)
    digest = hashlib.sha256()
    for chunk in iter(lambda: out.read(1024 * 1024), b""):
        digest.update(chunk)
    return digest.hexdigest(), wanted


def _pages(path: Path, header: Header) -> Iterator[tuple[int, bytes]]:
    size = NUMBER + header.page_size
    with path.open("rb") as file:
        file.readline(HEADER_BYTES)
        with zstandard.ZstdDecompressor().stream_reader(file) as packed:
            while True:
                try:
                    piece = _exactly(packed, size)
                except zstandard.ZstdError as error:
                    raise DataError(f"{path}: damaged: {error}; restore an earlier moment") from error
                if not piece:
                    return
                number = int.from_bytes(piece[:NUMBER])
                if len(piece) != size or number >= header.pages:
                    raise DataError(f"{path}: damaged; restore an earlier moment")
                yield number, piece[NUMBER:]


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = b""
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data
