"""The deltas between two artifacts (`wire.archive`), all kinds that there are: the caller takes the smallest.

The cloud's side, not bounded in memory but by what `undo` bounds: `patch` gives zstd the old files that changed as its
dictionary; `tensor` does that too, but takes the arrays of weights that both have at the same length out, as differences;
`packed` needs no source. A file that is the same in both is copied in all of them.
"""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import zstandard

from edge_runtime.delta import planes, regions
from edge_runtime.delta.container import (
    COPY,
    DICTIONARY_LIMIT_BYTES,
    PIECE_BYTES,
    PLANE,
    RAW,
    STEPS_LIMIT,
    SUB,
    WINDOW_LOG,
    XOR,
    End,
    Head,
    Range,
    Section,
    Step,
)  # fmt: skip
from edge_runtime.wire import archive
from edge_runtime.wire.archive import Member

#: of zstd; the second for what is longer, where the first takes minutes
LEVEL, LEVEL_LONG, LONG_BYTES = 19, 12, 32 * 1024 * 1024
COPY_LEAST_BYTES = 1024
#: the largest delta that is worth the work, as a part of what would be fetched without it; of one that is only packed
WORTH, WORTH_PACKED = 0.8, 0.9


class _Span(NamedTuple):
    """A part of the target: where it stands, and what of the source it is like."""

    mode: str
    width: int
    start: int
    length: int
    offset: int = 0


def make(source: bytes | None, target: bytes) -> dict[str, bytes]:
    """Format → delta. Without a source just `packed`."""
    if source is None:
        plain = _build(b"", target, [_Span(RAW, 0, 0, len(target))], [])
        apart = _build(b"", target, list(_filled(len(target), _arrays(target))), [])
        return {"packed": min(plain, apart, key=len)}
    same = list(_same(source, target))
    words = _dictionary(source, target, same)
    found = {"patch": _build(source, target, list(_filled(len(target), same)), words)}
    both = sorted([*same, *_differences(source, target)], key=lambda s: s.start)
    if len(both) > len(same):
        found["tensor"] = _build(source, target, list(_filled(len(target), both)), words)
    return found


def choose(full_bytes: int, packed_bytes: int, sizes: dict[str, int]) -> str:
    """The format to publish, "" for none. `packed_bytes`: of the file that is only packed; it is measured against the whole."""
    if not sizes:
        return ""
    best = min(sizes, key=lambda name: sizes[name])
    otherwise = packed_bytes if packed_bytes <= WORTH_PACKED * full_bytes else full_bytes
    return best if sizes[best] <= (WORTH_PACKED * full_bytes if best == "packed" else WORTH * otherwise) else ""


def zstd_bytes(data: bytes) -> int:
    """How long it is packed by zstd alone, as a measure."""
    return len(_compress(data))


def _same(source: bytes, target: bytes) -> Iterator[_Span]:
    """Files that are in both, also under another name."""
    known = {(m.size, _sha256(source, m)): m for m in _members(source)}
    for m in _members(target):
        if m.size >= COPY_LEAST_BYTES and (old := known.get((m.size, _sha256(target, m)))):
            yield _Span(COPY, 0, m.start, m.size, old.start)


def _differences(source: bytes, target: bytes) -> Iterator[_Span]:
    """Arrays that both have under one name and at one length, in files that are not the same."""
    before = {m.name: m for m in _members(source)}
    for m in _members(target):
        old = before.get(m.name)
        if old is None or (old.size == m.size and _sha256(source, old) == _sha256(target, m)):
            continue
        known = {(r.name, r.length, r.width): r for r in regions.find(old.name, _content(source, old))}
        for r in regions.find(m.name, _content(target, m)):
            if like := known.get((r.name, r.length, r.width)):
                now, then = m.start + r.start, old.start + like.start
                equal = source[then : then + r.length] == target[now : now + r.length]
                yield _Span(COPY, 0, now, r.length, then) if equal else _Span(SUB, r.width, now, r.length, then)


def _arrays(target: bytes) -> Iterator[_Span]:
    for m in _members(target):
        for r in regions.find(m.name, _content(target, m)):
            yield _Span(PLANE, r.width, m.start + r.start, r.length)


