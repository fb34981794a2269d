"""One number of many Events, down-sampled into buckets of time by the database.

- What is no number is passed over: missing, text, true or false, and numbers beyond `LARGEST`, which no device measures.
- A bucket without a value has none: a gap is never 0.
- Both sides are bounded: `BUCKETS` answered, `EVENTS` looked at; a question beyond them is refused, never cut short.
- A record is text of a device: nothing that it holds makes the query fail. PostgreSQL takes no NUL and no half of a
  surrogate pair, so these escapes are mended first, and a number becomes one only where it fits.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Float,
    Select,
    Subquery,
    Text,
    case,
    cast,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import JSON

from cloud.store import tables as t
from cloud.store.database import is_postgresql
from cloud.store.queries import Row
from edge_runtime.errors import UsageError

BUCKETS = 2000
EVENTS = 200_000
LARGEST = 1e100
SECOND_NS = 1_000_000_000
FIELD = re.compile(r"body(\.[A-Za-z0-9_-]{1,64}){1,8}")
BROKEN_ESCAPE = r"\\u(0000|d[89a-f][0-9a-f]{2})"
NUMBER = r"^-?[0-9]{1,60}(\.[0-9]{1,60})?([eE]\+?[0-9]{1,2}|[eE]-1?[0-9]{1,2})?$"
NOTHING = r"^-?[0-9.]{1,120}[eE]-[0-9]{3,}$"  # as good as 0


class Asked(NamedTuple):
    """`kind` None: of any kind. The end is not included."""

    device: str
    stream: str
    kind: str | None
    field: str
    start_ns: int
    end_ns: int
    step_ns: int

    @property
    def buckets(self) -> int:
        return -(-(self.end_ns - self.start_ns) // self.step_ns)

    def check(self) -> None:
        """UsageError says what to ask instead."""
        if not FIELD.fullmatch(self.field):
            raise UsageError(f"field is {self.field!r}; expected names joined by dots, such as body.latency_us")
        if self.end_ns <= self.start_ns or self.step_ns <= 0:
            raise UsageError("expected a period that is not empty and step_s above 0")
        if self.end_ns - self.start_ns >= 2**63:
            raise UsageError("the period is longer than 292 years; ask for a shorter one")
        if self.buckets > BUCKETS:
            least_s = (self.end_ns - self.start_ns) / BUCKETS / SECOND_NS
            raise UsageError(f"{self.buckets} buckets are more than {BUCKETS}; ask for step_s of {least_s:g} or more")


def series(engine: Engine, asked: Asked) -> list[Row]:
    """Every bucket of the period, in order; UsageError where that is too much."""
    asked.check()
    with engine.connect() as connection:
        looked = select(t.event.c.id).where(*_where(asked)).limit(EVENTS + 1).subquery()
        count = connection.execute(select(func.count()).select_from(looked)).scalar_one()
        if count > EVENTS:
            raise UsageError(f"more than {EVENTS} Events lie in this period; ask for a shorter one, or for one kind")
        found = {row["bucket"]: dict(row) for row in connection.execute(_buckets(connection, asked)).mappings()}
    return [_bucket(asked, n, found.get(n)) for n in range(asked.buckets)]


def _bucket(asked: Asked, number: int, found: Row | None) -> Row:
    names = ("min", "max", "mean", "first", "last")
    values: Row = {"count": found["count"], **{n: found[n] for n in names}} if found else dict.fromkeys(names)
    return {"from_ns": asked.start_ns + number * asked.step_ns, "count": 0} | values


def _where(asked: Asked) -> list[ColumnElement[bool]]:
    e = t.event.c
    where = [e.device == asked.device, e.stream == asked.stream, e.time_ns >= asked.start_ns, e.time_ns < asked.end_ns]
    return [*where, e.kind == asked.kind] if asked.kind is not None else where


def _looked(asked: Asked, found: ColumnElement[Any]) -> Subquery:
    """`found` of each Event, worked out once: the limit keeps the databases from doing it again for each use of it."""
    e = t.event.c
    place = (e.time_ns - asked.start_ns) // literal(asked.step_ns, e.time_ns.type)
    query = select(e.id, e.time_ns, place.label("bucket"), found.label("found"))
    return query.where(*_where(asked)).limit(EVENTS).subquery()


def _buckets(connection: Connection, asked: Asked) -> Select[Any]:
    value_of, number_of = (
        (_found_postgresql, _number_postgresql) if is_postgresql(connection) else (_found_sqlite, _same)
    )
    looked = _looked(asked, value_of(asked.field))
    number = number_of(looked.c.found)
    valued = select(looked.c.bucket, looked.c.time_ns, looked.c.id, number.label("value")).subquery()
    v = valued.c
    ranked = (
        select(
            v.bucket,
            v.value,
            func.row_number().over(partition_by=v.bucket, order_by=(v.time_ns, v.id)).label("from_front"),
            func.row_number().over(partition_by=v.bucket, order_by=(v.time_ns.desc(), v.id.desc())).label("from_back"),
        )
        .where(v.value.between(-LARGEST, LARGEST))
        .subquery()
    )
    r = ranked.c
    return select(
        r.bucket,
        func.count().label("count"),
        func.min(r.value).label("min"),
        func.max(r.value).label("max"),
        func.avg(r.value).label("mean"),
        func.max(case((r.from_front == 1, r.value))).label("first"),
        func.max(case((r.from_back == 1, r.value))).label("last"),
    ).group_by(r.bucket)


def _found_sqlite(field: str) -> ColumnElement[Any]:
    record, path = t.event.c.record, "$" + "".join(f'."{name}"' for name in field.split("."))
    is_number = func.json_type(record, path).in_(("integer", "real"))
    return case((is_number, cast(func.json_extract(record, path), Float)))


def _same(found: ColumnElement[Any]) -> ColumnElement[Any]:
    return found


def _found_postgresql(field: str) -> ColumnElement[Any]:
    """As JSON text: what is in quotes is no number."""
    record = t.event.c.record
    mended = func.regexp_replace(record, BROKEN_ESCAPE, r"\\u003f", "gi")
    as_json = cast(case((func.strpos(record, "\\u") > 0, mended), else_=record), JSON)
    return cast(func.json_extract_path(as_json, *field.split(".")), Text)


def _number_postgresql(found: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((found.op("~")(NUMBER), cast(found, Float(53))), (found.op("~")(NOTHING), literal(0.0)))
