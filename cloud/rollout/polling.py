"""The answer to devices that tell their state and ask what to run: for any number of them in one transaction.

- What a device tells is kept, then moves it in its rollouts; then those whose turn it is get theirs, as long as there is room
  in flight. On PostgreSQL who gives something out holds the rollout, so that `max_in_flight` holds however many ask at once.
- A device gets an assignment from the first time on that something is asked of it, also when nothing is asked any more: taken
  back is told, too. Its counter rises when its content changes, above all that the device has seen.
- What has not changed is signed again when half of its time is over, with the same counter.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, text

from cloud.rollout.fleet import hear, writing, zones_of
from cloud.rollout.judge import judge
from cloud.rollout.offer import Heard, Job, Part, deadline_ns, heard, item, its_turn, retry_at_ns, unfit
from cloud.rollout.registry import Registry, offers
from cloud.rollout.rows import KEEP_ASSIGNMENT, Change, close, jobs_of, parts_of, write_parts
from cloud.rollout.shown import groups_now
from cloud.rollout.states import DEVICE, IN_FLIGHT, DeviceInput, DeviceState, RolloutInput
from cloud.store.database import is_postgresql, lock, wanted
from edge_runtime.machine import step
from edge_runtime.wire.assignment import Item
from edge_runtime.wire.update_status import SlotStatus, UpdateStatus

S_NS = 1_000_000_000
NO_BOUND = 2**31
COUNTER_LIMIT = 2**62
LIFE_NS = 24 * 3600 * S_NS


class Pace(NamedTuple):
    """How soon a device asks again: one that is in flight, one whose turn it is but for which there is no room, and others."""

    busy_s: int = 20
    waiting_s: int = 120
    idle_s: int = 300


PACE = Pace()


class Answer(NamedTuple):
    """`assignment`: its two lines, None where nothing was ever asked of the device."""

    assignment: str | None
    poll_after_s: int

    def to_json(self) -> bytes:
        return json.dumps(self._asdict(), separators=(",", ":")).encode()


@dataclass
class _Seat:
    """One device that asks. `counter`: of its next assignment, if there is one. `given`: something is given out now."""

    status: UpdateStatus
    counter: int
    before: Mapping[str, Any] | None = None
    parts: list[Part] = field(default_factory=list)
    given: bool = False

    def slot(self, job: Job) -> SlotStatus:
        return self.status.slots.get(job.slot_set) or SlotStatus()


def answer(
    engine: Engine, statuses: Iterable[UpdateStatus], registry: Registry, now_ns: int, pace: Pace = PACE
) -> dict[str, Answer]:
    """device → its answer. Of two states of one device the later counts."""
    by_device = {status.device: status for status in statuses}
    if not by_device:
        return {}
    with writing(engine).begin() as connection:
        lock(connection, set(by_device), alone=False)
        jobs, parts = _jobs(connection, by_device, now_ns)
        hear(connection, by_device.values(), now_ns)
        seats = _seats(connection, by_device, parts, now_ns)
        write_parts(connection, [c for seat in seats for c in _listen(seat, jobs, now_ns)], now_ns)
        _give_out(connection, seats, jobs, now_ns)
        return _assign(connection, seats, jobs, registry, pace, now_ns)


def _jobs(connection: Connection, devices: Iterable[str], now_ns: int) -> tuple[dict[str, Job], list[Part]]:
    """Those of these devices, held: by this transaction alone where something may be given out."""
    parts = parts_of(connection, devices)
    if not is_postgresql(connection):
        return jobs_of(connection, {p.rollout for p in parts}), parts
    jobs = jobs_of(connection, {p.rollout for p in parts})
    turns = any(its_turn(jobs[p.rollout], p, now_ns) for p in parts)
    held = jobs_of(connection, jobs, "NO KEY UPDATE" if turns else "SHARE")
    return held, parts_of(connection, devices)


def _seats(
    connection: Connection, by_device: Mapping[str, UpdateStatus], parts: Sequence[Part], now_ns: int
) -> list[_Seat]:
    table = wanted(connection, "device")
    query = text(f"SELECT a.* FROM assignment a JOIN {table.table} w ON w.device = a.device")
    before = {r["device"]: dict(r) for r in connection.execute(query, table.values([d] for d in by_device)).mappings()}
    of_device: dict[str, list[Part]] = defaultdict(list)
    for part in parts:
        of_device[part.device].append(part)
    seats = []
    for device, status in by_device.items():
        last = before.get(device)
        seen = _seen(status)
        # rises with the time, also for a cloud that began anew
        counter = max(last["counter"] if last else now_ns // S_NS, seen) + 1
        seats.append(_Seat(status, counter, last, of_device[device]))
    return seats


def _seen(status: UpdateStatus) -> int:
    """The highest counter that the device tells; one that no cloud ever gave out is its own matter."""
    return max((slot.counter for slot in status.slots.values() if slot.counter < COUNTER_LIMIT), default=0)


def _listen(seat: _Seat, jobs: Mapping[str, Job], now_ns: int) -> list[Change]:
    """What the device tells moves its parts."""
    changes = []
    for i, part in enumerate(seat.parts):
        job = jobs[part.rollout]
        after = _heard(job, part, heard(job, part, seat.slot(job)), now_ns)
        if after != part:
            seat.parts[i] = after
            changes.append(Change(after, job.slot_set, after.state is not part.state))
    return changes


def _heard(job: Job, part: Part, told: Heard | None, now_ns: int) -> Part:
    state = step(DEVICE, part.state, told.input) if told else part.state
    if told and state is not part.state:
        part = replace(part, state=state, reason=told.reason)
        if told.input is DeviceInput.AGAIN:
            part = replace(part, tries=part.tries + 1, offered_ns=now_ns)
        if state is DeviceState.RETRY:
            part = replace(part, next_ns=retry_at_ns(job.plan, part, now_ns))
    if state in IN_FLIGHT:
        return replace(part, deadline_ns=deadline_ns(job.plan, part.offered_ns, now_ns))
    if state is DeviceState.RETRY:
        return replace(part, deadline_ns=max(part.next_ns, now_ns) + round(job.plan.silent_after_s * S_NS))
    return part


def _give_out(connection: Connection, seats: Sequence[_Seat], jobs: Mapping[str, Job], now_ns: int) -> None:
    turns = [(s, p, jobs[p.rollout]) for s in seats for p in s.parts if its_turn(jobs[p.rollout], p, now_ns)]
    if not turns:
        return
    room = _room(connection, {job.id: job for _, _, job in turns}, now_ns)
    changes, closed = [], list[Part]()
    for seat, part, job in sorted(turns, key=lambda turn: turn[2].started_ns, reverse=True):
        if _newer_speaks(seat, job, jobs):
            continue
        why = unfit(job.artifact, seat.slot(job), seat.status)
        if why:
            event = DeviceInput.SKIP if part.state is DeviceState.WAITING else DeviceInput.FAILS
            after = replace(part, state=step(DEVICE, part.state, event), reason=why)
        elif room[job.id] > 0:
            room[job.id] -= 1
            seat.given = True
            after = _offered(job, part, seat.counter, now_ns)
            ended, old = _superseded(seat, job, jobs)
            changes += ended
            closed += old
        else:
            continue
        seat.parts[seat.parts.index(part)] = after
        changes.append(Change(after, job.slot_set))
    write_parts(connection, changes, now_ns)
    close(connection, closed)


def _offered(job: Job, part: Part, counter: int, now_ns: int) -> Part:
    part = replace(part, state=step(DEVICE, part.state, DeviceInput.OFFER), reason="", tries=part.tries + 1)
    return replace(part, counter=counter, offered_ns=now_ns, deadline_ns=deadline_ns(job.plan, now_ns, now_ns))


def _newer_speaks(seat: _Seat, job: Job, jobs: Mapping[str, Job]) -> bool:
    return any(
        jobs[p.rollout].slot_set == job.slot_set and jobs[p.rollout].started_ns > job.started_ns for p in seat.parts
    )


def _superseded(seat: _Seat, job: Job, jobs: Mapping[str, Job]) -> tuple[list[Change], list[Part]]:
    """The parts of older rollouts of the same slot set have nothing to say any more."""
    old = [p for p in seat.parts if p.rollout != job.id and jobs[p.rollout].slot_set == job.slot_set]
    if not old:
        return [], []
    seat.parts = [p for p in seat.parts if p not in old]
    ended = [p for p in old if p.state is not DeviceState.CONFIRMED]
    after = [
        replace(p, state=step(DEVICE, p.state, DeviceInput.CANCEL), reason=f"rollout {job.id} came") for p in ended
    ]
    changed = [a for a, p in zip(after, ended, strict=True) if a.state is not p.state]
    return [Change(part, job.slot_set) for part in changed], old


def _room(connection: Connection, jobs: Mapping[str, Job], now_ns: int) -> dict[str, int]:
    """How many more may be in flight, by rollout: none where what was heard now says that it must stop."""
    room = {}
    for job in jobs.values():
        groups = groups_now(connection, job, now_ns)
        stops = judge(job.plan, job.state, groups, job.changed_ns, now_ns).input is RolloutInput.ABORT
        most = job.plan.max_in_flight or NO_BOUND
        room[job.id] = 0 if stops else most - sum(now.sum(*IN_FLIGHT) for now in groups)
    return room


# ── the assignment ──────────────────────────────────────────────────────────────────────────────────────────────────


def _assign(
    connection: Connection, seats: Sequence[_Seat], jobs: Mapping[str, Job], registry: Registry, pace: Pace, now_ns: int
) -> dict[str, Answer]:
    zones = zones_of(connection, [seat.status.device for seat in seats])
    answers, rows = {}, []
    for seat in seats:
        found = _items(seat, jobs, zones, now_ns)
        items = {slot_set: item for slot_set, item in found.items() if offers(registry, item)}
        row = _row(seat, items, registry, now_ns)
        if row is not None and row is not seat.before:
            rows.append(row)
        answers[seat.status.device] = Answer(row["message"] if row else None, _soon_s(seat, jobs, pace, now_ns))
    if rows:
        connection.execute(KEEP_ASSIGNMENT, rows)
    return answers


def _soon_s(seat: _Seat, jobs: Mapping[str, Job], pace: Pace, now_ns: int) -> int:
    if any(part.state in IN_FLIGHT for part in seat.parts):
        return pace.busy_s
    turn = any(part.state is DeviceState.RETRY or its_turn(jobs[part.rollout], part, now_ns) for part in seat.parts)
    return pace.waiting_s if turn else pace.idle_s


def _items(seat: _Seat, jobs: Mapping[str, Job], zones: Mapping[str, str], now_ns: int) -> dict[str, Item]:
    """For each slot set what the newest rollout says that says something."""
    found: dict[str, Item] = {}
    for part in sorted(seat.parts, key=lambda p: (jobs[p.rollout].started_ns, p.rollout)):
        job = jobs[part.rollout]
        given = item(job, part, seat.slot(job), zones, now_ns)
        if given is not None:
            found[job.slot_set] = given
    return found


def _row(seat: _Seat, items: Mapping[str, Item], registry: Registry, now_ns: int) -> Mapping[str, Any] | None:
    """The assignment as it is kept: that of before where it still holds."""
    before = seat.before
    content = json.dumps({name: vars(item) for name, item in items.items()}, separators=(",", ":"), sort_keys=True)
    if before is None and not items:
        return None
    seen = _seen(seat.status)
    same = before is not None and before["content"] == content and before["counter"] >= seen and not seat.given
    if before is not None and same and before["expires_ns"] - now_ns > LIFE_NS // 2:
        return before
    counter = before["counter"] if before is not None and same else seat.counter
    message = registry.seal(seat.status.device, counter, items, now_ns, LIFE_NS).decode()
    times = {"counter": counter, "issued_ns": now_ns, "expires_ns": now_ns + LIFE_NS}
    return {"device": seat.status.device, "content": content, "message": message, **times}
