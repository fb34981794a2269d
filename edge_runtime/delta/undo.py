"""A delta and its source made into the target, in bounded memory; refused at the first thing that is not as it must be.

    python -m edge_runtime.delta.undo DELTA SOURCE|- TARGET LENGTH SHA256

is how a device runs it: in a process of its own that may take only so much memory, processor time and disk, whatever the bytes
do to zstd. It exits with 0 where TARGET has that length and hash; else with 4, one line on stderr, and no TARGET.
"""

from __future__ import annotations

import hashlib
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import zstandard

from edge_runtime.delta import container
from edge_runtime.delta.container import COPY, PIECE_BYTES, RAW, WINDOW_LOG, Head, Section
from edge_runtime.errors import BundleError

REFUSED = 4
MEMORY_LIMIT_BYTES = 512 * 1024 * 1024
PROCESSOR_LIMIT_S = 600


class _Reader(Protocol):
    def read(self, count: int, /) -> bytes: ...


def undo(delta: Path, source: Path | None, target: Path, length: int, sha256: str) -> None:
    """Write the new file `target`; BundleError where the delta does not lead to it, and then there is none."""
    try:
        with delta.open("rb") as packed, target.open("xb") as out:
            try:
                _undo(packed, source, out, length, sha256)
                out.flush()
                os.fsync(out.fileno())
            except BaseException:
                target.unlink()
                raise
    except (ValueError, EOFError, zstandard.ZstdError, MemoryError) as error:
        raise BundleError(
            f"{delta.name}: {error or type(error).__name__}; refused, the whole file is fetched"
        ) from error


def _undo(packed: BinaryIO, source: Path | None, out: BinaryIO, length: int, sha256: str) -> None:
    head = container.read_head(packed.read(container.head_length(packed.read(12))))
    if head.target != (length, sha256):
        raise ValueError("leads to another file")
    with (source or Path(os.devnull)).open("rb") as old:
        if os.fstat(old.fileno()).st_size != head.source.length and source:
            raise ValueError("starts from another file")
        if head.source.length and source is None:
            raise ValueError("needs a file to start from")
        whole = hashlib.sha256()
        for piece in _pieces(packed, old, head):
            whole.update(piece)
            out.write(piece)
    if whole.hexdigest() != sha256:
        raise ValueError("what came out does not have the hash that was signed")


def _pieces(packed: BinaryIO, old: BinaryIO, head: Head) -> Iterator[bytes]:
    """The target, in pieces of at most PIECE_BYTES."""
    at = packed.tell()
    sections: dict[tuple[str, int], _Reader] = {}
    for section in head.sections:
        frame = _Part(packed, at, section.frame_bytes)
        sections[section.mode, section.width] = _open(frame, section, head, old)
        at += section.frame_bytes
    for step in head.steps:
        for start in range(0, step.length, PIECE_BYTES):
            count = min(PIECE_BYTES, step.length - start)
            if step.mode == COPY:
                yield _exactly(_Part(old, step.offset + start, count), count)
                continue
            data = _exactly(sections[step.mode, step.width], count)
            if step.mode in container.FROM_SOURCE:
                from edge_runtime.delta import planes

                before = _exactly(_Part(old, step.offset + start, count), count)
                data = planes.restore(step.mode, step.width, data, before)
            yield data


def _open(frame: _Reader, section: Section, head: Head, old: BinaryIO) -> _Reader:
    """A section's bytes, unpacked as they are asked for: never more than the steps take."""
    words = None
    if section.mode == RAW and head.dictionary:
        parts = [_exactly(_Part(old, r.offset, r.length), r.length) for r in head.dictionary]
        words = zstandard.ZstdCompressionDict(b"".join(parts), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    unpack = zstandard.ZstdDecompressor(dict_data=words, max_window_size=1 << WINDOW_LOG)
    stream: _Reader = unpack.stream_reader(frame, read_size=64 * 1024)  # type: ignore[arg-type]
    return stream if section.mode == RAW else _Planes(stream, section.width, head.section_bytes(section))


class _Part:
    """A range of a file that others read too."""

    def __init__(self, file: BinaryIO, at: int, count: int) -> None:
        self._file, self._at, self._end = file, at, at + count

    def read(self, count: int = -1, /) -> bytes:
        left = self._end - self._at
        self._file.seek(self._at)
        data = self._file.read(left if count < 0 else min(count, left))
        self._at += len(data)
        return data


class _Planes:
    """Elements out of pieces that are laid out byte plane by byte plane."""

    def __init__(self, stream: _Reader, width: int, total: int) -> None:
        self._stream, self._width, self._left = stream, width, total
        self._piece = memoryview(b"")

    def read(self, count: int, /) -> bytes:
        if not self._piece:
            from edge_runtime.delta import planes

            size = min(PIECE_BYTES, self._left)
            self._piece = memoryview(planes.from_planes(_exactly(self._stream, size), self._width))
            self._left -= size
        data = bytes(self._piece[:count])
        self._piece = self._piece[len(data) :]
        return data


def _exactly(reader: _Reader, count: int) -> bytes:
    parts = []
    while count:
        part = reader.read(count)
        if not part:
            raise EOFError("ends too early")
        parts.append(part)
        count -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def main(argv: list[str]) -> int:
    if len(argv) != 5 or not argv[3].isdecimal():
        print("expected DELTA SOURCE|- TARGET LENGTH SHA256", file=sys.stderr)
        return 2
    length = int(argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_LIMIT_S, PROCESSOR_LIMIT_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source = None if argv[1] == "-" else Path(argv[1])
    try:
        undo(Path(argv[0]), source, Path(argv[2]), length, argv[4])
    except BundleError as error:
        print(error, file=sys.stderr)
        return REFUSED
    except OSError as error:
        print(error, file=sys.stderr)
        return 6
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
