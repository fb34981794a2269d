"""The read side. Lists come in pages of at most LIMIT rows, oldest first; `after` is the `id` of the last row that the
caller has. What the live page asks each second reads counters and short indexed ranges, never whole tables."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, Select, Table, and_, func, literal_column, select

from cloud.messages import json_text
from cloud.packml import DIVERTED
from cloud.period import Period
from cloud.store import tables as t
from cloud.store.database import is_postgresql, settled
from cloud.store.projection import STREAM

LIMIT = 1000
Row = dict[str, Any]
COMMON = 0.01
SECOND_NS = 1_000_000_000
RATE_WINDOW_NS = 30 * SECOND_NS
#: the shortest span that a rate is taken over: an outbox that empties at once is no fast line
RATE_SPAN_S = 5.0


class Page(NamedTuple):
    """`after`: the `id` of the last row that the caller has. `period`: of `time_ns`, the end not included."""

    after: int = 0
    limit: int = LIMIT
    period: Period = Period()


def within(period: Period) -> list[ColumnElement[bool]]:
    start_ns, end_ns = period
    time_ns = t.event.c.time_ns
    bounds = [time_ns >= start_ns if start_ns is not None else None, time_ns < end_ns if end_ns is not None else None]
    return [bound for bound in bounds if bound is not None]


def paged(connection: Connection, ids: ColumnElement[int], page: Page) -> list[ColumnElement[bool]]:
    """The condition of a page: what is committed later never has an id within it."""
    upto = settled(connection)
    return [ids > page.after, *([ids <= upto] if upto is not None else []), *within(page.period)]


def _equal(connection: Connection, table: Table, equal: Mapping[str, Any], page: Page) -> list[ColumnElement[bool]]:
    """Columns equal what is not None in `equal`.

    SQLite, which keeps no statistics, would look up a device in an index and sort all of its rows for every page; where
    the device has many, walking along the ids finds a page sooner."""
    given = {name: value for name, value in equal.items() if value is not None}
    where = [table.c[name] == value for name, value in given.items() if name != "device"]
    if "device" in given:
        walk = not is_postgresql(connection) and page.period == Period() and _is_common(connection, table, given)
        column: ColumnElement[str] = literal_column(f"+{table.name}.device") if walk else table.c.device
        where.append(column == given["device"])
    return where


def _is_common(connection: Connection, table: Table, given: Mapping[str, Any]) -> bool:
    streams = {"stream": STREAM} if table is t.decision else {}
    of_device = {name: given[name] for name in ("device", "stream") if name in given}
    return _kept(connection, streams | of_device) > COMMON * max(1, _kept(connection, streams))


def _kept(connection: Connection, equal: Mapping[str, Any]) -> int:
    """About how many Events are stored: what was delivered, less what was pruned since."""
    total = 0
    for table, sign in ((t.span, 1), (t.pruned, -1)):
        length = func.coalesce(func.sum(table.c.last - table.c.first + 1), 0)
        where = [table.c[name] == value for name, value in equal.items()]
        total += sign * int(connection.execute(select(length).where(*where)).scalar_one())
    return total


def events(engine: Engine, equal: Mapping[str, Any], page: Page = Page()) -> list[Row]:  # noqa: B008
    e = t.event
    with engine.connect() as connection:
        query = select(e).where(*paged(connection, e.c.id, page), *_equal(connection, e, equal, page))
        found = _all(connection, query.order_by(e.c.id).limit(min(page.limit, LIMIT)))
    return [row | {"body": body_of(row["record"])} for row in found]


def body_of(record: str) -> Any:
    """The body of a record line, as JSON that every reader takes."""
    return json.loads(json_text(json.loads(record)["body"]))


def decisions(engine: Engine, equal: Mapping[str, Any], page: Page = Page()) -> list[Row]:  # noqa: B008
    """With the time of their Events."""
    d, e = t.decision, t.event
    same = and_(e.c.id == d.c.id, e.c.wall_ns == d.c.wall_ns)  # wall_ns names the partition
    with engine.connect() as connection:
        query = select(d, e.c.time_ns, e.c.time_source).join(e, same)
        query = query.where(*paged(connection, d.c.id, page), *_equal(connection, d, equal, page))
        return _all(connection, query.order_by(d.c.id).limit(min(page.limit, LIMIT)))


def diverted_after(engine: Engine, after: int, limit: int) -> tuple[list[Row], int]:
    """Diverted parts that arrived after the row `after`: the newest `limit`, oldest first; and the row to go on from."""
    d = t.decision
    with engine.connect() as connection:
        upto = settled(connection)
        if upto is None:
            upto = int(connection.execute(select(func.max(d.c.id))).scalar() or 0)
        query = select(d).where(d.c.id > after, d.c.id <= upto, d.c.result.in_(DIVERTED))
        found = _all(connection, query.order_by(d.c.id.desc()).limit(limit))
    return found[::-1], max(after, upto)


def rejections(engine: Engine, after: int, limit: int) -> list[Row]:
    r = t.rejection
    return _fetch(engine, select(r).where(r.c.id > after).order_by(r.c.id).limit(min(limit, LIMIT)))


def has_device(engine: Engine, device: str) -> bool:
    with engine.connect() as connection:
        return connection.execute(select(t.device.c.device).where(t.device.c.device == device)).first() is not None


def devices(engine: Engine) -> list[Row]:
    """Every device with the newest Event of each kind that tells its present state, under ``latest``, and its heads."""
    with engine.connect() as connection:
        found = _all(connection, select(t.device).order_by(t.device.c.device))
        latest: dict[str, Row] = defaultdict(dict)
        for row in _all(connection, select(t.latest)):
            body = json.loads(row["body"])
            latest[row["device"]][f"{row['stream']}/{row['kind']}"] = {"wall_ns": row["wall_ns"], "body": body}
        heads: dict[str, dict[str, int]] = defaultdict(dict)
        for row in _all(
            connection, select(t.stream_head).outerjoin(t.chain, _same_chain()).order_by(t.chain.c.first_seen_ns)
        ):
            heads[row["device"]][row["stream"]] = row["head"]  # of the newest chain
    return [row | {"latest": latest[row["device"]], "committed": heads[row["device"]]} for row in found]


def _same_chain() -> ColumnElement[bool]:
    return and_(t.chain.c.device == t.stream_head.c.device, t.chain.c.chain == t.stream_head.c.chain)


def tallies(engine: Engine) -> dict[str, int]:
    """The counters, summed over all devices."""
    query = select(t.tally.c.name, func.sum(t.tally.c.value)).group_by(t.tally.c.name)
    with engine.connect() as connection:
        return {name: int(value) for name, value in connection.execute(query)}


def parts_per_min(engine: Engine, now_ns: int) -> float:
    """The rate over the last half minute, or since the first Decision in it."""
    received = t.decision.c.received_ns
    query = select(func.count(), func.min(received)).where(received > now_ns - RATE_WINDOW_NS)
    with engine.connect() as connection:
        count, first_ns = connection.execute(query).one()
    if not count:
        return 0.0
    return float(round(60.0 * count / max(RATE_SPAN_S, (now_ns - first_ns) / SECOND_NS), 1))


def _fetch(engine: Engine, query: Select[Any]) -> list[Row]:
    with engine.connect() as connection:
        return _all(connection, query)


def _all(connection: Connection, query: Select[Any]) -> list[Row]:
    found: Sequence[Any] = connection.execute(query).mappings().all()
    return [dict(row) for row in found]
