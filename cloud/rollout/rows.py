"""Rows of devices in rollouts: read and written for many devices at once, with their history.

Who writes them takes locks in this order, so that no two wait for one another on PostgreSQL: the devices, the rollouts (by id),
then rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, select, text

from cloud.messages import plain_text
from cloud.rollout.offer import Artifact, Job, Part
from cloud.rollout.plan import Plan, plan_of
from cloud.rollout.states import DeviceState, GroupState, RolloutState
from cloud.store import tables as t
from cloud.store.database import is_postgresql, merge, newest, wanted

Row = Mapping[str, Any]
HISTORY_ROWS = 50

_PARTS = """SELECT d.*, g.state AS group_state FROM rollout_device d JOIN {wanted} w ON w.device = d.device
    JOIN rollout_group g ON g.rollout = d.rollout AND g.number = d.number WHERE NOT d.closed"""
_WRITE = text(
    """UPDATE rollout_device SET state = :state, tries = :tries, counter = :counter, offered_ns = :offered_ns,
    deadline_ns = :deadline_ns, next_ns = :next_ns, changed_ns = :changed_ns, reason = :reason
    WHERE rollout = :rollout AND device = :device"""
)
_CLOSE = text("UPDATE rollout_device SET closed = TRUE WHERE rollout = :rollout AND device = :device")
_COUNT_CHANGE = text("UPDATE fleet SET changes = changes + 1 WHERE device = :device")
_HISTORY = text(
    """INSERT INTO fleet_history (device, place, number, at_ns, slot_set, rollout, state, reason)
    SELECT device, changes % :rows, changes, :at_ns, :slot_set, :rollout, :state, :reason FROM fleet WHERE device = :device
    ON CONFLICT (device, place) DO UPDATE SET number = excluded.number, at_ns = excluded.at_ns,
    slot_set = excluded.slot_set, rollout = excluded.rollout, state = excluded.state, reason = excluded.reason"""
)
INSERT_DEVICES = text(
    """INSERT INTO rollout_device (rollout, device, number, state, tries, counter, offered_ns, deadline_ns, next_ns,
    changed_ns, reason, closed) VALUES (:rollout, :device, :number, 'waiting', 0, 0, 0, 0, 0, :now_ns, '', FALSE)
    ON CONFLICT (rollout, device) DO NOTHING"""
)
_SET = text("UPDATE rollout SET state = :state, reason = :reason, changed_ns = :now_ns WHERE id = :id")
KEEP_ASSIGNMENT = merge(t.assignment, ("device",), **newest("counter", "content", "message", "issued_ns", "expires_ns"))


class Change(NamedTuple):
    """A part as it is to be written; `told`: whether its state is another than before."""

    part: Part
    slot_set: str
    told: bool = True


@lru_cache(maxsize=256)
def cached_plan(text: str) -> Plan:
    return plan_of(text)


def job_of(row: Row) -> Job:
    artifact = json.loads(row["artifact"])
    made = Artifact(row["target"], row["sha256"], artifact["index"], tuple(artifact["hardware"]))
    state = RolloutState(row["state"])
    return Job(row["id"], row["slot_set"], state, cached_plan(row["plan"]), made, row["started_ns"], row["changed_ns"])


def part_of(row: Row) -> Part:
    names = ("device", "rollout", "number", "tries", "counter", "offered_ns", "deadline_ns", "next_ns", "reason")
    more = {name: row[name] for name in names}
    return Part(**more, state=DeviceState(row["state"]), group_state=GroupState(row["group_state"]))


def parts_of(connection: Connection, devices: Iterable[str]) -> list[Part]:
    """Of rollouts that still have something to say to these devices."""
    table = wanted(connection, "device")
    query = text(_PARTS.format(wanted=table.table))
    return [part_of(dict(row)) for row in connection.execute(query, table.values([d] for d in devices)).mappings()]


def jobs_of(connection: Connection, rollouts: Iterable[str], lock: str = "") -> dict[str, Job]:
    """`lock`: as PostgreSQL spells it; SQLite has one writer anyway."""
    table = wanted(connection, "id")
    held = f" FOR {lock} OF r" if lock and is_postgresql(connection) else ""
    query = text(f"SELECT r.* FROM rollout r WHERE r.id IN (SELECT id FROM {table.table} AS w) ORDER BY r.id{held}")
    rows = connection.execute(query, table.values([r] for r in set(rollouts))).mappings()
    return {row["id"]: job_of(dict(row)) for row in rows}


def write_parts(connection: Connection, changes: Sequence[Change], now_ns: int) -> None:
    if not changes:
        return
    connection.execute(_WRITE, [_values(change.part, now_ns) for change in changes])
    write_history(connection, [(c.part, c.slot_set) for c in changes if c.told], now_ns)


def _values(part: Part, now_ns: int) -> dict[str, Any]:
    values = {name: value for name, value in vars(part).items() if name not in ("number", "group_state")}
    return values | {"state": part.state.value, "reason": plain_text(part.reason), "changed_ns": now_ns}


def write_history(connection: Connection, parts: Sequence[tuple[Part, str]], now_ns: int) -> None:
    """One row for each; a device keeps its newest HISTORY_ROWS."""
    if not parts:
        return
    connection.execute(_COUNT_CHANGE, [{"device": part.device} for part, _ in parts])
    shared = {"at_ns": now_ns, "rows": HISTORY_ROWS}
    rows = [
        shared
        | {"device": p.device, "slot_set": slot_set, "rollout": p.rollout, "state": p.state.value}
        | {"reason": plain_text(p.reason)}
        for p, slot_set in parts
    ]
    connection.execute(_HISTORY, rows)


def close(connection: Connection, parts: Sequence[Part]) -> None:
    if parts:
        connection.execute(_CLOSE, [{"rollout": p.rollout, "device": p.device} for p in parts])


def one(connection: Connection, rollout: str) -> Row | None:
    row = connection.execute(select(t.rollout).where(t.rollout.c.id == rollout)).mappings().one_or_none()
    return None if row is None else dict(row)


def held(connection: Connection, rollout: str) -> Job:
    """Until the end of the transaction nobody else moves it, or gives something of it out."""
    found = jobs_of(connection, [rollout], "UPDATE")
    if rollout not in found:
        raise LookupError(f"no rollout {rollout[:64]}; `gudgeon rollout list` tells those that there are")
    return found[rollout]


def set_state(connection: Connection, rollout: str, state: RolloutState, reason: str, now_ns: int) -> None:
    connection.execute(_SET, {"id": rollout, "state": state.value, "reason": reason[:500], "now_ns": now_ns})


def quoted(states: Any) -> str:
    return ", ".join(sorted(f"'{state.value}'" for state in states))


def member_row(job: Job, device: str, number: int, now_ns: int) -> Row:
    return {"rollout": job.id, "device": device, "number": number, "now_ns": now_ns}
