"""What is older than the store is to keep goes, and that it was there stays told.

- Age is by the cloud's clock, from when an Event was stored: no clock of a device makes its Events older.
- `event` is walked in the order of arrival, a page in each transaction, so that ingest never waits for long.
- What goes leaves its range in `pruned`, month by month, with the hash of its last record: the next one of the stream is checked
  against it, and a delivery proof states what it can no longer show. `span`, `shed`, heads and counters stay: what was
  delivered stays delivered, and a repeat of it is still a repeat.
- Decisions go with their Events. Those since the start of an experiment that runs are kept for it.
- The newest Event of all is kept, so that SQLite gives out no id twice.
- On PostgreSQL a month that is empty and older than what is kept is dropped; elsewhere the room is used again.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, delete, func, select, text
from sqlalchemy.exc import OperationalError

from cloud.store import tables as t
from cloud.store.database import WRITES, is_postgresql, lock, merge
from cloud.store.partitions import month_of, months_before
from cloud.store.projection import STREAM
from cloud.store.spans import Key
from cloud.store.writing import COUNT
from edge_runtime.wire.envelope import STREAMS, record_hash

PAGE = 1000
DAY_NS = 86_400_000_000_000
LOCK_WAIT = "1s"
TALLY = "pruned:"  # before the name of a stream: the counter of its Events that went

KEEP_PRUNED = merge(
    t.pruned,
    ("device", "chain", "stream", "month"),
    last_hash="CASE WHEN excluded.last > pruned.last THEN excluded.last_hash ELSE pruned.last_hash END",
    **{
        name: f"CASE WHEN excluded.{name} {sign} pruned.{name} THEN excluded.{name} ELSE pruned.{name} END"
        for name, sign in (("first", "<"), ("last", ">"), ("since_ns", "<"), ("until_ns", ">"))
    },
)


@dataclass
class Walk:
    """Through the Events of the streams that are kept for equally long. `after`: up to this id all is done."""

    streams: frozenset[str]
    keep_ns: int
    after: int = 0


class Step(NamedTuple):
    """`pruned`: how many Events went. `more`: whether the next page may hold some, too."""

    pruned: int
    more: bool


def walks(keep_days: int, of_stream: Mapping[str, int]) -> list[Walk]:
    """What there is to do where streams are kept for so many days; 0: for ever."""
    days = {stream: of_stream.get(stream, keep_days) for stream in STREAMS}
    return [
        Walk(frozenset(s for s, kept in days.items() if kept == n), n * DAY_NS) for n in sorted({*days.values()} - {0})
    ]


def step(engine: Engine, walk: Walk, now_ns: int) -> Step:
    """The next page, in one transaction."""
    with engine.execution_options(**{WRITES: True}).begin() as connection:
        e = t.event.c
        query = select(e.id, e.device, e.chain, e.stream, e.seq, e.time_ns, e.received_ns)
        page = connection.execute(query.where(e.id > walk.after).order_by(e.id).limit(PAGE)).all()
        whole = len(page) == PAGE
        cut_ns = _cut_ns(connection, walk, now_ns)
        old = list(itertools.takewhile(lambda row: row.received_ns < cut_ns, page if whole else page[:-1]))
        going = [row for row in old if row.stream in walk.streams]
        if going:
            lock(connection, {row.device for row in going}, alone=False)
            _tell(connection, going)
            for table in (t.decision, t.event):
                within = table.c.id > walk.after, table.c.id <= old[-1].id
                streams = (table.c.stream.in_(walk.streams),) if table is t.event else ()
                if table is t.event or STREAM in walk.streams:
                    connection.execute(delete(table).where(*within, *streams))
    walk.after = old[-1].id if old else walk.after
    return Step(len(going), whole and len(old) == PAGE)


def _cut_ns(connection: Connection, walk: Walk, now_ns: int) -> int:
    if STREAM not in walk.streams:
        return now_ns - walk.keep_ns
    running = select(func.min(t.experiment.c.started_ns)).where(t.experiment.c.state == "running")
    return min(now_ns - walk.keep_ns, connection.execute(running).scalar() or now_ns)


def _tell(connection: Connection, going: Sequence[Any]) -> None:
    """Widen the ranges of the months by what goes, and count it."""
    found: dict[tuple[Key, int], list[Any]] = defaultdict(list)
    for row in going:
        found[Key(row.device, row.chain, row.stream), month_of(row.time_ns).number].append(row)
    last = {place: max(rows, key=lambda row: row.seq) for place, rows in found.items()}
    e = t.event.c
    lines = connection.execute(select(e.id, e.record).where(e.id.in_([row.id for row in last.values()])))
    hashes = {number: record_hash(record.encode()) for number, record in lines}
    told = [
        key._asdict()
        | {
            "month": month, "first": min(row.seq for row in rows), "last": last[key, month].seq,
            "last_hash": hashes[last[key, month].id],
            "since_ns": min(row.time_ns for row in rows), "until_ns": max(row.time_ns for row in rows),
        }
        for (key, month), rows in found.items()
    ]  # fmt: skip
    connection.execute(KEEP_PRUNED, told)
    gone = Counter(row.stream for row in going)
    connection.execute(COUNT, [{"device": "", "name": f"{TALLY}{s}", "value": n} for s, n in gone.items()])


def drop_empty_months(engine: Engine, before_ns: int) -> list[str]:
    """The tables of months that were over before `before_ns` and hold nothing; who reads or writes just now is not made to
    wait for it."""
    with engine.begin() as connection:
        if not is_postgresql(connection):
            return []
        names = months_before(connection, before_ns)
    return [name for name in names if _drop_if_empty(engine, name)]


def _drop_if_empty(engine: Engine, name: str) -> bool:
    try:
        with engine.begin() as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'"))
            lock(connection, (), alone=True)
            if connection.execute(text(f"SELECT 1 FROM {name} LIMIT 1")).first():
                return False
            connection.execute(text(f"DROP TABLE {name}"))
            return True
    except OperationalError:
        return False  # in use; the next look tries again
