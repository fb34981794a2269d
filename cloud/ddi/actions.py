"""One action of a device: its states, and the step that each message makes. Pure.

OPEN       offered, nothing heard of it
RUNNING    the device works on it
CANCELING  withdrawn; the device is asked to stop
KEPT       the device would not stop; it works on
INSTALLED  the device says that it is installed
FAILED     the device says that it failed
CANCELED   the device has stopped, or never began, or said nothing for so long that nobody waits for it any more
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from edge_runtime.wire.update_status import UpdateState


class State(Enum):
    OPEN = "open"
    RUNNING = "running"
    CANCELING = "canceling"
    KEPT = "kept"
    INSTALLED = "installed"
    FAILED = "failed"
    CANCELED = "canceled"


class Input(Enum):
    PROCEED = "proceed"
    SUCCEED = "succeed"
    FAIL = "fail"
    WITHDRAW = "withdraw"
    STOP = "stop"
    REFUSE_STOP = "refuse_stop"
    GIVE_UP = "give_up"


TABLE: Mapping[tuple[State, Input], State] = {
    (State.OPEN, Input.PROCEED): State.RUNNING,
    (State.OPEN, Input.SUCCEED): State.INSTALLED,
    (State.OPEN, Input.FAIL): State.FAILED,
    (State.OPEN, Input.WITHDRAW): State.CANCELING,
    (State.RUNNING, Input.SUCCEED): State.INSTALLED,
    (State.RUNNING, Input.FAIL): State.FAILED,
    (State.RUNNING, Input.WITHDRAW): State.CANCELING,
    (State.CANCELING, Input.SUCCEED): State.INSTALLED,  # it was done before it heard of it
    (State.CANCELING, Input.FAIL): State.FAILED,
    (State.CANCELING, Input.STOP): State.CANCELED,
    (State.CANCELING, Input.REFUSE_STOP): State.KEPT,
    (State.CANCELING, Input.GIVE_UP): State.CANCELED,  # there are clients that know of no cancelAction
    (State.CANCELED, Input.SUCCEED): State.INSTALLED,  # it was not stopped: what it runs is what counts
    (State.KEPT, Input.SUCCEED): State.INSTALLED,
    (State.KEPT, Input.FAIL): State.FAILED,
}

ACTIVE = frozenset({State.OPEN, State.RUNNING, State.CANCELING, State.KEPT})
#: what says of an action that has ended only what is known; anything else is too late
SAID_AGAIN = frozenset({(State.INSTALLED, Input.SUCCEED), (State.FAILED, Input.FAIL), (State.CANCELED, Input.STOP)})

#: what a rollout is told of it
TOLD: Mapping[State, UpdateState] = {
    State.OPEN: UpdateState.IDLE,
    State.RUNNING: UpdateState.DOWNLOADING,
    State.CANCELING: UpdateState.DOWNLOADING,
    State.KEPT: UpdateState.DOWNLOADING,
    State.INSTALLED: UpdateState.STAGED,
    State.FAILED: UpdateState.REFUSED,
    State.CANCELED: UpdateState.IDLE,
}

#: (execution, finished) of a feedback to a deployment → input; "" stands for any `finished`
_DEPLOYMENT: Mapping[tuple[str, str], Input] = {
    ("closed", "success"): Input.SUCCEED,
    ("closed", "none"): Input.SUCCEED,  # hawkBit takes it so, too
    ("closed", "failure"): Input.FAIL,
    ("proceeding", ""): Input.PROCEED,
    ("scheduled", ""): Input.PROCEED,
    ("resumed", ""): Input.PROCEED,
    ("download", ""): Input.PROCEED,
    ("downloaded", ""): Input.PROCEED,
    ("rejected", ""): Input.FAIL,
    ("canceled", ""): Input.FAIL,
}
_CANCEL: Mapping[tuple[str, str], Input] = {
    ("closed", "success"): Input.STOP,
    ("closed", "none"): Input.STOP,
    ("canceled", ""): Input.STOP,
    ("closed", "failure"): Input.REFUSE_STOP,
    ("rejected", ""): Input.REFUSE_STOP,
}


def heard(execution: str, finished: str, of_cancel: bool) -> Input | None:
    """What a feedback says; None where it changes nothing. ValueError where it is not one of the protocol."""
    table = _CANCEL if of_cancel else _DEPLOYMENT
    found = table.get((execution, finished)) or table.get((execution, ""))
    if found is None and (execution, "") not in _DEPLOYMENT:
        raise ValueError(
            f"status.execution {execution[:40]!r} with result.finished {finished[:40]!r} is not of the protocol"
        )
    return found


@dataclass(frozen=True)
class Action:
    """`sha256`, `sha1` and `md5` are those of the file; `counter`: of the
    newest assignment that asked for it; `done` of `of`: the device's own count of its progress."""

    id: int
    device: str
    target: str
    sha256: str
    sha1: str
    md5: str
    size_bytes: int
    rollout: str
    counter: int
    state: State
    details: str = ""
    done: int = 0
    of: int = 0
    created_ns: int = 0
    updated_ns: int = 0

    @property
    def name(self) -> str:
        return self.target.split("/")[1]

    @property
    def version(self) -> str:
        return self.target.split("/")[2].rsplit(".", 1)[0]

    @property
    def filename(self) -> str:
        """As clients see it: SWUpdate takes only what ends in `.swu`."""
        return f"{self.name}-{self.target.split('/')[2]}"
