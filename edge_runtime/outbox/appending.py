"""From bodies to rows: the record line with its sequence number and the hash of the one before it, and the insertion.

Rows go in by statements of many rows: each execution of a statement costs more than a row, and gives the interpreter
away in between.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from typing import Any, overload

from edge_runtime.outbox.database import Database
from edge_runtime.outbox.group import Request
from edge_runtime.outbox.heads import Heads, Newest
from edge_runtime.outbox.packing import PACK_FROM_BYTES, pack
from edge_runtime.wire.envelope import STREAMS, Event

CHUNKS = (64, 32, 16, 8, 4, 2, 1)  # rows of one statement
COLUMNS = 4
_stream = itemgetter(0)


Item = tuple[str, str, Mapping[str, Any]]  # stream, kind, body


class Append(Request):
    """What one call wants stored, `texts`: the bodies as JSON; `events` when it is."""

    __slots__ = ("durable", "events", "items", "mono_ns", "texts", "uncertainty_ns", "wall_ns")

    def __init__(
        self,
        items: Sequence[Item],
        texts: Sequence[str],
        durable: bool,
        mono_ns: int,
        wall_ns: int,
        uncertainty_ns: int | None,
    ) -> None:
        super().__init__(sum(map(len, texts)))
        self.items, self.texts, self.durable = items, texts, durable
        self.mono_ns, self.wall_ns, self.uncertainty_ns = mono_ns, wall_ns, uncertainty_ns
        self.events: Sequence[Event] = ()


class Stored(Sequence[Event]):
    """The events of one append, each made when it is looked at: most callers do not look."""

    def __init__(self, device: str, chain: str, boot_id: str, append: Append, places: list[tuple[int, str]]) -> None:
        self._names, self._append, self._places = (device, chain, boot_id), append, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> Event: ...
    @overload
    def __getitem__(self, at: slice) -> list[Event]: ...
    def __getitem__(self, at: int | slice) -> Event | list[Event]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        (device, chain, boot_id), a = self._names, self._append
        (stream, kind, body), (seq, prev) = a.items[at], self._places[at]
        return Event(device, chain, stream, seq, boot_id, kind, a.mono_ns, a.wall_ns, a.uncertainty_ns, prev, body)


class Rows:
    """The rows of one transaction. To be used under the database's lock, within it."""

    def __init__(self, database: Database, heads: Heads, device: str, boot_id: str) -> None:
        self._database, self._heads = database, heads
        self._device, self._boot_id = device, boot_id
        self._texts = {name: json.dumps(name) for name in (device, boot_id)}  # and the kinds; few

    def store(self, appends: Sequence[Append], tick_s: int) -> None:
        """Numbers and inserts all of them; each gets its `events`."""
        values: dict[str, list[Any]] = {}
        for append in appends:
            places = self._add(values, append, tick_s)
            append.events = Stored(self._device, self._database.chain, self._boot_id, append, places)
        for stream, found in values.items():
            self._insert(stream, found)

    def _add(self, values: dict[str, list[Any]], append: Append, tick_s: int) -> list[tuple[int, str]]:
        """The rows of one append; of each its number and the hash of the record before it. The lines are the same bytes as
        `wire.envelope.record_line` makes."""
        uncertainty = "null" if append.uncertainty_ns is None else append.uncertainty_ns
        known = self._texts
        begin = f'{{"device":{known[self._device]},"chain":"{self._database.chain}","stream":"'
        boot = f',"boot_id":{known[self._boot_id]},"kind":'
        times = f',"mono_ns":{append.mono_ns},"wall_ns":{append.wall_ns},"wall_uncertainty_ns":{uncertainty},"prev":"'
        places = []
        texts = iter(append.texts)
        for stream, run in groupby(append.items, _stream):
            seq, prev, cum = self._heads.newest(stream)
            rows = values.setdefault(stream, [])
            for (_, kind, _), text in zip(run, texts, strict=False):  # the run ends first
                seq += 1
                name = known.get(kind) or self._text(kind)
                line = f'{begin}{stream}","seq":{seq}{boot}{name}{times}{prev}","body":{text}}}'.encode()
                size = len(line)
                if size < PACK_FROM_BYTES:
                    data = line
                else:
                    data = pack(line)
                    size = len(data)
                cum += size
                rows += (seq, tick_s, cum, data)
                places.append((seq, prev))
                prev = sha256(line).hexdigest()  # as `record_hash`
            self._heads.advance(stream, Newest(seq, prev, cum))
        return places

    def _text(self, name: str) -> str:
        return self._texts.setdefault(name, json.dumps(name))

    def _insert(self, stream: str, values: list[Any]) -> None:
        at, left = 0, len(values) // COLUMNS
        for rows in CHUNKS:
            while left >= rows:
                part = values if len(values) == rows * COLUMNS else values[at : at + rows * COLUMNS]
                self._database.db.execute(_INSERT[stream, rows], part)
                at, left = at + rows * COLUMNS, left - rows


_INSERT = {
    (stream, rows): f"INSERT INTO event_{stream} (seq, tick_s, cum, data) VALUES " + ", ".join(["(?, ?, ?, ?)"] * rows)
    for stream in STREAMS
    for rows in CHUNKS
}
