"""What waits in the outbox, as `link` and the status see it. Each call is one consistent view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edge_runtime.outbox.database import Database
from edge_runtime.outbox.heads import Heads
from edge_runtime.outbox.packing import unpack
from edge_runtime.wire.envelope import STREAMS, Event, Record, read_record

URGENT_FIRST = sorted(STREAMS, key=lambda s: STREAMS[s][0])
NO_END = 2**62


class Backlog(NamedTuple):
    """What waits of one stream. `oldest_age_s` is running time of the device."""

    records: int
    size_bytes: int
    oldest_age_s: int


def pending(
    database: Database,
    limit_events: int,
    limit_bytes: int,
    after: Mapping[str, int],
    streams: Sequence[str],
    upto: Mapping[str, int],
) -> list[Record]:
    out: list[Record] = []
    room = limit_bytes
    with database.reading() as db:
        for stream in streams:
            rows = db.execute(
                f"SELECT seq, data FROM event_{stream} WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
                (after.get(stream, 0), upto.get(stream, NO_END), limit_events - len(out)),
            )
            for seq, data in rows:
                record = Record(stream, seq, unpack(data))
                room -= len(record.line)
                if out and room < 0:
                    return out
                out.append(record)
            if len(out) >= limit_events:
                break
    return out


def floor(database: Database, heads: Heads) -> dict[str, int]:
    with database.reading():
        last = {stream: heads.load(stream).seq for stream in STREAMS}
        return {s: lowest(database, s) or head + 1 for s, head in last.items() if head}


def head(database: Database, heads: Heads, stream: str) -> int:
    with database.reading():
        return heads.load(stream).seq


def lowest(database: Database, stream: str) -> int:
    """The lowest number held, 0 where there is none; within a transaction."""
    return int(database.db.execute(f"SELECT coalesce(min(seq), 0) FROM event_{stream}").fetchone()[0])


def last(database: Database, stream: str) -> Event | None:
    with database.reading() as db:
        row = db.execute(f"SELECT data FROM event_{stream} ORDER BY seq DESC LIMIT 1").fetchone()
        row = row or db.execute("SELECT last FROM stream WHERE name = ?", (stream,)).fetchone()
    return read_record(unpack(row[0])) if row[0] else None


def backlog(database: Database, heads: Heads, tick_s: int) -> dict[str, Backlog]:
    """No table is scanned."""
    found = {}
    with database.reading() as db:
        for stream, gone, gone_bytes in db.execute("SELECT name, gone, gone_bytes FROM stream").fetchall():
            if stream not in STREAMS:
                continue  # of a newer runtime, which will send it
            oldest = db.execute(f"SELECT tick_s FROM event_{stream} ORDER BY seq LIMIT 1").fetchone()
            if oldest:
                newest = heads.load(stream)
                found[stream] = Backlog(newest.seq - gone, newest.cum - gone_bytes, max(0, tick_s - oldest[0]))
    return found
