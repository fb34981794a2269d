"""Deltas of somebody unknown: each is refused, in bounds, and the whole artifact is fetched without anybody's help."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import zstandard

from edge_runtime.clock import FakeClock
from edge_runtime.delta import making
from edge_runtime.delta.container import COPY, RAW, End, Head, Section, Step
from edge_runtime.delta.tests.artifacts import files, folder, packed
from edge_runtime.update.fetch.artifact import fetch
from edge_runtime.update.fetch.memory import MemoryFetcher
from edge_runtime.update.fetch.pace import Limits
from edge_runtime.update.fetch.partial import Wanted
from edge_runtime.wire import delta as wire
from hil_tests.attacks.row import Attack

PATH = "targets/models/surface/2.tar"
OLD, NEW = packed(files()), packed(files(moved=1e-3, version="2"))
OLD_SHA256, NEW_SHA256 = (hashlib.sha256(data).hexdigest() for data in (OLD, NEW))
WHOLE = [Step(RAW, 0, len(NEW), 0)]


def offered(delta: bytes, promise: int | None) -> dict[str, bytes]:
    """A repository with this delta to NEW from OLD, and NEW itself."""
    candidate = wire.Candidate("patch", promise or len(delta), hashlib.sha256(delta).hexdigest(), "d")
    hint = wire.Hint(OLD_SHA256, NEW_SHA256, (candidate,)).to_json()
    return {PATH: NEW, wire.hint_path(OLD_SHA256, NEW_SHA256): hint, f"{wire.folder(OLD_SHA256)}/d": delta}


def evil(steps: Iterable[Step], frame: bytes, **changes: Any) -> bytes:
    """A delta whose head nobody has checked."""
    head = Head.__new__(Head)
    sections = [Section(RAW, 0, len(frame))] if frame else []
    ends = {"source": End(len(OLD), OLD_SHA256), "target": End(len(NEW), NEW_SHA256)}
    for name, value in {**ends, "steps": list(steps), "sections": sections, "dictionary": [], **changes}.items():
        object.__setattr__(head, name, value)
    return head.to_bytes() + frame


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3).compress(data)


def row(name: str, told: str, made: Callable[[], bytes], promise: int | None = None) -> Attack:
    def run(place: Path) -> None:
        sources = {OLD_SHA256: folder(place / "store", files())}
        fetcher = MemoryFetcher(offered(made(), promise))
        wanted = Wanted(PATH, len(NEW), NEW_SHA256)
        found = fetch(fetcher, wanted, place / "d", FakeClock(), sources, Limits(leave_free_bytes=0))
        assert (found.way, found.path.read_bytes()) == ("whole", NEW)
        assert told in found.refused[0]
        assert os.listdir(place / "d") == [NEW_SHA256]

    return Attack("delta", name, told, run)


ROWS: list[Attack] = [
    row("makes another artifact", "does not have the hash", lambda: evil(WHOLE, zstd(NEW[:-1] + b"x"))),
    row("leads to an older artifact", "leads to another file", lambda: making.make(OLD, OLD)["patch"]),
    row("unpacks without end", "does not have the hash", lambda: evil(WHOLE, zstd(bytes(1 << 28)))),
    row("declares a huge output", "do not add up", lambda: evil([Step(RAW, 0, 1 << 45, 0)], zstd(NEW))),
    row("copies from beyond its source", "does not have", lambda: evil([Step(COPY, 0, len(NEW), len(OLD) - 9)], b"")),
    row("its frame is cut", "too early", lambda: evil(WHOLE, zstd(NEW)[:-900])),
    row("longer than it was promised", "were signed", lambda: making.make(OLD, NEW)["patch"], promise=999),
    row("ten thousand steps", "more than", lambda: evil([Step(RAW, 0, 1, 0)] * 9000, zstd(b"x"))),
]
