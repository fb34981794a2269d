"""Time in which no cloud moved rollouts on, or by which its clock was set, counts for nobody.

A cloud that was down, or restored from a backup, has heard of no device for a while: that is its own silence, not theirs. So
whoever moves rollouts on writes down when. Where more than `GAP_NS` lies in between, or the clock went back, what devices and
soak times still have begins anew or is moved by the gap. Clouds that share a store should agree on the time within `GAP_NS`.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from sqlalchemy import Connection, Engine, select, text

from cloud.rollout.fleet import writing
from cloud.rollout.offer import Job
from cloud.rollout.plan import Plan
from cloud.rollout.rows import jobs_of, quoted
from cloud.rollout.states import LIVE, RolloutState
from cloud.store import tables as t
from cloud.store.database import merge, newest
from edge_runtime import log

S_NS = 1_000_000_000
GAP_NS = 60 * S_NS
WRITTEN_EVERY_NS = 10 * S_NS

_KEEP = merge(t.rollout_clock, ("id",), **newest("ticked_ns", "resumed_ns", "gap_ns"))
_GIVE = text(
    """UPDATE rollout_device SET offered_ns = offered_ns + :gap_ns, next_ns = next_ns + :back_ns,
    deadline_ns = CASE WHEN state = 'retry' AND next_ns + :back_ns > :now_ns THEN next_ns + :back_ns ELSE :now_ns END + :silent_ns
    WHERE rollout = :rollout AND NOT closed AND state IN ('offered', 'working', 'retry')"""
)
_SOAK = text("UPDATE rollout_group SET since_ns = since_ns + :gap_ns WHERE rollout = :rollout AND state = 'soaking'")
_SINCE = text(
    f"""UPDATE rollout SET changed_ns = changed_ns + :gap_ns
    WHERE id = :rollout AND state IN ({quoted((RolloutState.PAUSED, RolloutState.ABORTING))})"""
)


def tick(engine: Engine, now_ns: int) -> int:
    """Rollouts are moved on now; the gap since the last time, 0 where there is none."""
    with engine.connect() as connection:
        ticked_ns, *_ = _clock(connection) or (now_ns - WRITTEN_EVERY_NS,)
    if 0 <= now_ns - ticked_ns < WRITTEN_EVERY_NS:
        return 0
    with writing(engine).begin() as connection:
        jobs = _held(connection) if _is_gap(now_ns - ticked_ns) else []
        ticked_ns, resumed_ns, gap_ns = _clock(connection, held=True) or (now_ns, 0, 0)
        found_ns = now_ns - ticked_ns
        if gap := _is_gap(found_ns):
            resumed_ns, gap_ns = now_ns, found_ns
            for job in jobs:
                give_time(connection, job, found_ns, now_ns)
                connection.execute(_SINCE, {"gap_ns": found_ns, "rollout": job.id})
        values = {"id": 1, "ticked_ns": now_ns, "resumed_ns": resumed_ns, "gap_ns": gap_ns}
        connection.execute(_KEEP, values)
    if gap and jobs:
        told = "rollouts stood still, or the clock was set; devices get their time anew"
        log.say(logging.WARNING, told, s=found_ns // S_NS)
    return found_ns if gap else 0


def _is_gap(passed_ns: int) -> bool:
    return not -GAP_NS <= passed_ns <= GAP_NS


def _held(connection: Connection) -> list[Job]:
    """Live rollouts that can be read; of the others `clock.advance` tells."""
    r, found = t.rollout.c, list[Job]()
    live = select(r.id).where(r.state.in_([s.value for s in LIVE])).order_by(r.id)
    for name in connection.execute(live).scalars().all():
        with suppress(ValueError):
            found += jobs_of(connection, [name], "UPDATE").values()
    return found


def give_time(connection: Connection, job: Job, gap_ns: int, now_ns: int) -> None:
    """Devices under way get their time anew; how long they have had it, and how long a group has held, leaves the gap out."""
    silent_ns = round(job.plan.silent_after_s * S_NS)
    moved = {"gap_ns": gap_ns, "rollout": job.id}
    connection.execute(_GIVE, moved | {"back_ns": min(gap_ns, 0), "now_ns": now_ns, "silent_ns": silent_ns})
    connection.execute(_SOAK, moved)


def absent_before_ns(connection: Connection, plan: Plan, now_ns: int) -> int:
    """Who was not heard of since then is absent."""
    limit_ns = now_ns - round(plan.absent_after_s * S_NS)
    _, resumed_ns, gap_ns = _clock(connection) or (0, 0, 0)
    return limit_ns - max(0, gap_ns) if limit_ns < resumed_ns else limit_ns


def _clock(connection: Connection, held: bool = False) -> tuple[int, int, int] | None:
    c = t.rollout_clock.c
    query = select(c.ticked_ns, c.resumed_ns, c.gap_ns)
    row = connection.execute(query.with_for_update() if held else query).one_or_none()
    return None if row is None else (row.ticked_ns, row.resumed_ns, row.gap_ns)
