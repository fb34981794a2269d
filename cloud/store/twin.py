"""The cloud's twin of a device: what it is asked to be (`desired`), what it says that it is (`reported`), and the commands to it.

- A version of desired state, and the counter of a command, is above all that this cloud gave out *and* above all that the
  device has reported: a cloud that began anew is not taken for one that repeats itself.
- What goes out is signed once and kept as it is; sending it again sends the same bytes.
- The end of a command comes with its Event, through ingest, in the same transaction. The first end holds, but `replayed` gives
  way to all others and `unknown` to one that `control` could still record.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, func, or_, select, update

from cloud.access.roles import Actor
from cloud.audit import record
from cloud.messages import plain_text
from cloud.store import tables as t
from cloud.store.database import WRITES, lock, merge, newest
from edge_runtime.wire import command, desired
from edge_runtime.wire.command import ENDS, Command
from edge_runtime.wire.desired import Desired, Reported, check_state
from edge_runtime.wire.envelope import Event
from edge_runtime.wire.signed import seal

Sign = Callable[[bytes], bytes]
Row = dict[str, Any]
STREAM = "command"
MS_NS = 1_000_000
REASON_CHARS = 500
RESENT = 100  # commands to one device, at once
#: an end → those that it may take the place of
GIVE_WAY: Mapping[str, tuple[str, ...]] = {
    "replayed": (),
    "unknown": ("replayed",),
    "done": ("replayed", "unknown"),
    "refused": ("replayed", "unknown"),
    "expired": ("replayed", "unknown"),
}

KEEP_DESIRED = merge(t.desired, ("device",), **newest("version", "state", "issued_ns", "message"))
KEEP_REPORTED = merge(
    t.reported, ("device",), **newest("version", "state", "refused_version", "refused_reason", "at_ns")
)


def _writing(engine: Engine) -> Engine:
    return engine.execution_options(**{WRITES: True})


# ── desired and reported state ──────────────────────────────────────────────────────────────────────────────────────


class ChangedMeanwhileError(ValueError):
    """The desired state has another version than the one that was looked at."""


def set_desired(
    engine: Engine,
    device: str,
    changes: Mapping[str, Any],
    unset: Iterable[str],
    sign: Sign,
    now_ns: int,
    by: Actor | None = None,
    seen_version: int | None = None,
) -> Row:
    """The new desired state of a device. `by`: who asks for it, None: this program. `seen_version`: the change is made only to
    this version (0: where there is none yet). ValueError where a key is unknown or out of range, also one to be unset."""
    wanted, gone = check_state(changes), set(unset)
    for name in gone - set(desired.KEYS):
        raise ValueError(f"unknown key {name}; known keys: {', '.join(desired.KEYS)}")
    with _writing(engine).begin() as connection:
        lock(connection, {device}, alone=False)
        before = _one(connection, t.desired, device)
        told = _one(connection, t.reported, device)
        there = before["version"] if before else 0
        if seen_version is not None and seen_version != there:
            raise ChangedMeanwhileError(
                f"{device}: the desired state has version {there}, not {seen_version}; look again"
            )
        version = 1 + max(before["version"] if before else 0, told["version"] if told else 0)
        state = {k: v for k, v in (json.loads(before["state"]) if before else {}).items() if k not in gone} | wanted
        message = seal(desired.KIND, Desired(device, version, now_ns, state).body(), sign).decode()
        values = {"version": version, "state": json.dumps(state), "issued_ns": now_ns, "message": message}
        connection.execute(KEEP_DESIRED, values | {"device": device})
        if by is not None:
            record(connection, by, "desired.change", device, {"version": version, "set": wanted, "unset": sorted(gone)})
    return twin(engine, device)


def twin(engine: Engine, device: str) -> Row:
    """`desired` and `reported` of a device, each None where there is none; `delta`: the keys in which they differ."""
    with engine.connect() as connection:
        wanted, told = _one(connection, t.desired, device), _one(connection, t.reported, device)
    found: Row = {"device": device, "desired": None, "reported": None, "delta": _delta(wanted, told)}
    if wanted:
        found["desired"] = {k: wanted[k] for k in ("version", "issued_ns")} | {"state": json.loads(wanted["state"])}
    if told:
        reason = told["refused_reason"]
        refused = None if reason is None else {"version": told["refused_version"], "reason": reason}
        state = {"state": json.loads(told["state"]), "refused": refused}
        found["reported"] = {k: told[k] for k in ("version", "at_ns")} | state
    return found


def _delta(wanted: Row | None, told: Row | None) -> Row:
    """key → what is asked for and what is reported, where these differ; None: the device's own configuration."""
    asked, is_now = (json.loads(side["state"]) if side else {} for side in (wanted, told))
    names = sorted({*asked, *is_now})
    return {n: {"desired": asked.get(n), "reported": is_now.get(n)} for n in names if asked.get(n) != is_now.get(n)}


