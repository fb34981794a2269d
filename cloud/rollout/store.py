"""Rollouts in the database: made, steered, and moved on by the clock.

- A device is in one live rollout for each slot set at most: a second one is refused at its start, unless it says that it replaces
  the first, which is then aborted in the same transaction. Of those that are finished the newest holds.
- Actions may be repeated. One that the state does not allow is refused, and says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, func, select, text

from cloud.rollout.cohort import placed
from cloud.rollout.fleet import members, writing
from cloud.rollout.gaps import absent_before_ns, give_time
from cloud.rollout.offer import Artifact, Job
from cloud.rollout.plan import Plan
from cloud.rollout.rows import INSERT_DEVICES, held, jobs_of, member_row, one, quoted, set_state
from cloud.rollout.shown import show
from cloud.rollout.states import LIVE, ROLLOUT, DeviceState, GroupState, RolloutInput, RolloutState, action_allowed
from cloud.rollout.tags import matches
from cloud.store import tables as t
from cloud.store.database import is_postgresql, wanted
from edge_runtime.errors import UsageError
from edge_runtime.machine import step
from edge_runtime.wire.assignment import Item, check_slot_set

Row = dict[str, Any]
#: writes down who did what, in the transaction in which it is done: connection, action, subject, detail
Note = Callable[[Connection, str, str, Mapping[str, Any]], None]
S_NS = 1_000_000_000
#: transactions that are under way may be committed after others that began later
LATE_COMMITS_NS = 60 * S_NS
LIVE_LIMIT = 100
STARTING = 0x67_75_64_05  # the lock of starts: two that overlap do not see one another


@dataclass(frozen=True)
class Asked:
    """A rollout to be made. `replaces`: a live one on the same devices that is aborted when this one starts, or ""."""

    id: str
    slot_set: str
    artifact: Artifact
    plan: Plan
    replaces: str = ""

    def __post_init__(self) -> None:
        Item(self.artifact.target, self.artifact.sha256, self.id)  # ValueError where one of them is not as it must be
        check_slot_set(self.slot_set, self.artifact.target)
        if not self.id:
            raise ValueError("id: expected 1 to 64 characters of A-Z a-z 0-9 _ . -")


def silent_note(connection: Connection, action: str, subject: str, detail: Mapping[str, Any]) -> None:
    """For where nobody acts but a program."""


def create(engine: Engine, asked: Asked, by: str, now_ns: int, note: Note = silent_note, *, begin: bool = False) -> Row:
    """A draft; with `begin` it is started in the same transaction, so that a start that is refused leaves none behind. The same
    again changes nothing; another under the same id is refused."""
    values = {
        "id": asked.id,
        "slot_set": asked.slot_set,
        "target": asked.artifact.target,
        "sha256": asked.artifact.sha256,
        "artifact": json.dumps({"index": asked.artifact.index, "hardware": list(asked.artifact.hardware)}),
        "plan": asked.plan.to_json(),
        "replaces": asked.replaces,
    }
    with writing(engine).begin() as connection:
        before = one(connection, asked.id)
        if before is not None:
            if any(before[name] != value for name, value in values.items()):
                raise UsageError(f"rollout {asked.id} is there already and is another one; choose another id")
        else:
            fresh: Row = dict.fromkeys(("reason", "approved_by"), "") | {"state": RolloutState.DRAFT.value}
            fresh |= {
                "created_by": by,
                "created_ns": now_ns,
                "started_ns": 0,
                "changed_ns": now_ns,
                "joined_ns": now_ns,
            }
            connection.execute(t.rollout.insert().values(**values, **fresh))
            rows = [
                {
                    "rollout": asked.id,
                    "number": i,
                    "name": g.name,
                    "state": GroupState.WAITING.value,
                    "since_ns": now_ns,
                }
                for i, g in enumerate(asked.plan.groups)
            ]
            connection.execute(t.rollout_group.insert(), rows)
            note(connection, "rollout.create", asked.id, values)
        if begin:
            _start(connection, asked.id, by, now_ns, note)
    return show(engine, asked.id, now_ns)


def start(engine: Engine, rollout: str, by: str, now_ns: int, note: Note = silent_note) -> Row:
    """Runs from here, or waits for approval where the plan wants it."""
    with writing(engine).begin() as connection:
        _start(connection, rollout, by, now_ns, note)
    return show(engine, rollout, now_ns)


def _start(connection: Connection, rollout: str, by: str, now_ns: int, note: Note) -> None:
    job = held(connection, rollout)
    event = RolloutInput.ASK_APPROVAL if job.plan.approval else RolloutInput.START
    if job.state is RolloutState.RUNNING or job.state is RolloutState.WAITING_APPROVAL:
        return
    state = _moved(job, event, "started")
    if state is RolloutState.RUNNING:
        _begin(connection, job, now_ns)
    set_state(connection, rollout, state, "", now_ns)
    note(connection, "rollout.start", rollout, {"by": by})


def approve(engine: Engine, rollout: str, by: str, now_ns: int, note: Note = silent_note) -> Row:
    """By another than the one who made it."""
    with writing(engine).begin() as connection:
        job = held(connection, rollout)
        row = one(connection, rollout)
        assert row is not None
        if job.plan.approval and row["created_by"] == by:
            raise PermissionError(f"rollout {rollout} was made by {by}; another person must approve it")
        if job.state is not RolloutState.RUNNING:
            state = _moved(job, RolloutInput.APPROVE, "approved")
            _begin(connection, job, now_ns)
            set_state(connection, rollout, state, "", now_ns)
            connection.execute(t.rollout.update().where(t.rollout.c.id == rollout).values(approved_by=by))
            note(connection, "rollout.approve", rollout, {})
    return show(engine, rollout, now_ns)


def pause(engine: Engine, rollout: str, reason: str, now_ns: int, note: Note = silent_note) -> Row:
    return _act(engine, rollout, RolloutInput.PAUSE, reason, now_ns, note)


def resume(engine: Engine, rollout: str, now_ns: int, note: Note = silent_note) -> Row:
    return _act(engine, rollout, RolloutInput.RESUME, "", now_ns, note)


def abort(engine: Engine, rollout: str, reason: str, now_ns: int, note: Note = silent_note) -> Row:
    return _act(engine, rollout, RolloutInput.ABORT, reason, now_ns, note)


WORDS: Mapping[RolloutInput, tuple[str, str]] = {
    RolloutInput.PAUSE: ("rollout.pause", "paused"),
    RolloutInput.RESUME: ("rollout.resume", "resumed"),
    RolloutInput.ABORT: ("rollout.abort", "aborted"),
}


def _act(engine: Engine, rollout: str, event: RolloutInput, reason: str, now_ns: int, note: Note) -> Row:
    action, word = WORDS[event]
    with writing(engine).begin() as connection:
        job = held(connection, rollout)
        state = _moved(job, event, word)
        if state is not job.state:
            change_state(connection, job, state, reason, now_ns)
            note(connection, action, rollout, {"reason": reason})
    return show(engine, rollout, now_ns)


def _moved(job: Job, event: RolloutInput, word: str) -> RolloutState:
    if not action_allowed(job.state, event):
        raise UsageError(f"rollout {job.id} is {job.state.value}, it cannot be {word}")
    return step(ROLLOUT, job.state, event)


def change_state(connection: Connection, job: Job, state: RolloutState, reason: str, now_ns: int) -> None:
    """To another state, with what this means for its devices."""
    if state is RolloutState.RUNNING and job.state is RolloutState.PAUSED:
        give_time(connection, job, now_ns - job.changed_ns, now_ns)
    if state is RolloutState.ABORTING:
        d = t.rollout_device
        here = (d.c.rollout == job.id, d.c.state.in_((DeviceState.WAITING.value, DeviceState.RETRY.value)))
        gone = {"state": DeviceState.CANCELLED.value, "reason": "aborted", "changed_ns": now_ns}
        connection.execute(d.update().where(*here, d.c.offered_ns == 0).values(**gone, closed=True))
        connection.execute(d.update().where(*here).values(**gone))
    set_state(connection, job.id, state, reason, now_ns)


def _begin(connection: Connection, job: Job, now_ns: int) -> None:
    """The devices of now, each in its group; UsageError where they are in another rollout of this slot set."""
    if is_postgresql(connection):
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": STARTING})
    live = select(func.count()).select_from(t.rollout).where(t.rollout.c.state.in_([s.value for s in LIVE]))
    if connection.execute(live).scalar_one() >= LIVE_LIMIT:
        raise UsageError(f"{LIVE_LIMIT} rollouts run already; let one of them end or abort it first")
    fit = [m for m in members(connection) if matches(job.plan.where, m.tags)]
    places = placed(job.plan.groups, job.id, fit, absent_before_ns(connection, job.plan, now_ns))
    if not places:
        raise UsageError(f"rollout {job.id}: no device fits its filters, see `gudgeon rollout fleet`; it stays a draft")
    _replace(connection, job, now_ns)
    _refuse_overlap(connection, job, places)
    _end_older(connection, job, places, now_ns)
    connection.execute(INSERT_DEVICES, [member_row(job, device, number, now_ns) for device, number in places.items()])
    connection.execute(t.rollout.update().where(t.rollout.c.id == job.id).values(started_ns=now_ns, joined_ns=now_ns))


def _replace(connection: Connection, job: Job, now_ns: int) -> None:
    row = one(connection, job.id)
    old = row["replaces"] if row else ""
    found = jobs_of(connection, [old], "UPDATE") if old else {}
    if found and found[old].state in (RolloutState.RUNNING, RolloutState.PAUSED):
        change_state(connection, found[old], RolloutState.ABORTING, f"replaced by {job.id}", now_ns)


_OVERLAP = """SELECT r.id, count(*) FROM rollout r JOIN rollout_device d ON d.rollout = r.id JOIN {wanted} w
    ON w.device = d.device WHERE r.slot_set = :slot_set AND r.id <> :id AND NOT d.closed AND r.state IN ({live})
    AND d.state NOT IN ('skipped', 'cancelled') AND r.id <> :replaces GROUP BY r.id ORDER BY r.id"""


def _refuse_overlap(connection: Connection, job: Job, devices: Mapping[str, int]) -> None:
    table = wanted(connection, "device")
    row = one(connection, job.id)
    query = text(_OVERLAP.format(wanted=table.table, live=quoted(LIVE)))
    values = {"slot_set": job.slot_set, "id": job.id, "replaces": row["replaces"] if row else ""}
    found = connection.execute(query, table.values([d] for d in devices) | values).all()
    if found:
        names = ", ".join(f"{name} ({count} devices)" for name, count in found)
        raise UsageError(
            f"rollout {job.id}: slot set {job.slot_set} has a live rollout on the same devices: {names}; "
            "let it end, abort it, or name it in `replaces`"
        )


_OLDER = """UPDATE rollout_device SET closed = TRUE, changed_ns = :now_ns,
    state = CASE WHEN state IN ('confirmed', 'failed') THEN state ELSE 'cancelled' END, reason = :reason
    WHERE NOT closed AND rollout IN (SELECT id FROM rollout WHERE slot_set = :slot_set AND id <> :id)
    AND (state NOT IN ('confirmed', 'failed', 'skipped', 'cancelled') OR rollout = :replaces)
    AND device IN (SELECT device FROM {wanted} AS w)"""


def _end_older(connection: Connection, job: Job, devices: Mapping[str, int], now_ns: int) -> None:
    """What older rollouts of the slot set have not given out, they never will."""
    table = wanted(connection, "device")
    row = one(connection, job.id)
    values = {"now_ns": now_ns, "slot_set": job.slot_set, "id": job.id, "reason": f"rollout {job.id} came"}
    values["replaces"] = row["replaces"] if row else ""
    connection.execute(text(_OLDER.format(wanted=table.table)), table.values([d] for d in devices) | values)
