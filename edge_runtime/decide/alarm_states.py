"""The states of an alarm, after ISA-18.2: one table, printed in docs/explain/alarms.md and walked by a property test.

state            condition   the operator
normal           absent
unacknowledged   present     has not seen it
acknowledged     present     has seen it
returned         absent      has not seen that it was there
shelved          either      has put it aside for a while
suppressed       either      is not to be bothered: the machine does not run
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum


class Severity(IntEnum):
    """How soon somebody must act."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


MEANING: Mapping[Severity, str] = {
    Severity.CRITICAL: "act now",
    Severity.HIGH: "act within 24 hours",
    Severity.MEDIUM: "act within a week",
    Severity.LOW: "watch",
}
NAMES: Mapping[str, Severity] = {severity.name.lower(): severity for severity in Severity}


class AlarmState(Enum):
    NORMAL = "normal"
    UNACKNOWLEDGED = "unacknowledged"
    ACKNOWLEDGED = "acknowledged"
    RETURNED = "returned"
    SHELVED = "shelved"
    SUPPRESSED = "suppressed"


class AlarmInput(Enum):
    """`RAISE`, `ESCALATE` and `CLEAR` come after their delays; `RESUME_ON` and `RESUME_OFF` end shelving and suppression,
    with the condition present or absent."""

    RAISE = "raise"
    ESCALATE = "escalate"
    CLEAR = "clear"
    ACK = "ack"
    SHELVE = "shelve"
    SUPPRESS = "suppress"
    RESUME_ON = "resume on"
    RESUME_OFF = "resume off"


_S, _I = AlarmState, AlarmInput
TABLE: Mapping[tuple[AlarmState, AlarmInput], AlarmState] = {
    (_S.NORMAL, _I.RAISE): _S.UNACKNOWLEDGED,
    (_S.NORMAL, _I.SHELVE): _S.SHELVED,
    (_S.NORMAL, _I.SUPPRESS): _S.SUPPRESSED,
    (_S.UNACKNOWLEDGED, _I.CLEAR): _S.RETURNED,
    (_S.UNACKNOWLEDGED, _I.ACK): _S.ACKNOWLEDGED,
    (_S.UNACKNOWLEDGED, _I.SHELVE): _S.SHELVED,
    (_S.UNACKNOWLEDGED, _I.SUPPRESS): _S.SUPPRESSED,
    (_S.ACKNOWLEDGED, _I.ESCALATE): _S.UNACKNOWLEDGED,
    (_S.ACKNOWLEDGED, _I.CLEAR): _S.NORMAL,
    (_S.ACKNOWLEDGED, _I.SHELVE): _S.SHELVED,
    (_S.ACKNOWLEDGED, _I.SUPPRESS): _S.SUPPRESSED,
    (_S.RETURNED, _I.RAISE): _S.UNACKNOWLEDGED,
    (_S.RETURNED, _I.ACK): _S.NORMAL,
    (_S.RETURNED, _I.SHELVE): _S.SHELVED,
    (_S.RETURNED, _I.SUPPRESS): _S.SUPPRESSED,
    (_S.SHELVED, _I.RESUME_ON): _S.UNACKNOWLEDGED,
    (_S.SHELVED, _I.RESUME_OFF): _S.NORMAL,
    (_S.SUPPRESSED, _I.RESUME_ON): _S.UNACKNOWLEDGED,
    (_S.SUPPRESSED, _I.RESUME_OFF): _S.NORMAL,
    (_S.SUPPRESSED, _I.SHELVE): _S.SHELVED,
}

#: states in which an operator may do this
ALLOWED: Mapping[AlarmInput, frozenset[AlarmState]] = {
    action: frozenset(state for state, event in TABLE if event is action) for action in (_I.ACK, _I.SHELVE)
} | {_I.RESUME_ON: frozenset({_S.SHELVED})}
