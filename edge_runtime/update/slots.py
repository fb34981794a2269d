"""Slots: the A/B places of a bundle. One record a slot set, replaced atomically; the states are one table.

    <state_dir>/slots/<slot set>/A, B      bundle folders
    <state_dir>/slots/<slot set>/slots.json

Only this package writes there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path

from edge_runtime.durable import disk_errors, replace_file
from edge_runtime.errors import BundleError
from edge_runtime.machine import step

NAMES = ("A", "B")


class SlotState(Enum):
    EMPTY = "empty"
    STAGED = "staged"
    TRIAL = "trial"
    ACTIVE = "active"
    REJECTED = "rejected"


class SlotInput(Enum):
    STAGE = "stage"
    TRY = "try"
    PASS = "pass"  # noqa: S105  (an input of the slot machine)
    FAIL = "fail"
    CLEAR = "clear"


TABLE: Mapping[tuple[SlotState, SlotInput], SlotState] = {
    (SlotState.EMPTY, SlotInput.STAGE): SlotState.STAGED,
    (SlotState.REJECTED, SlotInput.STAGE): SlotState.STAGED,
    (SlotState.STAGED, SlotInput.STAGE): SlotState.STAGED,
    (SlotState.TRIAL, SlotInput.STAGE): SlotState.STAGED,
    (SlotState.STAGED, SlotInput.TRY): SlotState.TRIAL,
    (SlotState.TRIAL, SlotInput.PASS): SlotState.ACTIVE,
    (SlotState.TRIAL, SlotInput.FAIL): SlotState.REJECTED,
    (SlotState.STAGED, SlotInput.FAIL): SlotState.REJECTED,
    (SlotState.ACTIVE, SlotInput.CLEAR): SlotState.EMPTY,
    (SlotState.REJECTED, SlotInput.CLEAR): SlotState.EMPTY,
    (SlotState.STAGED, SlotInput.CLEAR): SlotState.EMPTY,
    (SlotState.TRIAL, SlotInput.CLEAR): SlotState.EMPTY,
}


@dataclass(frozen=True)
class Slot:
    state: SlotState = SlotState.EMPTY
    digest: str = ""
    reason: str = ""

    def after(self, event: SlotInput, reason: str = "") -> Slot:
        return replace(self, state=step(TABLE, self.state, event), reason=reason)


@dataclass(frozen=True)
class SlotSet:
    """`current` names the slot that runs ("" before the first installation); the other one is kept for rollback."""

    folder: Path
    slots: Mapping[str, Slot]
    current: str = ""

    @property
    def other(self) -> str:
        return "B" if self.current == "A" else "A"

    def path(self, name: str) -> Path:
        return self.folder / name

    def with_slot(self, name: str, slot: Slot, current: str | None = None) -> SlotSet:
        slots = {**self.slots, name: slot}
        return replace(self, slots=slots, current=self.current if current is None else current)


def read(state_dir: Path, slot_set: str = "default") -> SlotSet:
    """The record; BundleError if it is damaged."""
    folder = state_dir / "slots" / slot_set
    file = folder / "slots.json"
    empty = SlotSet(folder, {name: Slot() for name in NAMES})
    if not file.exists():
        return empty
    try:
        data = json.loads(file.read_text())
        slots = {n: Slot(SlotState(data[n]["state"]), data[n]["digest"], data[n]["reason"]) for n in NAMES}
        current = str(data["current"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{file}: the slot record is damaged ({error}); remove it and install the bundle again"
        ) from error
    if current not in ("", *NAMES):
        raise BundleError(f"{file}: current slot is {current!r}, expected A or B; remove the file and install again")
    return SlotSet(folder, slots, current)


def write(slots: SlotSet) -> None:
    data = {n: {**asdict(s), "state": s.state.value} for n, s in slots.slots.items()}
    with disk_errors(slots.folder):
        slots.folder.mkdir(parents=True, exist_ok=True)
    replace_file(slots.folder / "slots.json", json.dumps({**data, "current": slots.current}, indent=1).encode())


def active(state_dir: Path, slot_set: str = "default") -> Path | None:
    """The folder of the bundle that runs, or None before the first installation."""
    slots = read(state_dir, slot_set)
    return slots.path(slots.current) if slots.current else None
