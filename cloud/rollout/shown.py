"""What is told of rollouts: their progress, group by group, counted from the rows of their devices by index."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, func, select, text

from cloud.rollout.gaps import absent_before_ns
from cloud.rollout.judge import GroupNow, needed
from cloud.rollout.offer import Job
from cloud.rollout.rows import cached_plan, job_of, one
from cloud.rollout.states import EXECUTED, FAILURES, IN_FLIGHT, DeviceState, GroupState
from cloud.store import tables as t

Row = dict[str, Any]
ABSENT = text(
    """SELECT d.number, count(*) FROM rollout_device d JOIN fleet f ON f.device = d.device
    WHERE d.rollout = :rollout AND d.state = 'waiting' AND f.told_ns < :limit_ns GROUP BY d.number"""
)


def groups_now(connection: Connection, job: Job, now_ns: int) -> list[GroupNow]:
    d, g = t.rollout_device.c, t.rollout_group.c
    counts: dict[int, dict[DeviceState, int]] = defaultdict(dict)
    grouped = select(d.number, d.state, func.count()).where(d.rollout == job.id).group_by(d.number, d.state)
    for number, state, count in connection.execute(grouped):
        counts[number][DeviceState(state)] = int(count)
    limit_ns = absent_before_ns(connection, job.plan, now_ns)
    absent = {r[0]: r[1] for r in connection.execute(ABSENT, {"rollout": job.id, "limit_ns": limit_ns})}
    rows = connection.execute(select(g.number, g.state, g.since_ns).where(g.rollout == job.id).order_by(g.number))
    return [GroupNow(GroupState(r.state), r.since_ns, counts[r.number], int(absent.get(r.number, 0))) for r in rows]


def show(engine: Engine, rollout: str, now_ns: int) -> Row:
    """One rollout with the progress of its groups. UsageError where there is none of this id."""
    with engine.connect() as connection:
        row = one(connection, rollout)
        if row is None:
            raise LookupError(f"no rollout {rollout[:64]}; `gudgeon rollout list` tells those that there are")
        return _shown(connection, row, now_ns)


def listed(engine: Engine, now_ns: int, limit: int = 100) -> list[Row]:
    """The newest first."""
    r = t.rollout
    with engine.connect() as connection:
        rows = connection.execute(select(r).order_by(r.c.created_ns.desc(), r.c.id).limit(limit)).mappings().all()
        return [_shown(connection, dict(row), now_ns) for row in rows]


def devices(engine: Engine, rollout: str, state: str | None, after: str, limit: int) -> list[Row]:
    """Devices of a rollout, by name."""
    d = t.rollout_device
    query = select(d).where(d.c.rollout == rollout, d.c.device > after).order_by(d.c.device).limit(limit)
    if state is not None:
        query = query.where(d.c.state == state)
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def _shown(connection: Connection, row: Mapping[str, Any], now_ns: int) -> Row:
    job = job_of(row)
    groups = groups_now(connection, job, now_ns)
    d = t.rollout_device.c
    exposed = select(func.count()).where(d.rollout == job.id, d.offered_ns > 0)
    names = ("id", "slot_set", "target", "sha256", "state", "reason", "created_by", "approved_by", "replaces")
    times = ("created_ns", "started_ns", "changed_ns")
    return {
        **{name: row[name] for name in (*names, *times)},
        "plan": json.loads(cached_plan(row["plan"]).to_json()),
        "exposed": int(connection.execute(exposed).scalar_one()),
        "in_flight": sum(now.sum(*IN_FLIGHT) for now in groups),
        "confirmed": sum(now.sum(DeviceState.CONFIRMED) for now in groups),
        "failed": sum(now.sum(*FAILURES) for now in groups),
        "executed": sum(now.sum(*EXECUTED) for now in groups),
        "groups": [
            {
                "name": group.name,
                "state": now.state.value,
                "since_ns": now.since_ns,
                "members": now.members,
                "needed": needed(group, now),
                "absent": now.absent,
                "counts": {state.value: now.counts.get(state, 0) for state in DeviceState},
            }
            for group, now in zip(job.plan.groups, groups, strict=True)
        ],
    }
