"""The life of one assignment in one slot set: one table, and pure steps that give the next record.

    state        input      next
    idle         take       downloading    a new assignment; what was confirmed keeps running
    confirmed    take       downloading
    rolled_back  take       downloading
    refused      take       downloading
    downloading  take       downloading    another one in its place
    staged       take       downloading
    downloading  staged     staged         the whole artifact lies verified in the store
    downloading  refuse     refused        cannot be trusted, fetched or unpacked; its hash is refused
    staged       refuse     refused        failed its check before it ever ran
    downloading  drop       idle           the assignment was taken back
    staged       drop       idle
    staged       try        trial          a try is spent before the candidate starts
    trial        try        trial          again after a crash or a power cut, while tries are left
    trial        pass       confirmed      the candidate becomes what is confirmed
    trial        fail       rolled_back    its hash is refused; what was confirmed runs
    confirmed    fail       rolled_back    asked to go back: what was confirmed before runs

An input with no row changes nothing. A refused hash is taken again only by an assignment with a higher counter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum

from edge_runtime.machine import step
from edge_runtime.update.records import REFUSED_LIMIT, Job, SlotRecord
from edge_runtime.wire.update_status import UpdateState as State

TRIES = 3


class Input(Enum):
    TAKE = "take"
    STAGED = "staged"
    REFUSE = "refuse"
    DROP = "drop"
    TRY = "try"
    PASS = "pass"
    FAIL = "fail"


TABLE: Mapping[tuple[State, Input], State] = {
    (State.IDLE, Input.TAKE): State.DOWNLOADING,
    (State.CONFIRMED, Input.TAKE): State.DOWNLOADING,
    (State.ROLLED_BACK, Input.TAKE): State.DOWNLOADING,
    (State.REFUSED, Input.TAKE): State.DOWNLOADING,
    (State.DOWNLOADING, Input.TAKE): State.DOWNLOADING,
    (State.STAGED, Input.TAKE): State.DOWNLOADING,
    (State.DOWNLOADING, Input.STAGED): State.STAGED,
    (State.DOWNLOADING, Input.REFUSE): State.REFUSED,
    (State.STAGED, Input.REFUSE): State.REFUSED,
    (State.DOWNLOADING, Input.DROP): State.IDLE,
    (State.STAGED, Input.DROP): State.IDLE,
    (State.STAGED, Input.TRY): State.TRIAL,
    (State.TRIAL, Input.TRY): State.TRIAL,
    (State.TRIAL, Input.PASS): State.CONFIRMED,
    (State.TRIAL, Input.FAIL): State.ROLLED_BACK,
    (State.CONFIRMED, Input.FAIL): State.ROLLED_BACK,
}


def allowed(record: SlotRecord, event: Input) -> bool:
    """Has the table a row for it; and, for a try, is one left?"""
    has_row = (record.state, event) in TABLE
    return has_row and not (event is Input.TRY and (record.job is None or record.job.tries_left < 1))


def take(record: SlotRecord, job: Job) -> SlotRecord:
    """`job` in the place of the one before; ValueError where its hash is refused, or where a trial runs."""
    if refused(record, job.release.sha256, job.counter):
        raise ValueError(f"{job.release.sha256[:12]} is refused until an assignment after {job.counter}")
    return replace(_after(record, Input.TAKE), job=job)


def refused(record: SlotRecord, sha256: str, counter: int) -> bool:
    """Is this hash refused for an assignment with this counter?"""
    return counter <= record.refused.get(sha256, -1)


def staged(record: SlotRecord) -> SlotRecord:
    return _after(record, Input.STAGED)


def drop(record: SlotRecord) -> SlotRecord:
    return replace(_after(record, Input.DROP), job=None)


def refuse(record: SlotRecord, reason: str, measured: Mapping[str, float] | None = None, now_ns: int = 0) -> SlotRecord:
    return _blame(_after(record, Input.REFUSE), reason, measured, now_ns)


def try_once(record: SlotRecord, now_ns: int = 0) -> SlotRecord:
    """On trial, with one try less; ValueError where none is left."""
    job = _job(record)
    if job.tries_left < 1:
        raise ValueError(f"{job.release.sha256[:12]}: no try is left")
    return replace(_after(record, Input.TRY), job=replace(job, tries_left=job.tries_left - 1, since_ns=now_ns))


def hand_over(record: SlotRecord, now_ns: int = 0) -> SlotRecord:
    """On trial, with all tries left: whoever starts it spends them."""
    job = _job(record)
    return replace(_after(record, Input.TRY), job=replace(job, since_ns=now_ns))


def confirm(record: SlotRecord, measured: Mapping[str, float] | None = None, now_ns: int = 0) -> SlotRecord:
    job, before = _job(record), record.confirmed
    previous = before if before and before.sha256 != job.release.sha256 else record.previous
    job = replace(job, reason="", measured={**job.measured, **(measured or {})}, since_ns=now_ns)
    return replace(_after(record, Input.PASS), job=job, confirmed=job.release, previous=previous)


def roll_back(
    record: SlotRecord, reason: str, measured: Mapping[str, float] | None = None, now_ns: int = 0
) -> SlotRecord:
    """The trial has failed."""
    if record.state is not State.TRIAL:
        raise ValueError(f"roll back: the slot set is {record.state.value}, expected trial")
    return _blame(_after(record, Input.FAIL), reason, measured, now_ns)


def go_back(record: SlotRecord, reason: str, counter: int, now_ns: int = 0) -> SlotRecord:
    """What was confirmed is taken back by assignment `counter`, for what was confirmed before it."""
    gone, to = record.confirmed, record.previous
    if gone is None or to is None or record.state is State.TRIAL:
        raise ValueError("go back: nothing was confirmed before, or a trial runs")
    job = record.job if record.job and record.job.release.sha256 == gone.sha256 else Job(gone)
    record = replace(record, state=State.CONFIRMED, job=replace(job, counter=counter), confirmed=to, previous=None)
    return _blame(_after(record, Input.FAIL), reason, None, now_ns)


def given_up(record: SlotRecord, sha256: str, reason: str, now_ns: int = 0) -> SlotRecord:
    """Who starts releases could not run this one, on trial or confirmed; what was confirmed before it is what counts from now
    on. A release that is neither leaves the record as it is."""
    ours = record.job is not None and record.job.release.sha256 == sha256
    if record.state is State.TRIAL and ours:
        return roll_back(record, reason, None, now_ns)
    if record.confirmed is None or record.confirmed.sha256 != sha256:
        return record
    record = replace(record, confirmed=record.previous, previous=None)
    if not ours:
        return replace(record, refused={**record.refused, sha256: record.refused.get(sha256, 0)})
    return _blame(replace(record, state=State.ROLLED_BACK), reason, None, now_ns)


def _after(record: SlotRecord, event: Input) -> SlotRecord:
    if (record.state, event) not in TABLE:
        raise ValueError(f"{event.value}: the slot set is {record.state.value}, which does not allow it")
    return replace(record, state=step(TABLE, record.state, event))


def _job(record: SlotRecord) -> Job:
    if record.job is None:
        raise ValueError(f"the slot set is {record.state.value} without an assignment")
    return record.job


def _blame(record: SlotRecord, reason: str, measured: Mapping[str, float] | None, now_ns: int) -> SlotRecord:
    """Refuse the hash of the job, until an assignment with a higher counter."""
    job = _job(record)
    others = {sha: n for sha, n in record.refused.items() if sha != job.release.sha256}
    newest = dict(list(others.items())[-(REFUSED_LIMIT - 1) :])
    counter = max(job.counter, record.refused.get(job.release.sha256, 0))
    job = replace(job, reason=reason, measured={**job.measured, **(measured or {})}, since_ns=now_ns)
    return replace(record, job=job, refused={**newest, job.release.sha256: counter})
