"""Assets and alarms: projections of the newest Events that tell of them, kept in the transaction of the Events.

    telemetry  asset.<name>   part `state`           score, threshold, remaining life, operating hours
    health     drift          part `drift.<model>`   what has drifted, or that nothing has any more
    alarm      (every kind)   one row an alarm       its state after the newest change

An Event that does not say which asset or alarm it is about is stored as every Event is, and projects nothing. Within a
chain the higher number is the newer; a new chain begins anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Table, TextClause, select

from cloud.messages import INT64_MAX, json_text, plain_text
from cloud.store import tables as t
from cloud.store.database import merge, newest
from cloud.store.queries import LIMIT, Row
from edge_runtime.wire.envelope import Event

ASSET_KIND, DRIFT_KIND, ALARM_STREAM = "asset.", "drift", "alarm"
#: what `keep` looks at
STREAMS = {"telemetry", "health", ALARM_STREAM}
NAME_CHARS = 128
SEVERITIES: Mapping[str, int] = {"": 0, "low": 1, "medium": 2, "high": 3, "critical": 4}
NAMES = {number: name for name, number in SEVERITIES.items()}


def keep(connection: Connection, events: Sequence[Event]) -> None:
    """Project what these Events tell, in the order of their numbers."""
    parts: dict[tuple[str, ...], Row] = {}
    alarms: dict[tuple[str, ...], Row] = {}
    for e in events:
        if e.stream == ALARM_STREAM:
            if (row := alarm_row(e)) is not None:
                alarms[e.device, row["alarm"]] = row
        elif (row := part_row(e)) is not None:
            parts[e.device, row["asset"], row["part"]] = row
    if parts:
        connection.execute(KEEP_ASSET, list(parts.values()))
    if alarms:
        connection.execute(KEEP_ALARM, list(alarms.values()))


def _keep(table: Table, *keys: str) -> TextClause:
    newer = f"{table.name}.chain <> excluded.chain OR {table.name}.seq < excluded.seq"
    return merge(table, keys, newer, **newest(*(column.name for column in table.columns if column.name not in keys)))


KEEP_ASSET, KEEP_ALARM = _keep(t.asset, "device", "asset", "part"), _keep(t.alarm, "device", "alarm")


def part_row(e: Event) -> Row | None:
    if e.stream == "telemetry" and e.kind.startswith(ASSET_KIND):
        part = "state"
    elif e.stream == "health" and e.kind == DRIFT_KIND:
        part = f"drift.{_name(e.body.get('model')) or 'model'}"
    else:
        return None
    asset = _name(e.body.get("asset"))
    if not asset:
        return None
    common = {"chain": e.chain, "seq": e.seq, "wall_ns": e.wall_ns, "body": json_text(dict(e.body))}
    return {"device": e.device, "asset": asset, "part": part, **common}


def alarm_row(e: Event) -> Row | None:
    body = e.body
    names = [_name(body.get(name)) for name in ("alarm", "asset", "source", "state")]
    if not all(names):
        return None
    alarm, asset, source, state = names
    raised = body.get("raised_wall_ns")
    return {
        "device": e.device, "alarm": alarm, "asset": asset, "source": source, "state": state,
        "active": body.get("active") is True, "severity": SEVERITIES.get(str(body.get("severity")), 0),
        "kind": plain_text(e.kind), "chain": e.chain, "seq": e.seq,
        "raised_wall_ns": raised if type(raised) is int and 0 <= raised <= INT64_MAX else 0, "wall_ns": e.wall_ns,
        "body": json_text(dict(body)),
    }  # fmt: skip


def _name(value: Any) -> str:
    return plain_text(value)[:NAME_CHARS] if isinstance(value, str) else ""


# ── read ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def assets(engine: Engine, device: str | None = None) -> list[Row]:
    """Each asset: `state` and `drift` (by model) as the device told them, with their times, and its alarms."""
    a = t.asset
    query = select(a).order_by(a.c.device, a.c.asset).limit(8 * LIMIT)
    if device is not None:
        query = query.where(a.c.device == device)
    found: dict[tuple[str, str], Row] = {}
    with engine.connect() as connection:
        for row in connection.execute(query).mappings():
            empty = {"device": row["device"], "asset": row["asset"], "wall_ns": 0, "state": {}, "drift": {}}
            asset = found.setdefault((row["device"], row["asset"]), empty)
            asset["wall_ns"] = max(asset["wall_ns"], row["wall_ns"])
            body = json.loads(row["body"])
            if row["part"] == "state":
                asset["state"] = body
            else:
                asset["drift"][row["part"].removeprefix("drift.")] = {**body, "wall_ns": row["wall_ns"]}
    for alarm in alarms(engine, {"device": device}):
        empty = {"device": alarm["device"], "asset": alarm["asset"], "wall_ns": 0, "state": {}, "drift": {}}
        asset = found.setdefault((alarm["device"], alarm["asset"]), empty)
        asset["wall_ns"] = max(asset["wall_ns"], alarm["wall_ns"])
        asset.setdefault("alarms", []).append(alarm)
    return list(found.values())[:LIMIT]


def alarms(engine: Engine, equal: Mapping[str, Any], everything: bool = False) -> list[Row]:
    """The alarms that are not normal, or all; the worst first."""
    a = t.alarm
    query = select(a).order_by(a.c.active.desc(), a.c.severity.desc(), a.c.wall_ns.desc(), a.c.device, a.c.alarm)
    for name, value in equal.items():
        if value is not None:
            query = query.where(a.c[name] == value)
    if not everything:
        query = query.where(a.c.state != "normal", a.c.kind != "removed")
    with engine.connect() as connection:
        found = connection.execute(query.limit(LIMIT)).mappings().all()
    return [dict(row) | {"body": json.loads(row["body"]), "severity": NAMES[row["severity"]]} for row in found]