def _dictionary(source: bytes, target: bytes, same: list[_Span]) -> list[Range]:
    """What of the source zstd may refer to: the files that are not copied whole, the smaller ones first, up to the limit; each
    with its header."""
    copied = {s.offset for s in same}
    changed = [m for m in _members(source) if m.start not in copied]
    found, left = [], DICTIONARY_LIMIT_BYTES
    for m in sorted(changed, key=lambda m: m.size):
        start, stop = m.start - archive.BLOCK, m.start + m.size
        length = min(stop - start, left)
        if length > 0:
            found.append(Range(start, length))
            left -= length
    return sorted(found)


def _filled(total: int, spans: Iterator[_Span] | list[_Span]) -> Iterator[_Span]:
    """With what is between them, raw; not more steps than a device takes."""
    at = 0
    for span in list(spans)[: STEPS_LIMIT // 2 - 1]:
        if span.start > at:
            yield _Span(RAW, 0, at, span.start - at)
        yield span
        at = span.start + span.length
    if at < total:
        yield _Span(RAW, 0, at, total - at)


def _build(source: bytes, target: bytes, spans: list[_Span], words: list[Range]) -> bytes:
    widths = sorted({s.width for s in spans if s.mode == SUB})
    modes = {width: _better(source, target, spans, width) for width in widths}
    spans = [s._replace(mode=modes[s.width]) if s.mode == SUB else s for s in spans]
    streams: dict[tuple[str, int], bytearray] = defaultdict(bytearray)
    for s in spans:
        if s.mode != COPY:
            streams[s.mode, s.width] += _changed(source, target, s)
    dictionary = b"".join(source[r.offset : r.offset + r.length] for r in words)
    frames = {key: _frame(key, bytes(stream), dictionary) for key, stream in sorted(streams.items())}
    head = Head(
        source=_end(source) if source else End(0, "0" * 64),
        target=_end(target),
        steps=[Step(s.mode, s.width, s.length, s.offset) for s in spans],
        sections=[Section(mode, width, len(frame)) for (mode, width), frame in frames.items()],
        dictionary=words if (RAW, 0) in frames else [],
    )
    return head.to_bytes() + b"".join(frames.values())


def _better(source: bytes, target: bytes, spans: list[_Span], width: int) -> str:
    """Whichever difference packs smaller for the arrays of this width."""
    sizes: Mapping[str, int] = {
        mode: len(
            _frame(
                (mode, width),
                b"".join(
                    _changed(source, target, s._replace(mode=mode)) for s in spans if (s.mode, s.width) == (SUB, width)
                ),
                b"",
            )
        )
        for mode in (SUB, XOR)
    }
    return min(sizes, key=lambda mode: sizes[mode])


def _changed(source: bytes, target: bytes, s: _Span) -> bytes:
    data = target[s.start : s.start + s.length]
    return data if s.mode == RAW else planes.difference(s.mode, s.width, data, source[s.offset : s.offset + s.length])


def _frame(key: tuple[str, int], stream: bytes, dictionary: bytes) -> bytes:
    mode, width = key
    if mode == RAW:
        return _compress(stream, dictionary)
    pieces = [stream[at : at + PIECE_BYTES] for at in range(0, len(stream), PIECE_BYTES)]
    return _compress(b"".join(planes.to_planes(piece, width) for piece in pieces))


def _compress(data: bytes, dictionary: bytes = b"") -> bytes:
    window = min(WINDOW_LOG, max(len(data), len(dictionary), 1024).bit_length() + 1)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL if len(data) < LONG_BYTES else LEVEL_LONG,
        window_log=window,
        source_size=len(data),
        dict_size=len(dictionary),
    )
    words = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=words).compress(data)


def _members(data: bytes) -> list[Member]:
    return archive.members(io.BytesIO(data), len(data))


def _content(data: bytes, m: Member) -> bytes:
    return data[m.start : m.start + m.size]


def _sha256(data: bytes, m: Member) -> str:
    return hashlib.sha256(_content(data, m)).hexdigest()


def _end(data: bytes) -> End:
    return End(len(data), hashlib.sha256(data).hexdigest())
