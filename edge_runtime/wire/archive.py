"""Archive: a release as one file, the uncompressed ustar of a bundle folder. The same folder gives the same bytes.

- Regular files only, flat names, in rising order of their bytes, mode 0644, owner 0, time 0; two blocks of zeros end it. Nothing
  else is an archive: a header is taken only if it is, byte for byte, the one that `pack` writes for that name and size. So there
  are no links, devices, folders, sparse files, extensions, second names or bytes after the end.
- It holds `manifest.toml`, every file that its table `[files]` names with that SHA-256, `manifest.sig` where there is one, and
  no more.
- Reading is streaming and bounded: sizes are checked before bytes are written, and what fails leaves no folder behind.

Standard library only; ValueError (`ArchiveError`) says what is wrong, an OSError is the disk's.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from edge_runtime.wire import manifest

BLOCK = 512
READ_BYTES = 256 * 1024
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}", re.ASCII)
END = bytes(2 * BLOCK)
SIZE_LIMIT = 8**11 - 1
TYPES: Mapping[bytes, str] = {
    b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"5": "a folder", b"6": "a pipe",
    b"S": "a sparse file", b"x": "a pax extension", b"g": "a pax extension", b"L": "a GNU extension", b"K": "a GNU extension",
}  # fmt: skip


class ArchiveError(ValueError):
    """The bytes are not an archive as `pack` writes it, or the folder is not one that can be packed."""


@dataclass(frozen=True)
class Limits:
    """What one archive may hold; the release's declared length bounds it further."""

    files: int = 64
    file_bytes: int = 1024**3
    total_bytes: int = 2 * 1024**3


class Packed(NamedTuple):
    length: int
    sha256: str


class Member(NamedTuple):
    """A file and where its bytes stand in the archive."""

    name: str
    start: int
    size: int


def pack(folder: Path, write: Callable[[bytes], object]) -> Packed:
    """Write the archive of a folder, piece by piece; ArchiveError where it holds anything but its manifest's files."""
    digests = {}
    whole = hashlib.sha256()
    length = 0

    def put(data: bytes) -> None:
        nonlocal length
        whole.update(data)
        length += len(data)
        write(data)

    for name in sorted(os.listdir(folder), key=os.fsencode):
        if not NAME.fullmatch(name):
            raise ArchiveError(f"{folder}: {name[:100]!r} cannot be in an archive: expected a name like {NAME.pattern}")
        digests[name] = _pack_file(folder / name, put)
    _check_files(digests, (folder / manifest.MANIFEST).read_bytes() if manifest.MANIFEST in digests else None)
    put(END)
    return Packed(length, whole.hexdigest())


def pack_file(folder: Path, out: Path) -> Packed:
    """The archive of a folder as a new file, on the disk when this returns."""
    with out.open("xb") as file:
        packed = pack(folder, file.write)
        file.flush()
        os.fsync(file.fileno())
    return packed


def unpack(archive: Path, into: Path, length: int | None = None, limits: Limits = Limits()) -> dict[str, str]:
    """Write the files of an archive to the new folder `into` and fsync them; their digests by name. `length`: of the
    archive, as the trusted metadata tells it. On any error there is no folder."""
    into.mkdir(mode=0o755)
    try:
        with archive.open("rb") as file:
            digests = _unpack(file, into, length, limits)
        _sync(into)
        _sync(into.parent)
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise
    return digests


def members(archive: BinaryIO, length: int | None = None, limits: Limits = Limits()) -> list[Member]:
    """What an archive holds, without reading the files; each header is checked as in `unpack`."""
    found: list[Member] = []
    source = _Source(archive, length, limits)
    for name, size in _walk(source, limits):
        found.append(Member(name, archive.tell(), size))
        source.skip(size + -size % BLOCK)
    return found


class _Source:
    """Reads exactly as many bytes as asked for; ArchiveError at the end of the file or over the declared length."""

    def __init__(self, file: BinaryIO, length: int | None, limits: Limits) -> None:
        self._file = file
        self._exact = length is not None
        self._left = limits.total_bytes if length is None else min(length, limits.total_bytes)

    def take(self, count: int) -> bytes:
        if count > self._left:
            raise ArchiveError("archive: goes on beyond its declared length")
        data = self._file.read(count)
        if len(data) != count:
            raise ArchiveError("archive: ends before its end mark")
        self._left -= count
        return data

    def skip(self, count: int) -> None:
        """Past bytes that nobody needs; whether they are there shows at the end mark."""
        if count > self._left:
            raise ArchiveError("archive: goes on beyond its declared length")
        self._file.seek(count, os.SEEK_CUR)
        self._left -= count

    def end(self) -> None:
        if (self._exact and self._left) or self._file.read(1):
            raise ArchiveError("archive: bytes after its end mark, or shorter than its declared length")


