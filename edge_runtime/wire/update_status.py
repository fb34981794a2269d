"""What a device says of its updates each time it asks for its assignment: all of its state, so that a lost message loses nothing.

    POST /device/v1/devices/<device>/update
    {v, device, boot_id, hardware, sent_ns, floor: {root, timestamp, snapshot, targets, index}, slots: {<slot set>: {…}}}

answer {assignment: <two lines of `wire.signed`> or null, poll_after_s}. Installed, running and confirmed are told separately:
a device that runs a candidate on trial runs it, and has not confirmed it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from edge_runtime.wire.assignment import ITEMS_LIMIT, SLOT_SET
from edge_runtime.wire.envelope import INT64_MAX, strict_json

VERSION = 1
LIMIT_BYTES = 64 * 1024
TEXT_LIMIT = 500
FLOOR = ("root", "timestamp", "snapshot", "targets", "index")


class UpdateState(Enum):
    """Of the newest assignment of a slot set. REFUSED: it never got as far as a trial."""

    IDLE = "idle"
    DOWNLOADING = "downloading"
    STAGED = "staged"
    TRIAL = "trial"
    CONFIRMED = "confirmed"
    ROLLED_BACK = "rolled_back"
    REFUSED = "refused"


#: the states in which an assignment has come to its end
ENDED = frozenset({UpdateState.CONFIRMED, UpdateState.ROLLED_BACK, UpdateState.REFUSED})


@dataclass(frozen=True)
class SlotStatus:
    """`target`, `sha256`, `rollout` and `counter`: the newest assignment of this slot set that was taken up. `installed`:
    what lies verified in the store beside the confirmed one; `running` and `confirmed`: artifact hashes, "" where there is
    none. `fetched_bytes` of `size_bytes`: the download. `measured`: what the health gate saw (`p99_ms`, `agreement`, …)."""

    state: UpdateState = UpdateState.IDLE
    target: str = ""
    sha256: str = ""
    rollout: str = ""
    counter: int = 0
    installed: str = ""
    running: str = ""
    confirmed: str = ""
    reason: str = ""
    fetched_bytes: int = 0
    size_bytes: int = 0
    since_ns: int = 0
    measured: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class UpdateStatus:
    """`hardware`: the class that artifacts are made for. `floor`: versions below which the device takes nothing."""

    device: str
    boot_id: str
    hardware: str
    sent_ns: int
    floor: Mapping[str, int] = field(default_factory=dict)
    slots: Mapping[str, SlotStatus] = field(default_factory=dict)

    def to_json(self) -> bytes:
        slots = {
            name: {**vars(s), "state": s.state.value, "measured": dict(s.measured)} for name, s in self.slots.items()
        }
        value = {"v": VERSION, **vars(self), "floor": dict(self.floor), "slots": slots}
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def read_status(payload: bytes) -> UpdateStatus:
    """What a device says; ValueError names what is wrong."""
    if len(payload) > LIMIT_BYTES:
        raise ValueError(f"update status of {len(payload)} bytes is over the limit of {LIMIT_BYTES}")
    value = strict_json(payload, "update status")
    if not isinstance(value, dict) or value.pop("v", None) != VERSION:
        raise ValueError(f"update status: expected an object with v = {VERSION}")
    slots, floor = value.get("slots", {}), value.get("floor", {})
    if not isinstance(slots, dict) or len(slots) > ITEMS_LIMIT or not all(SLOT_SET.fullmatch(name) for name in slots):
        raise ValueError(f"update status: slots must be an object of at most {ITEMS_LIMIT} slot sets")
    if not isinstance(floor, dict) or not set(floor) <= set(FLOOR):
        raise ValueError(f"update status: floor may have {', '.join(FLOOR)}")
    for name, number in floor.items():
        _check(f"floor.{name}", number, "int")
    parsed = {name: _slot(name, slot) for name, slot in slots.items()}
    return UpdateStatus(**_fields(UpdateStatus, {**value, "floor": floor, "slots": parsed}, "update status"))


def _slot(name: str, value: Any) -> SlotStatus:
    if not isinstance(value, dict):
        raise ValueError(f"update status: {name}: expected an object")
    try:
        state = UpdateState(value.get("state"))
    except ValueError as error:
        raise ValueError(f"update status: {name}: unknown state {str(value.get('state'))[:40]!r}") from error
    measured = value.get("measured", {})
    if not isinstance(measured, dict) or len(measured) > 32:
        raise ValueError(f"update status: {name}: measured must be an object of at most 32 numbers")
    for key, number in measured.items():
        if type(number) not in (int, float):
            raise ValueError(f"update status: {name}: measured.{key[:40]} must be a number")
    return SlotStatus(**_fields(SlotStatus, {**value, "state": state, "measured": measured}, f"update status: {name}"))


def _fields(kind: type, value: Mapping[str, Any], where: str) -> dict[str, Any]:
    known = {f.name: str(f.type) for f in fields(kind)}
    for name in sorted(set(value) ^ set(known)):
        raise ValueError(f"{where}: {'missing' if name in known else 'unknown'} field {name[:40]}")
    for name, expected in known.items():
        _check(f"{where}: {name}", value[name], expected)
    return dict(value)


def _check(name: str, value: Any, expected: str) -> None:
    if expected == "int" and (type(value) is not int or not 0 <= value <= INT64_MAX):
        raise ValueError(f"{name} must be from 0 to 2**63 - 1, found {str(value)[:40]!r}")
    if expected == "str" and (type(value) is not str or len(value) > TEXT_LIMIT):
        raise ValueError(f"{name} must be a text of at most {TEXT_LIMIT} characters")
