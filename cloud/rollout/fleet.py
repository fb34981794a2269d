"""The fleet as it tells of itself: what each slot set has installed, runs and has confirmed; floors, tags, time zone, history.

A device is in the fleet from its first question for an assignment, or from when somebody named it here.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Table, select, text

from cloud.messages import plain_text
from cloud.rollout.cohort import Member
from cloud.rollout.plan import check_zone
from cloud.rollout.tags import TAGS_LIMIT, check_tags, matches
from cloud.store import tables as t
from cloud.store.database import WRITES, lock, merge, newest, wanted
from edge_runtime.wire.update_status import SlotStatus, UpdateStatus

Row = dict[str, Any]
SLOT_COLUMNS = ("target", "sha256", "installed", "running", "confirmed")

KEEP_FLEET = merge(
    t.fleet,
    ("device",),
    **newest("hardware", "boot_id", "floor", "told_ns"),
    changed_ns="CASE WHEN fleet.hardware = excluded.hardware THEN fleet.changed_ns ELSE excluded.changed_ns END",
)
NAME_DEVICE = text(
    """INSERT INTO fleet (device, hardware, boot_id, floor, zone, first_seen_ns, told_ns, changed_ns, changes)
    VALUES (:device, '', '', '{}', '', :now_ns, 0, :now_ns, 0)
    ON CONFLICT (device) DO UPDATE SET changed_ns = excluded.changed_ns"""
)
KEEP_SLOT = merge(t.fleet_slot, ("device", "slot_set"), **newest("state", *SLOT_COLUMNS, "body", "changed_ns"))
KEEP_TAG = merge(t.fleet_tag, ("device", "name"), **newest("value"))
DROP_TAG = text("DELETE FROM fleet_tag WHERE device = :device AND name = :name")


def hear(connection: Connection, statuses: Collection[UpdateStatus], now_ns: int) -> None:
    """Keep what devices tell; only what is new is written."""
    rows = [
        {
            "device": s.device,
            "hardware": plain_text(s.hardware),
            "boot_id": plain_text(s.boot_id),
            "zone": "",
            "changes": 0,
        }
        | {"floor": json.dumps(dict(s.floor)), "first_seen_ns": now_ns, "told_ns": now_ns, "changed_ns": now_ns}
        for s in statuses
    ]
    connection.execute(KEEP_FLEET, rows)
    table = wanted(connection, "device")
    query = text(f"SELECT s.device, s.slot_set, s.body FROM fleet_slot s JOIN {table.table} w ON w.device = s.device")
    known = {(r[0], r[1]): r[2] for r in connection.execute(query, table.values([s.device] for s in statuses))}
    told = [_slot_row(s.device, name, slot, now_ns) for s in statuses for name, slot in s.slots.items()]
    if new := [row for row in told if known.get((row["device"], row["slot_set"])) != row["body"]]:
        connection.execute(KEEP_SLOT, new)


def _slot_row(device: str, name: str, slot: SlotStatus, now_ns: int) -> Row:
    values = vars(slot)
    body = json.dumps({**values, "state": slot.state.value, "measured": dict(slot.measured)}, sort_keys=True)
    texts = {column: plain_text(values[column]) for column in SLOT_COLUMNS}
    return {"device": device, "slot_set": name, "state": slot.state.value, **texts, "body": body, "changed_ns": now_ns}


def zones_of(connection: Connection, devices: Iterable[str]) -> dict[str, str]:
    table = wanted(connection, "device")
    query = text(f"SELECT f.device, f.zone FROM fleet f JOIN {table.table} w ON w.device = f.device WHERE f.zone <> ''")
    return {row[0]: row[1] for row in connection.execute(query, table.values([d] for d in devices))}


def members(connection: Connection, changed_from_ns: int = 0) -> list[Member]:
    """The devices whose tags or hardware changed since then, or that came since then."""
    f, g = t.fleet.c, t.fleet_tag.c
    tags: dict[str, dict[str, str]] = {}
    told_ns: dict[str, int] = {}
    for row in connection.execute(select(f.device, f.hardware, f.told_ns).where(f.changed_ns >= changed_from_ns)):
        tags[row.device] = {"device": row.device, "hardware": row.hardware}
        told_ns[row.device] = row.told_ns
    given = select(g.device, g.name, g.value)
    if changed_from_ns:
        given = given.join(t.fleet, f.device == g.device).where(f.changed_ns >= changed_from_ns)
    for device, name, value in connection.execute(given):
        if device in tags:
            tags[device][name] = value
    return [Member(device, found, told_ns[device]) for device, found in tags.items()]


# ── tags and zone ───────────────────────────────────────────────────────────────────────────────────────────────────


def set_tags(connection: Connection, device: str, tags: Mapping[str, str], unset: Sequence[str], now_ns: int) -> None:
    """ValueError where a name or value is not allowed. The device need not have been heard of."""
    check_tags(tags)
    lock(connection, {device}, alone=False)
    connection.execute(NAME_DEVICE, {"device": device, "now_ns": now_ns})
    if unset:
        connection.execute(DROP_TAG, [{"device": device, "name": name} for name in unset])
    if tags:
        connection.execute(KEEP_TAG, [{"device": device, "name": n, "value": v} for n, v in tags.items()])
    held = connection.execute(select(t.fleet_tag.c.name).where(t.fleet_tag.c.device == device)).scalars().all()
    if len(held) > TAGS_LIMIT:
        raise ValueError(f"{device}: {len(held)} tags, the limit is {TAGS_LIMIT}")


def set_zone(connection: Connection, device: str, zone: str, now_ns: int) -> None:
    """The time zone of its maintenance windows; "" for its own local time."""
    check_zone(zone)
    lock(connection, {device}, alone=False)
    connection.execute(NAME_DEVICE, {"device": device, "now_ns": now_ns})
    connection.execute(t.fleet.update().where(t.fleet.c.device == device).values(zone=zone))


# ── what is shown ───────────────────────────────────────────────────────────────────────────────────────────────────


def devices(engine: Engine, after: str, limit: int, where: Sequence[str] = ()) -> list[Row]:
    """By name; `after`: the last one that the caller has. With a filter, pages are as full as the devices that it takes."""
    found: list[Row] = []
    with engine.connect() as connection:
        while len(found) < limit:
            query = select(t.fleet).where(t.fleet.c.device > after).order_by(t.fleet.c.device).limit(limit)
            page = [dict(row) for row in connection.execute(query).mappings()]
            shown = _shown(connection, page)
            tags = ({**row["tags"], "device": row["device"], "hardware": row["hardware"]} for row in shown)
            found += [row for row, held in zip(shown, tags, strict=True) if matches(where, held)]
            if len(page) < limit:
                break
            after = page[-1]["device"]
    return found[:limit]


def device(engine: Engine, name: str) -> Row | None:
    """One device with its history, newest first."""
    with engine.connect() as connection:
        row = connection.execute(select(t.fleet).where(t.fleet.c.device == name)).mappings().one_or_none()
        if row is None:
            return None
        h = t.fleet_history
        query = select(h).where(h.c.device == name).order_by(h.c.number.desc())
        history = [dict(found) for found in connection.execute(query).mappings()]
        found = _shown(connection, [dict(row)])[0]
    names = ("number", "at_ns", "slot_set", "rollout", "state", "reason")
    return found | {"history": [{name: row[name] for name in names} for row in history]}


def _shown(connection: Connection, rows: Sequence[Row]) -> list[Row]:
    names = [row["device"] for row in rows]
    tags: dict[str, dict[str, str]] = defaultdict(dict)
    for row in _of(connection, t.fleet_tag, names):
        tags[row["device"]][row["name"]] = row["value"]
    slots: dict[str, Row] = defaultdict(dict)
    for row in _of(connection, t.fleet_slot, names):
        slots[row["device"]][row["slot_set"]] = json.loads(row["body"]) | {"changed_ns": row["changed_ns"]}
    given: dict[str, Row] = {}
    for row in _of(connection, t.assignment, names):
        times = {name: row[name] for name in ("counter", "issued_ns", "expires_ns")}
        given[row["device"]] = times | {"items": json.loads(row["content"])}
    kept = ("device", "hardware", "boot_id", "zone", "first_seen_ns", "told_ns")
    return [
        {name: row[name] for name in kept}
        | {"floor": json.loads(row["floor"]), "tags": tags[row["device"]], "slots": slots[row["device"]]}
        | {"assignment": given.get(row["device"])}
        for row in rows
    ]


def _of(connection: Connection, table: Table, names: Sequence[str]) -> list[Row]:
    chosen = wanted(connection, "device")
    query = text(f"SELECT s.* FROM {table.name} s JOIN {chosen.table} w ON w.device = s.device")
    return [dict(row) for row in connection.execute(query, chosen.values([n] for n in names)).mappings()]


def writing(engine: Engine) -> Engine:
    return engine.execution_options(**{WRITES: True})
