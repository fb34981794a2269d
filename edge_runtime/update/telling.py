"""What is told of a slot set: to the cloud with each question (`wire.update_status`), and as Events of what changed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edge_runtime.update.records import REASON_LIMIT, Job, SlotRecord
from edge_runtime.wire.update_status import SlotStatus, UpdateState

#: of the Events `update_assigned`, `…_installed`, `…_running`, `…_confirmed`, `…_rolled_back`, `…_refused`
STREAM = "health"


def slot_status(record: SlotRecord, begun: bool, fetched: tuple[int, int] | None, waits: str) -> SlotStatus:
    """`begun`: the candidate runs. `fetched`: bytes of how many. `waits`: why nothing moves, where the record says nothing."""
    job, confirmed = record.job, record.confirmed.sha256 if record.confirmed else ""
    told = SlotStatus(record.state, running=confirmed, confirmed=confirmed)
    if job is None:
        return told
    release = job.release
    held = record.state in (UpdateState.STAGED, UpdateState.TRIAL)
    fetched_bytes, size_bytes = fetched or (job.size_bytes, job.size_bytes)
    return replace(
        told,
        target=release.target,
        sha256=release.sha256,
        rollout=job.rollout,
        counter=job.counter,
        installed=release.sha256 if held else "",
        running=release.sha256 if begun else confirmed,
        reason=job.reason or waits[:REASON_LIMIT],
        fetched_bytes=fetched_bytes if record.state is not UpdateState.REFUSED else 0,
        size_bytes=size_bytes,
        since_ns=job.since_ns,
        measured=job.measured,
    )


def event_body(slot_set: str, job: Job) -> Mapping[str, object]:
    release = job.release
    return {
        "slot_set": slot_set, "target": release.target, "sha256": release.sha256, "bundle_digest": release.digest,
        "rollout": job.rollout, "counter": job.counter, "reason": job.reason, "measured": dict(job.measured),
    }  # fmt: skip
