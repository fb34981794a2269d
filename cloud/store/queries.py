"""The read side. Lists come in pages of at most LIMIT rows, oldest first; `after` is the `id` of the last row that the
caller has. What the live page asks each second reads counters and short indexed ranges, never whole tables."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Select, Table, and_, func, select

from cloud.messages import json_text
from cloud.packml import DIVERTED
from cloud.store import tables as t

LIMIT = 1000
Row = dict[str, Any]
SECOND_NS = 1_000_000_000
RATE_WINDOW_NS = 30 * SECOND_NS
#: the shortest span that a rate is taken over: an outbox that empties at once is no fast line
RATE_SPAN_S = 5.0


def rows(engine: Engine, table: Table, equal: Mapping[str, Any], after: int, limit: int) -> list[Row]:
    """A page of `table`: rows with id > `after` whose columns equal what is not None in `equal`."""
    where = [table.c[name] == value for name, value in equal.items() if value is not None]
    query = select(table).where(table.c.id > after, *where).order_by(table.c.id).limit(min(limit, LIMIT))
    return _fetch(engine, query)


def events(engine: Engine, equal: Mapping[str, Any], after: int, limit: int) -> list[Row]:
    found = rows(engine, t.event, equal, after, limit)
    return [row | {"body": _body(row["record"])} for row in found]


def _body(record: str) -> Any:
    """The body of a record line, as JSON that every reader takes."""
    return json.loads(json_text(json.loads(record)["body"]))


def decisions(engine: Engine, equal: Mapping[str, Any], after: int, limit: int) -> list[Row]:
    return rows(engine, t.decision, equal, after, limit)


def diverted_after(engine: Engine, after: int, limit: int) -> list[Row]:
    """Diverted parts that arrived after the row `after`: the newest `limit`, oldest first."""
    d = t.decision
    query = select(d).where(d.c.id > after, d.c.result.in_(DIVERTED)).order_by(d.c.id.desc()).limit(limit)
    return _fetch(engine, query)[::-1]


def last_decision_id(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(func.max(t.decision.c.id))).scalar() or 0)


def rejections(engine: Engine, after: int, limit: int) -> list[Row]:
    return rows(engine, t.rejection, {}, after, limit)


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
