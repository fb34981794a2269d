"""What differs between the two databases, in one place; everything else is the same SQL.

SQLite       one writer; ids follow the highest
PostgreSQL   many writers: advisory locks order the transactions of one device; ids come from a sequence; Events are copied
             into the month that they belong to

A reader pages by `id`. Writers that are under way hold lower ids than some that are committed already, so a page ends
before the first of them (`settled`): nothing that is committed later is ever behind a reader.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, TextClause, func, select, text
from sqlalchemy.util import await_only

from cloud.store import tables as t

#: the values of one row of `event`, in the order of its columns
EventRow = tuple[Any, ...]

DEVICES = 0x67_75_64_01  # the locks of devices, and of everything
SINGLES, REJECTIONS = 0x67_75_64_02, 1  # locks of single things
WRITES = "gudgeon_writes"  # execution option of an engine whose transactions write from the start (SQLite)
INTEGRITY = "23"  # SQLSTATE begins so: what a table holds, or has no partition for
INSERT_ROWS = 200
PAGES_TAG = 0x6775 << 48  # the locks that tell from where on ids are being given out


#: a statement made of text, once: to make it anew for each commit costs time and leaves cycles to collect
statement = cache(text)


def is_postgresql(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


class Wanted(NamedTuple):
    """A table made of one JSON parameter, to join with: any number of rows, and always the same statement."""

    table: str

    def values(self, rows: Iterable[Sequence[Any]]) -> dict[str, str]:
        return {"wanted": json.dumps([list(row) for row in rows])}


def wanted(connection: Connection, *texts: str, **numbers: type[int]) -> Wanted:
    """With these columns, in this order."""
    if is_postgresql(connection):
        columns = [f"value->>{i} AS {name}" for i, name in enumerate(texts)]
        columns += [f"CAST(value->>{i} AS bigint) AS {name}" for i, name in enumerate(numbers, len(texts))]
        return Wanted(f"(SELECT {', '.join(columns)} FROM json_array_elements(CAST(:wanted AS json)))")
    columns = [f"json_extract(value, '$[{i}]') AS {name}" for i, name in enumerate([*texts, *numbers])]
    return Wanted(f"(SELECT {', '.join(columns)} FROM json_each(:wanted))")


def merge(table: Table, keys: Collection[str], where: str = "", **changed: str) -> TextClause:
    """INSERT of whole rows; where the keys are there already, `changed` (column → SQL) is set."""
    names = [column.name for column in table.columns]
    marks = ", ".join(f":{name}" for name in names)
    sets = ", ".join(f"{name} = {value}" for name, value in changed.items())
    condition = f" WHERE {where}" if where else ""
    return text(
        f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks}) "
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {sets}{condition}"
    )


def newest(*names: str) -> dict[str, str]:
    """For `merge`: these columns take the new values."""
    return {name: f"excluded.{name}" for name in names}


def here(table: Table, where: tuple[str, str, str]) -> tuple[ColumnElement[bool], ...]:
    """The condition for one stream: (device, chain, stream)."""
    return tuple(table.c[name] == value for name, value in zip(("device", "chain", "stream"), where, strict=True))


def lock(connection: Connection, devices: Collection[str], alone: bool) -> None:
    """Until the end of the transaction no other worker stores anything of these devices, or, where `alone`, of any."""
    if not is_postgresql(connection):
        return
    everything = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
    connection.execute(text(f"SELECT {everything}(:space)"), {"space": DEVICES})
    if devices and not alone:
        one_by_one = """SELECT pg_advisory_xact_lock(:space, number) FROM (SELECT DISTINCT hashtext(name) AS number
            FROM unnest(CAST(:names AS text[])) AS name ORDER BY number) AS numbers"""
        connection.execute(text(one_by_one), {"space": DEVICES, "names": sorted(devices)})


def one_by_one(connection: Connection, number: int) -> None:
    """Until the end of the transaction no other has this lock."""
    if is_postgresql(connection):
        connection.execute(text("SELECT pg_advisory_xact_lock(:space, :number)"), {"space": SINGLES, "number": number})


def settled(connection: Connection) -> int | None:
    """The highest id below which every id is committed or will never be; None: all of them."""
    if not is_postgresql(connection):
        return None
    given = int(connection.execute(text("SELECT last_value FROM event_id")).scalar_one())
    under_way = text(
        """SELECT min(((classid::bigint << 32) | objid::bigint) - :tag) FROM pg_locks
        WHERE locktype = 'advisory' AND objsubid = 1 AND classid::bigint >> 16 = :tag >> 48
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
    )
    first = connection.execute(under_way, {"tag": PAGES_TAG}).scalar()
    return given if first is None else min(given, int(first))


class Added:
    """The rows that one transaction adds to `event` and `decision`: numbered at once, written together by `flush`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.events: list[EventRow] = []
        self.decisions: list[Sequence[Any]] = []

    def ids(self, count: int) -> Sequence[int]:
        """`count` rising ids, higher than all that a reader may have seen; to be asked for once."""
        if is_postgresql(self._connection):
            return self._from_sequence(count)
        last = int(self._connection.execute(select(func.max(t.event.c.id))).scalar() or 0)
        return range(last + 1, last + count + 1)

    def _from_sequence(self, count: int) -> Sequence[int]:
        tell = text("SELECT pg_advisory_xact_lock_shared(:tag + last_value) FROM event_id")
        self._connection.execute(tell, {"tag": PAGES_TAG})
        query = text("SELECT array_agg(nextval('event_id')) FROM generate_series(1, :count)")
        return list(self._connection.execute(query, {"count": count}).scalar_one() or ())

    def flush(self) -> None:
        if not is_postgresql(self._connection):
            self._insert(t.event, self.events)
            self._insert(t.decision, self.decisions)
            return
        try:
            with self._connection.begin_nested():
                self._copy("event", t.event, self.events)
        except Exception as error:  # asyncpg's
            if not str(getattr(error, "sqlstate", "")).startswith(INTEGRITY):
                raise
            there = self._copy_missing()
            self.decisions = [row for row in self.decisions if row[0] in there]
        self._copy("decision", t.decision, self.decisions)

    def _insert(self, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """Many rows a statement: SQLite works without the interpreter lock then, while other threads read messages."""
        one = f"({', '.join('?' * len(table.columns))})"
        whole = len(rows) - len(rows) % INSERT_ROWS
        for first in range(0, whole, INSERT_ROWS):
            values = tuple(chain.from_iterable(rows[first : first + INSERT_ROWS]))
            self._connection.exec_driver_sql(
                f"INSERT INTO {table.name} VALUES {', '.join([one] * INSERT_ROWS)}", values
            )
        if rows[whole:]:
            self._connection.exec_driver_sql(f"INSERT INTO {table.name} VALUES {one}", rows[whole:])

    def _copy_missing(self) -> set[int]:
        """Where COPY does not take all Events: into a staging table, and from there what is not there yet; the ids of that."""
        make = "CREATE TEMPORARY TABLE IF NOT EXISTS event_in (LIKE event) ON COMMIT DELETE ROWS"
        self._connection.execute(text(make))
        self._copy("event_in", t.event, self.events)
        names = ", ".join(column.name for column in t.event.columns)
        move = f"INSERT INTO event ({names}) SELECT {names} FROM event_in ON CONFLICT DO NOTHING RETURNING id"
        return set(self._connection.execute(text(move)).scalars())

    def _copy(self, name: str, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        raw = self._connection.connection.driver_connection
        assert raw is not None
        if rows:
            await_only(raw.copy_records_to_table(name, records=rows, columns=[c.name for c in table.columns]))