def keep_reported(engine: Engine, device: str, told: Reported, now_ns: int) -> None:
    refused = told.refused
    values = {
        "version": told.version,
        "state": plain_text(json.dumps(dict(told.state))),
        "refused_version": refused.version if refused else None,
        "refused_reason": plain_text(refused.reason) if refused else None,
        "at_ns": now_ns,
    }
    with _writing(engine).begin() as connection:
        connection.execute(KEEP_REPORTED, values | {"device": device})


# ── commands ────────────────────────────────────────────────────────────────────────────────────────────────────────


def make_command(
    engine: Engine,
    device: str,
    name: str,
    args: Mapping[str, Any],
    expires_s: float,
    sign: Sign,
    now_ns: int,
    by: Actor | None = None,
) -> Row:
    """A new command, signed and kept. `by`: who asks for it, None: this program. ValueError where the format forbids it."""
    with _writing(engine).begin() as connection:
        lock(connection, {device}, alone=False)
        last = connection.execute(select(func.max(t.command.c.counter)).where(t.command.c.device == device)).scalar()
        counter = max((last or 0) + 1, now_ns // MS_NS)  # rises with the time, also for a cloud that began anew
        made = Command(secrets.token_hex(8), device, name, counter, now_ns, now_ns + round(expires_s * 1e9), dict(args))
        message = seal(command.KIND, made.body(), sign).decode()
        row = {**vars(made), "args": json.dumps(dict(args)), "message": message}
        connection.execute(t.command.insert().values(**row))
        if by is not None:
            record(connection, by, "command.send", device, {"command": made.id, "name": name, "args": dict(args)})
    return one_command(engine, device, made.id) or {}


def one_command(engine: Engine, device: str, number: str) -> Row | None:
    c = t.command.c
    with engine.connect() as connection:
        row = connection.execute(select(t.command).where(c.device == device, c.id == number)).mappings().one_or_none()
    return None if row is None else _shown(dict(row))


def commands(engine: Engine, device: str, after: int, limit: int) -> list[Row]:
    """Oldest first; `after` is the `counter` of the last one that the caller has."""
    c = t.command.c
    query = select(t.command).where(c.device == device, c.counter > after).order_by(c.counter).limit(limit)
    with engine.connect() as connection:
        return [_shown(dict(row)) for row in connection.execute(query).mappings()]


def _shown(row: Row) -> Row:
    del row["message"]
    return row | {"args": json.loads(row["args"])}


def settle(connection: Connection, events: Sequence[Event]) -> None:
    """What Events of stream `command` tell of our commands; called by ingest, for new Events only."""
    c = t.command.c
    for e in events:
        if e.kind not in ENDS:
            continue
        mine = (c.id == str(e.body.get("id")), c.device == e.device)
        if not ENDS[e.kind]:
            connection.execute(update(t.command).values(accepted_ns=e.wall_ns).where(*mine))
            continue
        values = {"ended": e.kind, "reason": plain_text(str(e.body.get("reason", "")))[:REASON_CHARS]}
        may = or_(c.ended.is_(None), c.ended.in_(GIVE_WAY[e.kind]))
        connection.execute(update(t.command).values(**values, ended_ns=e.wall_ns).where(*mine, may))


# ── what goes out ───────────────────────────────────────────────────────────────────────────────────────────────────


def desired_message(engine: Engine, device: str) -> str | None:
    with engine.connect() as connection:
        row = _one(connection, t.desired, device)
    return None if row is None else str(row["message"])


def waiting_commands(engine: Engine, device: str, above: int, now_ns: int) -> list[tuple[int, str]]:
    """Counter and message of each command that has neither begun nor ended nor expired, in their order."""
    c = t.command.c
    waits = (c.device == device, c.counter > above, c.ended.is_(None), c.accepted_ns.is_(None), c.expires_ns > now_ns)
    query = select(c.counter, c.message).where(*waits).order_by(c.counter).limit(RESENT)
    with engine.connect() as connection:
        return [(int(counter), str(message)) for counter, message in connection.execute(query)]


def places(engine: Engine) -> dict[str, str]:
    """device → its place in the topic tree, for each that something is asked of."""
    asked = select(t.desired.c.device).union(select(t.command.c.device).where(t.command.c.ended.is_(None)))
    query = select(t.device.c.device, t.device.c.place).where(t.device.c.device.in_(asked))
    with engine.connect() as connection:
        return {str(row.device): str(row.place) for row in connection.execute(query)}


def place_of(engine: Engine, device: str) -> str | None:
    with engine.connect() as connection:
        row = _one(connection, t.device, device)
    return None if row is None else str(row["place"])


def _one(connection: Connection, table: Any, device: str) -> Row | None:
    row = connection.execute(select(table).where(table.c.device == device)).mappings().one_or_none()
    return None if row is None else dict(row)
