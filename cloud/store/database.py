"""What differs between the two databases, in one place; everything else is the same SQL.

SQLite       one writer; ids follow the highest
PostgreSQL   many writers: advisory locks order the transactions of one device; ids come from a sequence; Events are copied
             into a staging table and from there into the month that they belong to

A reader pages by `id`. Writers that are under way hold lower ids than some that are committed already, so a page ends
before the first of them (`settled`): nothing that is committed later is ever behind a reader.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, TextClause, func, select, text
from sqlalchemy.util import await_only

from cloud.store import tables as t

#: the values of one row of `event`, in the order of its columns
EventRow = tuple[Any, ...]

DEVICES = 0x67_75_64_01  # the locks of devices, and of everything
SINGLES, REJECTIONS = 0x67_75_64_02, 1  # locks of single things
WRITES = "gudgeon_writes"  # execution option of an engine whose transactions write from the start (SQLite)
PAGES_TAG = 0x6775 << 48  # the locks that tell from where on ids are being given out


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
    """INSERT of whole rows; where the keys are there already, `changed` (column → SQL) is set. A text that is made once: to
    make it anew for each commit costs time and leaves cycles to collect."""
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
        self._last: int | None = None
        self.events: list[EventRow] = []
        self.decisions: list[Sequence[Any]] = []
        self.decision_ids: dict[tuple[str, str], Sequence[int]] = {}

    def ids(self, count: int) -> Sequence[int]:
        """`count` rising ids, higher than all that a reader may have seen."""
        if is_postgresql(self._connection):
            return self._from_sequence(count)
        if self._last is None:
            self._last = int(self._connection.execute(select(func.max(t.event.c.id))).scalar() or 0)
        self._last += count
        return range(self._last - count + 1, self._last + 1)

    def _from_sequence(self, count: int) -> Sequence[int]:
        tell = text("SELECT pg_advisory_xact_lock_shared(:tag + last_value) FROM event_id")
        self._connection.execute(tell, {"tag": PAGES_TAG})
        query = text("SELECT nextval('event_id') FROM generate_series(1, :count)")
        return [int(i) for i in self._connection.execute(query, {"count": count}).scalars()]

    def flush(self) -> None:
        write = self._copy if is_postgresql(self._connection) else self._insert
        for table, rows in ((t.event, self.events), (t.decision, self.decisions)):
            if rows:
                write(table, rows)

    def _insert(self, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        marks = ", ".join("?" * len(table.columns))
        self._connection.exec_driver_sql(f"INSERT INTO {table.name} VALUES ({marks})", rows)

    def _copy(self, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """Into a staging table, and from there what is not there yet."""
        staging, names = f"{table.name}_in", ", ".join(column.name for column in table.columns)
        make = f"CREATE TEMPORARY TABLE IF NOT EXISTS {staging} (LIKE {table.name}) ON COMMIT DELETE ROWS"
        self._connection.execute(text(make))
        raw = self._connection.connection.driver_connection
        assert raw is not None
        await_only(raw.copy_records_to_table(staging, records=rows, columns=[c.name for c in table.columns]))
        move = f"INSERT INTO {table.name} ({names}) SELECT {names} FROM {staging} ON CONFLICT DO NOTHING"
        self._connection.execute(text(move))
