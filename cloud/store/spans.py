"""What of each stream has been delivered, as intervals, and how far that reaches: `span` and `stream_head`.

All streams that a commit touches are read with a few statements and written with a few, however many there are. Of the
intervals beyond a head only the first `CHUNK` are looked at, so that a stream full of holes costs no more than others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, select

from cloud.store import tables as t
from cloud.store.database import here, merge, newest, statement, wanted
from cloud.store.intervals import Given, Span, merged, reach, runs
from edge_runtime.wire.batch import ISLANDS_LIMIT

CHUNK = 500


class Key(NamedTuple):
    """One stream of one chain."""

    device: str
    chain: str
    stream: str


KEEP_SPAN = merge(t.span, (*Key._fields, "first"), **newest("last"))
KEEP_HEAD = merge(t.stream_head, Key._fields, **newest("head", "top", "duplicates"))


@dataclass
class Progress:
    """One stream. `spans`: those near what is new and beyond the head, in order; `whole` False: there are more beyond."""

    head: int = 0
    top: int = 0
    duplicates: int = 0
    spans: list[Span] = field(default_factory=list)
    given: list[Given] = field(default_factory=list)
    whole: bool = True

    def fresh(self, seqs: Iterable[int]) -> list[int]:
        """Those that were not delivered yet, rising."""
        rising = sorted(seqs)
        near = [s for s in self.spans if rising and s.first <= rising[-1] and s.last >= rising[0]]
        return [n for n in rising if not any(s.first <= n <= s.last for s in near)] if near else rising

    @property
    def islands(self) -> list[Span]:
        """The first intervals beyond the head."""
        return [s for s in self.spans if s.first > self.head][:ISLANDS_LIMIT]


def load(connection: Connection, seqs: Mapping[Key, Collection[int]]) -> dict[Key, Progress]:
    """The streams as they are before `seqs` are added."""
    found = {key: Progress() for key in seqs}
    w = wanted(connection, "device", "chain", "stream")
    query = f"""SELECT h.device, h.chain, h.stream, h.head, h.top, h.duplicates FROM {w.table} w JOIN stream_head h
        ON h.device = w.device AND h.chain = w.chain AND h.stream = w.stream"""
    for device, chain, stream, *numbers in connection.execute(statement(query), w.values(seqs)):
        p = found[Key(device, chain, stream)]
        p.head, p.top, p.duplicates = numbers
    _load_given(connection, found)
    _load_spans(connection, found, seqs)
    return found


def _load_given(connection: Connection, found: Mapping[Key, Progress]) -> None:
    w = wanted(connection, "device", "chain", "stream", head=int)
    query = f"""SELECT s.device, s.chain, s.stream, s.first, s.last, s.every FROM {w.table} w JOIN shed s
        ON s.device = w.device AND s.chain = w.chain AND s.stream = w.stream AND s.last > w.head"""
    for device, chain, stream, *numbers in connection.execute(
        statement(query), w.values((*key, p.head) for key, p in found.items())
    ):
        found[Key(device, chain, stream)].given.append(Given(*numbers))


def _load_spans(connection: Connection, found: Mapping[Key, Progress], seqs: Mapping[Key, Collection[int]]) -> None:
    """From the interval that the head, or the lowest new number, touches; where there are too many, those near the new
    numbers for sure."""
    w = wanted(connection, "device", "chain", "stream", low=int)
    same = "device = w.device AND {0}.chain = w.chain AND {0}.stream = w.stream"
    query = f"""SELECT device, chain, stream, first, last FROM (
        SELECT s.*, row_number() OVER (PARTITION BY s.device, s.chain, s.stream ORDER BY s.first) AS n
        FROM {w.table} w JOIN span s ON s.{same.format("s")} AND s.first >=
            coalesce((SELECT max(p.first) FROM span p WHERE p.{same.format("p")} AND p.first <= w.low), w.low)
        ) AS near WHERE n <= {CHUNK} ORDER BY first"""
    lows = ((*key, min([p.head, *(n - 1 for n in seqs[key])])) for key, p in found.items())
    for device, chain, stream, *numbers in connection.execute(statement(query), w.values(lows)):
        found[Key(device, chain, stream)].spans.append(Span(*numbers))
    for key, p in found.items():
        if len(p.spans) == CHUNK:
            p.whole = False
            if seqs[key] and max(seqs[key]) >= p.spans[-1].first:
                p.spans = _near(connection, key, min(seqs[key]) - 1, max(seqs[key]) + 1)


def _near(connection: Connection, key: Key, low: int, high: int) -> list[Span]:
    s = t.span.c
    query = select(s.first, s.last).where(*here(t.span, key), s.last >= low, s.first <= high).order_by(s.first)
    return [Span(*row) for row in connection.execute(query)]


def save(connection: Connection, after: Mapping[Key, tuple[Progress, Sequence[int]]]) -> None:
    """Add the new numbers of each stream and move its head over everything that is delivered, given up, or lower than the
    head was set to meanwhile. The Progress of each is then as it is in the store."""
    rows: list[dict[str, object]] = []
    gone: list[dict[str, object]] = []
    for key, (p, fresh) in after.items():
        before = set(p.spans)
        p.spans = merged([*p.spans, *runs(fresh)])
        name = key._asdict()
        rows += [name | s._asdict() for s in p.spans if s not in before]
        firsts = {s.first for s in p.spans}
        gone += [{f"_{k}": v for k, v in (name | {"first": s.first}).items()} for s in before if s.first not in firsts]
        p.top = max([p.top, p.head, *fresh[-1:]])
    if gone:
        s = t.span.c
        binds = [s[name] == bindparam(f"_{name}") for name in ("device", "chain", "stream", "first")]
        connection.execute(delete(t.span).where(*binds), gone)
    if rows:
        connection.execute(KEEP_SPAN, rows)
    for key, (p, _) in after.items():
        _advance(connection, key, p)
    _save_heads(connection, [(key, p) for key, (p, _) in after.items()])


def _advance(connection: Connection, key: Key, p: Progress) -> None:
    p.head = reach(p.head, p.spans, p.given)
    while not p.whole:
        p.spans = _beyond(connection, key, p.head)
        moved = reach(p.head, p.spans, p.given)
        p.whole = moved == p.head or len(p.spans) < CHUNK
        p.head = moved
    p.top = max(p.top, p.head)


def _beyond(connection: Connection, key: Key, head: int) -> list[Span]:
    s = t.span.c
    query = select(s.first, s.last).where(*here(t.span, key), s.last > head).order_by(s.first).limit(CHUNK)
    return [Span(*row) for row in connection.execute(query)]


def _save_heads(connection: Connection, found: Iterable[tuple[Key, Progress]]) -> None:
    rows = [key._asdict() | {"head": p.head, "top": p.top, "duplicates": p.duplicates} for key, p in found]
    if rows:
        connection.execute(KEEP_HEAD, rows)
