"""One device in one rollout: from what it tells to the input of its state, and what it is given. Pure.

- What was told of an earlier try does not count: an end is only taken with the counter of the assignment that this try went out
  with, or a higher one.
- Success is the hash among what is *confirmed*; what runs on trial has not been confirmed.
- Given out is decided by the states of rollout and device together: a device whose rollout is paused gets `stage`, one whose
  rollout was aborted gets nothing or `revert`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cloud.rollout.plan import Plan
from cloud.rollout.states import IN_FLIGHT, DeviceInput, DeviceState, GroupState, RolloutState
from cloud.rollout.window import is_open
from edge_runtime.wire.assignment import Item
from edge_runtime.wire.update_status import SlotStatus, UpdateState, UpdateStatus

S_NS = 1_000_000_000
WORKING = (UpdateState.DOWNLOADING, UpdateState.STAGED, UpdateState.TRIAL)
ABORTED = (RolloutState.ABORTING, RolloutState.ABORTED)
REASON_CHARS = 300
RETRY_LIMIT_S = 86_400.0


@dataclass(frozen=True)
class Artifact:
    """What the offline-signed targets say of the artifact. `hardware` empty or with ``*``: any."""

    target: str
    sha256: str
    index: int = 0
    hardware: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """A rollout, as far as a device has to do with it."""

    id: str
    slot_set: str
    state: RolloutState
    plan: Plan
    artifact: Artifact
    started_ns: int
    changed_ns: int = 0


@dataclass(frozen=True)
class Part:
    """The row of a device in a rollout. `counter`: of the assignment that this try went out with. `offered_ns` 0: never."""

    device: str
    rollout: str
    number: int
    state: DeviceState
    group_state: GroupState
    tries: int = 0
    counter: int = 0
    offered_ns: int = 0
    deadline_ns: int = 0
    next_ns: int = 0
    reason: str = ""


class Heard(NamedTuple):
    input: DeviceInput
    reason: str = ""


def unfit(artifact: Artifact, slot: SlotStatus, status: UpdateStatus) -> str:
    """Why it is not for this device, or ""."""
    if slot.confirmed == artifact.sha256:
        return "already confirmed"
    if artifact.hardware and "*" not in artifact.hardware and status.hardware not in artifact.hardware:
        return f"made for {', '.join(artifact.hardware)}, the device is {status.hardware or 'unknown'}"
    floor = status.floor.get("index", 0)
    return f"index {artifact.index} is below the device's floor {floor}" if artifact.index < floor else ""


def heard(job: Job, part: Part, slot: SlotStatus) -> Heard | None:
    """What the device tells of this rollout; None: nothing new."""
    sha256 = job.artifact.sha256
    newest = slot.sha256 == sha256 and slot.counter >= part.counter > 0
    reverting = job.state in ABORTED and job.plan.on_abort == "revert"
    if reverting and part.state is DeviceState.CONFIRMED and not _holds(slot, sha256):
        return Heard(DeviceInput.CANCEL, "gone back")
    if newest and slot.state is UpdateState.ROLLED_BACK:
        before = "rolled back after it was confirmed" if part.state is DeviceState.CONFIRMED else "rolled back"
        return Heard(DeviceInput.FAILS, _reason(before, slot))
    if _done(job, slot):
        return None if part.state in (DeviceState.CONFIRMED, DeviceState.WAITING) else Heard(DeviceInput.CONFIRMS)
    if part.state is DeviceState.CONFIRMED:
        again = slot.state in WORKING and part.tries < job.plan.tries and job.state not in ABORTED
        if newest and again:
            return Heard(DeviceInput.AGAIN, "has it no more, and takes it again")
        return Heard(DeviceInput.FAILS, _reason("no longer confirmed", slot)) if newest else None
    if newest and slot.state is UpdateState.REFUSED:
        last = part.tries >= job.plan.tries
        return Heard(DeviceInput.FAILS if last else DeviceInput.REFUSES, _reason("refused", slot))
    if newest and slot.state in WORKING:
        return Heard(DeviceInput.WORKS, slot.state.value)
    if job.state in ABORTED and part.state in (*IN_FLIGHT, DeviceState.SILENT):
        return Heard(DeviceInput.CANCEL, "aborted before it began")
    return None


def _done(job: Job, slot: SlotStatus) -> bool:
    installed = job.plan.enough == "installed" and slot.installed == job.artifact.sha256
    return installed or slot.confirmed == job.artifact.sha256


def _reason(what: str, slot: SlotStatus) -> str:
    return f"{what}: {slot.reason}"[:REASON_CHARS] if slot.reason else what


def _holds(slot: SlotStatus, sha256: str) -> bool:
    """It has it, or is on the way to it."""
    return sha256 in (slot.confirmed, slot.running) or (slot.sha256 == sha256 and slot.state in WORKING)


def its_turn(job: Job, part: Part, now_ns: int) -> bool:
    """Whether it is given out now, if there is room in flight."""
    if job.state not in (RolloutState.RUNNING, RolloutState.FINISHED):
        return False
    if part.state is DeviceState.RETRY:
        return now_ns >= part.next_ns
    return part.state is DeviceState.WAITING and part.group_state in (
        GroupState.OPEN,
        GroupState.SOAKING,
        GroupState.DONE,
    )


def item(job: Job, part: Part, slot: SlotStatus, zones: Mapping[str, str], now_ns: int) -> Item | None:
    """What the device is given for this slot set. `zones`: device → its time zone, where one is known."""
    artifact, plan = job.artifact, job.plan
    if job.state in ABORTED:
        back = plan.on_abort == "revert" and part.offered_ns and part.state is not DeviceState.FAILED
        gone = not back or not _holds(slot, artifact.sha256)
        return None if gone else Item(artifact.target, artifact.sha256, job.id, "revert")
    if part.state not in (*IN_FLIGHT, DeviceState.CONFIRMED, DeviceState.SILENT):
        return None
    zone = zones.get(part.device) or plan.groups[part.number].zone or plan.zone
    window = "" if zone else plan.window
    go = "activate"
    if part.state is not DeviceState.CONFIRMED:
        closed = bool(zone) and not is_open(plan.window, zone, now_ns)
        go = "stage" if closed or job.state is RolloutState.PAUSED else "activate"
    return Item(artifact.target, artifact.sha256, job.id, go, window)


def retry_at_ns(plan: Plan, part: Part, now_ns: int) -> int:
    """Back-off: doubled with each try, spread by up to a half by the device's name."""
    pause_s = min(RETRY_LIMIT_S, plan.retry_s * 2.0 ** max(0, part.tries - 1))
    digest = hashlib.sha256(f"{part.rollout}\n{part.device}\n{part.tries}".encode()).digest()
    return now_ns + round(pause_s * (1.0 + digest[0] / 512.0) * S_NS)


def deadline_ns(plan: Plan, offered_ns: int, now_ns: int) -> int:
    """When a device that is in flight and was heard of now counts as silent."""
    return min(now_ns + round(plan.silent_after_s * S_NS), offered_ns + round(plan.stuck_after_s * S_NS))
