"""The states of a rollout, of each of its groups and of each device in it: three enums, three tables.

- Every action may be repeated: what it leads to already is so, and the same answer comes.
- PAUSED: nothing is begun; what is under way is staged and waits. ABORTING: nothing is begun, what was given out is taken back;
  ABORTED when no device is under way any more.
- A rollout that is FINISHED still holds for devices that come late, and can still be aborted.
- `confirmed` is not the end of a device: one that goes back later has FAILED; one that has nothing of it any more, because the
  board was replaced or wiped, takes it again, as often as it may be tried.
- SILENT counts as failed until the device speaks again. It stays so while it works: only an end takes it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class RolloutState(Enum):
    DRAFT = "draft"
    WAITING_APPROVAL = "waiting_approval"
    RUNNING = "running"
    PAUSED = "paused"
    ABORTING = "aborting"
    ABORTED = "aborted"
    FINISHED = "finished"


class RolloutInput(Enum):
    START = "start"
    ASK_APPROVAL = "start, approval is wanted"
    APPROVE = "approve"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    DRAINED = "no device is under way"
    COMPLETE = "all groups are done"


class GroupState(Enum):
    WAITING = "waiting"
    OPEN = "open"
    SOAKING = "soaking"
    DONE = "done"
    FAILED = "failed"


class GroupInput(Enum):
    BEGIN = "the group before is done"
    REACHED = "success threshold reached"
    FELL = "below the success threshold"
    SOAKED = "soak time is over"
    HOPELESS = "success threshold out of reach"


class DeviceState(Enum):
    """WAITING: its group is not open, or its turn has not come. OFFERED: the assignment went out. WORKING: the device has
    taken it up. RETRY: it refused, and gets it once more after a pause. SKIPPED: not for this device. CANCELLED: the rollout
    ended before it did."""

    WAITING = "waiting"
    OFFERED = "offered"
    WORKING = "working"
    RETRY = "retry"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    SILENT = "silent"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class DeviceInput(Enum):
    OFFER = "its turn"
    WORKS = "tells downloading, staged or trial"
    CONFIRMS = "tells it confirmed"
    AGAIN = "has it no more, and takes it again"
    REFUSES = "refused, tries are left"
    FAILS = "rolled back, or refused for the last time"
    TIMEOUT = "not heard of, or no end, for too long"
    SKIP = "not for this device"
    CANCEL = "aborted"


_R, _I = RolloutState, RolloutInput
ROLLOUT: Mapping[tuple[RolloutState, RolloutInput], RolloutState] = {
    (_R.DRAFT, _I.START): _R.RUNNING,
    (_R.DRAFT, _I.ASK_APPROVAL): _R.WAITING_APPROVAL,
    (_R.DRAFT, _I.ABORT): _R.ABORTED,
    (_R.WAITING_APPROVAL, _I.ASK_APPROVAL): _R.WAITING_APPROVAL,
    (_R.WAITING_APPROVAL, _I.APPROVE): _R.RUNNING,
    (_R.WAITING_APPROVAL, _I.ABORT): _R.ABORTED,
    (_R.RUNNING, _I.START): _R.RUNNING,
    (_R.RUNNING, _I.APPROVE): _R.RUNNING,
    (_R.RUNNING, _I.PAUSE): _R.PAUSED,
    (_R.RUNNING, _I.RESUME): _R.RUNNING,
    (_R.RUNNING, _I.ABORT): _R.ABORTING,
    (_R.RUNNING, _I.COMPLETE): _R.FINISHED,
    (_R.PAUSED, _I.PAUSE): _R.PAUSED,
    (_R.PAUSED, _I.RESUME): _R.RUNNING,
    (_R.PAUSED, _I.ABORT): _R.ABORTING,
    (_R.ABORTING, _I.ABORT): _R.ABORTING,
    (_R.ABORTING, _I.DRAINED): _R.ABORTED,
    (_R.ABORTED, _I.ABORT): _R.ABORTED,
    (_R.FINISHED, _I.ABORT): _R.ABORTING,
}

_G, _J = GroupState, GroupInput
GROUP: Mapping[tuple[GroupState, GroupInput], GroupState] = {
    (_G.WAITING, _J.BEGIN): _G.OPEN,
    (_G.OPEN, _J.REACHED): _G.SOAKING,
    (_G.OPEN, _J.HOPELESS): _G.FAILED,
    (_G.SOAKING, _J.FELL): _G.OPEN,
    (_G.SOAKING, _J.SOAKED): _G.DONE,
    (_G.SOAKING, _J.HOPELESS): _G.FAILED,
}

_D, _E = DeviceState, DeviceInput
DEVICE: Mapping[tuple[DeviceState, DeviceInput], DeviceState] = {
    (_D.WAITING, _E.OFFER): _D.OFFERED,
    (_D.WAITING, _E.SKIP): _D.SKIPPED,
    (_D.WAITING, _E.CANCEL): _D.CANCELLED,
    **{
        (state, event): after
        for state in (_D.OFFERED, _D.WORKING)
        for event, after in {
            _E.WORKS: _D.WORKING,
            _E.CONFIRMS: _D.CONFIRMED,
            _E.REFUSES: _D.RETRY,
            _E.FAILS: _D.FAILED,
            _E.TIMEOUT: _D.SILENT,
            _E.CANCEL: _D.CANCELLED,
        }.items()
    },
    (_D.RETRY, _E.OFFER): _D.OFFERED,
    (_D.RETRY, _E.CONFIRMS): _D.CONFIRMED,
    (_D.RETRY, _E.FAILS): _D.FAILED,
    (_D.RETRY, _E.TIMEOUT): _D.SILENT,
    (_D.RETRY, _E.CANCEL): _D.CANCELLED,
    (_D.CONFIRMED, _E.AGAIN): _D.WORKING,
    (_D.CONFIRMED, _E.FAILS): _D.FAILED,
    (_D.CONFIRMED, _E.CANCEL): _D.CANCELLED,
    (_D.SILENT, _E.CONFIRMS): _D.CONFIRMED,
    (_D.SILENT, _E.REFUSES): _D.FAILED,
    (_D.SILENT, _E.FAILS): _D.FAILED,
    (_D.SILENT, _E.CANCEL): _D.CANCELLED,
    (_D.FAILED, _E.CONFIRMS): _D.CONFIRMED,
    (_D.CANCELLED, _E.CONFIRMS): _D.CONFIRMED,
}

#: rollouts of which a device is in one at most for each slot set
LIVE = frozenset({_R.RUNNING, _R.PAUSED, _R.ABORTING})
#: rollouts that are looked at by the clock
STEPPED = frozenset({_R.RUNNING, _R.PAUSED, _R.ABORTING, _R.FINISHED})
#: given out, and no end yet: what `max_in_flight` bounds
IN_FLIGHT = frozenset({_D.OFFERED, _D.WORKING})
#: counted as a success or a failure
EXECUTED = frozenset({_D.CONFIRMED, _D.FAILED, _D.SILENT})
FAILURES = frozenset({_D.FAILED, _D.SILENT})
#: the group has these as members to wait for
OPEN_ENDED = frozenset({_D.WAITING, _D.OFFERED, _D.WORKING, _D.RETRY})


def action_allowed(state: RolloutState, action: RolloutInput) -> bool:
    return (state, action) in ROLLOUT
