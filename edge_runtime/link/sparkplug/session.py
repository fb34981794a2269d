"""The session of an edge node: which state it is in, and what it does on each input. Pure.

state         meaning
offline       no connection
connecting    CONNECT was sent, with the will NDEATH
subscribing   accepted; commands and the primary host's STATE are being subscribed
waiting       subscribed; the primary host is not known to be online
born          NBIRTH was sent: data may flow

Without a primary host the shell says `host online` as soon as it is subscribed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

from edge_runtime.machine import step

SEQ_MODULUS = 256
STATE_LIMIT_BYTES = 4096


class State(Enum):
    OFFLINE = "offline"
    CONNECTING = "connecting"
    SUBSCRIBING = "subscribing"
    WAITING = "waiting"
    BORN = "born"


class Input(Enum):
    CONNECT = "CONNECT sent"
    ACCEPTED = "accepted"
    SUBSCRIBED = "subscribed"
    HOST_ONLINE = "host online"
    HOST_OFFLINE = "host offline"
    REBIRTH = "rebirth wanted"
    LOST = "connection lost"


class Action(Enum):
    SUBSCRIBE = "subscribe"
    BIRTH = "birth"
    LEAVE = "NDEATH, DISCONNECT"


#: (state, input) → state; an input with no row changes nothing
TABLE: Mapping[tuple[State, Input], State] = {
    (State.OFFLINE, Input.CONNECT): State.CONNECTING,
    (State.CONNECTING, Input.ACCEPTED): State.SUBSCRIBING,
    (State.CONNECTING, Input.LOST): State.OFFLINE,
    (State.SUBSCRIBING, Input.SUBSCRIBED): State.WAITING,
    (State.SUBSCRIBING, Input.LOST): State.OFFLINE,
    (State.WAITING, Input.HOST_ONLINE): State.BORN,
    (State.WAITING, Input.LOST): State.OFFLINE,
    (State.BORN, Input.HOST_OFFLINE): State.OFFLINE,
    (State.BORN, Input.LOST): State.OFFLINE,
}

#: (state before, input) → what is to be done
ACTIONS: Mapping[tuple[State, Input], Action] = {
    (State.CONNECTING, Input.ACCEPTED): Action.SUBSCRIBE,
    (State.WAITING, Input.HOST_ONLINE): Action.BIRTH,
    (State.BORN, Input.REBIRTH): Action.BIRTH,
    (State.BORN, Input.HOST_OFFLINE): Action.LEAVE,
}


def advance(state: State, event: Input) -> tuple[State, Action | None]:
    return step(TABLE, state, event), ACTIONS.get((state, event))


class LineState(Enum):
    DEAD = "dead"
    BORN = "born"


class LineInput(Enum):
    SEEN = "signs of life"
    GONE = "no signs of life"
    NODE_GONE = "the node's session ended"


class LineAction(Enum):
    BIRTH = "DBIRTH"
    DEATH = "DDEATH"


LINE_TABLE: Mapping[tuple[LineState, LineInput], LineState] = {
    (LineState.DEAD, LineInput.SEEN): LineState.BORN,
    (LineState.BORN, LineInput.GONE): LineState.DEAD,
    (LineState.BORN, LineInput.NODE_GONE): LineState.DEAD,
}

LINE_ACTIONS: Mapping[tuple[LineState, LineInput], LineAction] = {
    (LineState.DEAD, LineInput.SEEN): LineAction.BIRTH,
    (LineState.BORN, LineInput.GONE): LineAction.DEATH,
}


def advance_line(state: LineState, event: LineInput) -> tuple[LineState, LineAction | None]:
    return step(LINE_TABLE, state, event), LINE_ACTIONS.get((state, event))


def after(number: int) -> int:
    """The next `seq` or `bdSeq`: 0 to 255, then 0 again."""
    return (number + 1) % SEQ_MODULUS


class PrimaryHost:
    """What the primary host says of itself. A message older than one already seen is none: a will may come late."""

    def __init__(self) -> None:
        self._timestamp_ms = -1
        self.online = False

    def see(self, payload: bytes) -> bool:
        """True where it counts; ValueError where it is no STATE message."""
        online, timestamp_ms = read_state(payload)
        if timestamp_ms < self._timestamp_ms:
            return False
        self._timestamp_ms, self.online = timestamp_ms, online
        return True

    def forget(self) -> None:
        """A new connection: it is told again by the retained message. The time it was last seen at stays."""
        self.online = False


def read_state(payload: bytes) -> tuple[bool, int]:
    if len(payload) > STATE_LIMIT_BYTES:
        raise ValueError(f"STATE of {len(payload)} bytes is over the limit of {STATE_LIMIT_BYTES}")
    try:
        value: Any = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"STATE is not JSON: {error}") from error
    online, timestamp_ms = (value.get("online"), value.get("timestamp")) if isinstance(value, dict) else (None, None)
    if type(online) is not bool or type(timestamp_ms) is not int or timestamp_ms < 0:
        raise ValueError('STATE: expected {"online": true or false, "timestamp": milliseconds}')
    return online, timestamp_ms