def _walk(source: _Source, limits: Limits) -> Iterable[tuple[str, int]]:
    """Name and size of each member; whoever iterates takes the member's bytes before going on."""
    last = ""
    for count in range(limits.files + 1):
        header = source.take(BLOCK)
        if header == bytes(BLOCK):
            if source.take(BLOCK) != bytes(BLOCK):
                raise ArchiveError("archive: expected two blocks of zeros at its end")
            return source.end()
        name, size = _read_header(header)
        if count == limits.files or size > limits.file_bytes:
            raise ArchiveError(
                f"archive: {name}: more than {limits.files} files, or one over {limits.file_bytes} bytes"
            )
        if name <= last:
            raise ArchiveError(f"archive: {name} stands after {last}: expected rising names, each once")
        last = name
        yield name, size
    return None


def _unpack(file: BinaryIO, into: Path, length: int | None, limits: Limits) -> dict[str, str]:
    digests: dict[str, str] = {}
    source = _Source(file, length, limits)
    for name, size in _walk(source, limits):
        if name == manifest.MANIFEST and size > manifest.LIMIT_BYTES:
            raise ArchiveError(f"archive: {name} has {size} bytes, the limit is {manifest.LIMIT_BYTES}")
        digests[name] = _unpack_file(source, into / name, size)
    text = (into / manifest.MANIFEST).read_bytes() if manifest.MANIFEST in digests else None
    _check_files(digests, text)
    return digests


def _unpack_file(source: _Source, path: Path, size: int) -> str:
    sha256 = hashlib.sha256()
    with path.open("xb") as out:
        for start in range(0, size, READ_BYTES):
            piece = source.take(min(READ_BYTES, size - start))
            sha256.update(piece)
            out.write(piece)
        out.flush()
        os.fsync(out.fileno())
    if any(source.take(-size % BLOCK)):
        raise ArchiveError(f"archive: {path.name}: bytes hidden in its padding")
    return sha256.hexdigest()


def _pack_file(path: Path, put: Callable[[bytes], None]) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ArchiveError(f"{path}: not a regular file; an archive holds nothing else")
        size, left = status.st_size, status.st_size
        sha256 = hashlib.sha256()
        put(header(path.name, size))
        while left and (piece := file.read(min(READ_BYTES, left))):
            sha256.update(piece)
            put(piece)
            left -= len(piece)
        if left or file.read(1):
            raise ArchiveError(f"{path}: changed while it was read")
        put(bytes(-size % BLOCK))
    return sha256.hexdigest()


def _check_files(digests: Mapping[str, str], manifest_bytes: bytes | None) -> None:
    """The files are exactly those that the manifest names, with its digests."""
    if manifest_bytes is None:
        raise ArchiveError(f"archive: {manifest.MANIFEST} is missing")
    try:
        named = manifest.read_toml(manifest_bytes).get("files")
    except ValueError as error:
        raise ArchiveError(f"archive: {manifest.MANIFEST}: {error}") from error
    if not isinstance(named, dict):
        raise ArchiveError(f"archive: {manifest.MANIFEST} has no table [files]")
    found = {n: d for n, d in digests.items() if n not in (manifest.MANIFEST, manifest.SIGNATURE)}
    for name in sorted(set(found) | set(named)):
        if found.get(name) != named.get(name):
            what = "missing" if name not in found else "not named by the manifest" if name not in named else "changed"
            raise ArchiveError(f"archive: {name[:100]} is {what}; pack the folder again as it was released")


def header(name: str, size: int) -> bytes:
    """The one header there is for this name and size."""
    fields = [
        name.encode("ascii").ljust(100, b"\0"), b"0000644\0", b"0000000\0", b"0000000\0", b"%011o\0" % size, b"00000000000\0",
        b" " * 8, b"0", bytes(100), b"ustar\x0000", bytes(32), bytes(32), b"0000000\0", b"0000000\0", bytes(155 + 12),
    ]  # fmt: skip
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _read_header(block: bytes) -> tuple[str, int]:
    raw, digits, kind = block[:100].rstrip(b"\0"), block[124:135], block[156:157]
    name = raw.decode("ascii", "backslashreplace")
    if kind != b"0":
        raise ArchiveError(f"archive: {name!r} is {TYPES.get(kind, 'of an unknown type')}; expected regular files only")
    if not NAME.fullmatch(name):
        raise ArchiveError(f"archive: {name!r} is not a plain file name")
    if not re.fullmatch(rb"[0-7]{11}", digits):
        raise ArchiveError(f"archive: {name}: its size is not eleven octal digits")
    size = int(digits, 8)
    if block != header(name, size):
        raise ArchiveError(
            f"archive: {name}: its header is not the one for this name and size (checksum, mode, owner or time)"
        )
    return name, size


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
