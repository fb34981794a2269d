"""What time brings to rollouts, in one transaction for each: devices that are silent, devices that came late, the counts, and
what follows from them. Devices are read only by index: those that changed, or whose time is up.

A finished rollout takes devices that come late for STANDS_NS. While a rollout is paused nobody becomes silent.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Engine, select, text

from cloud.rollout import gaps
from cloud.rollout.cohort import Member, joined
from cloud.rollout.fleet import members, writing
from cloud.rollout.judge import judge
from cloud.rollout.offer import Job
from cloud.rollout.registry import Registry
from cloud.rollout.rows import INSERT_DEVICES, held, member_row, one, part_of, quoted, write_history
from cloud.rollout.shown import groups_now
from cloud.rollout.states import (
    DEVICE,
    IN_FLIGHT,
    LIVE,
    ROLLOUT,
    STEPPED,
    DeviceInput,
    DeviceState,
    GroupState,
    RolloutState,
)
from cloud.rollout.store import LATE_COMMITS_NS, change_state
from cloud.rollout.tags import matches
from cloud.store import tables as t
from cloud.store.database import wanted
from edge_runtime import log
from edge_runtime.machine import step

Row = dict[str, Any]
S_NS = 1_000_000_000
STANDS_NS = 30 * 24 * 3600 * S_NS

_DUE = """SELECT d.*, g.state AS group_state FROM rollout_device d
    JOIN rollout_group g ON g.rollout = d.rollout AND g.number = d.number
    WHERE d.rollout = :rollout AND d.deadline_ns <= :now_ns AND NOT d.closed AND d.state IN ({states})"""
_SET_GROUP = text(
    "UPDATE rollout_group SET state = :state, since_ns = :since_ns WHERE rollout = :rollout AND number = :number"
)


def advance(engine: Engine, now_ns: int, registry: Registry | None = None) -> dict[str, str]:
    """What time brings. id → new state, of those whose state changed. One that fails is told, and keeps no other from moving."""
    gaps.tick(engine, now_ns)
    r = t.rollout.c
    stands = (r.state != RolloutState.FINISHED.value) | (r.changed_ns > now_ns - STANDS_NS)
    query = select(r.id).where(r.state.in_([s.value for s in STEPPED]), stands).order_by(r.started_ns.desc(), r.id)
    with engine.connect() as connection:
        ids = list(connection.execute(query).scalars())
    found = {}
    for rollout in ids:
        try:
            with writing(engine).begin() as connection:
                job = held(connection, rollout)
                after = _advance(connection, job, now_ns, registry)
        except Exception as error:  # such as a plan that this version cannot read
            log.say(logging.ERROR, "a rollout was not moved on", id=rollout, reason=first_line(error))
            continue
        if after is not job.state:
            found[rollout] = after.value
    return found


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]


def _advance(connection: Connection, job: Job, now_ns: int, registry: Registry | None) -> RolloutState:
    if job.state not in STEPPED:
        return job.state
    if job.state is not RolloutState.PAUSED:
        _silence(connection, job, now_ns)
    if job.state in (RolloutState.RUNNING, RolloutState.PAUSED) and (why := _withdrawn(job, registry)):
        change_state(connection, job, RolloutState.ABORTING, why, now_ns)
        return RolloutState.ABORTING
    row = one(connection, job.id)
    assert row is not None
    if job.state in (RolloutState.RUNNING, RolloutState.FINISHED):
        _join(connection, job, row["joined_ns"], now_ns)
    groups = groups_now(connection, job, now_ns)
    verdict = judge(job.plan, job.state, groups, row["changed_ns"], now_ns)
    changed = [
        {"rollout": job.id, "number": i, "state": after.state.value, "since_ns": after.since_ns}
        for i, (after, before) in enumerate(zip(verdict.groups, groups, strict=True))
        if after != before
    ]
    if changed:
        connection.execute(_SET_GROUP, changed)
    state = step(ROLLOUT, job.state, verdict.input) if verdict.input else job.state
    if state is not job.state:
        change_state(connection, job, state, verdict.reason or row["reason"], now_ns)
    return state


def _withdrawn(job: Job, registry: Registry | None) -> str:
    if registry is None:
        return ""
    found = registry.target(job.artifact.target)
    if found is None:
        return f"{job.artifact.target} was withdrawn from the repository"
    return (
        ""
        if found.sha256 == job.artifact.sha256
        else f"{job.artifact.target} is another artifact in the repository now"
    )


def _silence(connection: Connection, job: Job, now_ns: int) -> None:
    """Those whose time is up count as failed."""
    query = text(_DUE.format(states=quoted((*IN_FLIGHT, DeviceState.RETRY))))
    rows = connection.execute(query, {"rollout": job.id, "now_ns": now_ns}).mappings().all()
    due = [part_of(dict(row)) for row in rows]
    if not due:
        return
    after = [
        replace(
            part,
            state=step(DEVICE, part.state, DeviceInput.TIMEOUT),
            reason="no end within its time"
            if now_ns - part.offered_ns >= job.plan.stuck_after_s * S_NS
            else "not heard of",
        )
        for part in due
    ]
    update = text(
        """UPDATE rollout_device SET state = :state, reason = :reason, changed_ns = :now_ns
        WHERE rollout = :rollout AND device = :device"""
    )
    values = [
        {"state": p.state.value, "reason": p.reason, "now_ns": now_ns, "rollout": p.rollout, "device": p.device}
        for p in after
    ]
    connection.execute(update, values)
    write_history(connection, [(part, job.slot_set) for part in after], now_ns)


_TAKEN = """SELECT d.device FROM rollout_device d JOIN rollout r ON r.id = d.rollout JOIN {wanted} w ON w.device = d.device
    WHERE d.rollout = :id OR (r.slot_set = :slot_set AND NOT d.closed AND (r.started_ns > :started_ns OR r.state IN ({live})))"""


def _join(connection: Connection, job: Job, since_ns: int, now_ns: int) -> None:
    """Devices that came, or were tagged, after the start."""
    new = [m for m in members(connection, max(1, since_ns - LATE_COMMITS_NS)) if matches(job.plan.where, m.tags)]
    if not new:
        return
    table = wanted(connection, "device")
    query = text(_TAKEN.format(wanted=table.table, live=quoted(LIVE)))
    values = {"id": job.id, "slot_set": job.slot_set, "started_ns": job.started_ns}
    taken = set(connection.execute(query, table.values([m.device] for m in new) | values).scalars())
    g = t.rollout_group.c
    states = connection.execute(select(g.state).where(g.rollout == job.id).order_by(g.number)).scalars().all()
    waiting = [state == GroupState.WAITING.value for state in states]
    rows = [row for m in new if m.device not in taken and (row := _joining(job, m, waiting, now_ns))]
    if rows:
        connection.execute(INSERT_DEVICES, rows)
    connection.execute(t.rollout.update().where(t.rollout.c.id == job.id).values(joined_ns=now_ns))


def _joining(job: Job, member: Member, waiting: Sequence[bool], now_ns: int) -> Mapping[str, Any] | None:
    number = joined(job.plan.groups, waiting, job.id, member)
    return None if number is None else member_row(job, member.device, number, now_ns)
