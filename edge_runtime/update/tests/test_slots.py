"""Slots: the table, walked; the record, written and damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import BundleError
from edge_runtime.update import slots
from edge_runtime.update.slots import NAMES, TABLE, Slot, SlotInput, SlotSet, SlotState


@given(st.lists(st.sampled_from(SlotInput), max_size=40))
def test_a_bundle_is_active_only_after_its_trial(inputs: list[SlotInput]) -> None:
    slot = Slot()
    for event in inputs:
        before, slot = slot, slot.after(event)
        if slot.state is SlotState.ACTIVE and before.state is not SlotState.ACTIVE:
            assert (before.state, event) == (SlotState.TRIAL, SlotInput.PASS)
        if slot.state is SlotState.TRIAL and before.state is not SlotState.TRIAL:
            assert (before.state, event) == (SlotState.STAGED, SlotInput.TRY)
        if before.state is SlotState.ACTIVE and slot.state is not SlotState.ACTIVE:
            assert (event, slot.state) == (SlotInput.CLEAR, SlotState.EMPTY)


def test_every_state_is_reachable_and_can_be_left() -> None:
    reached = {SlotState.EMPTY}
    for _ in SlotState:
        reached |= {to for (at, _), to in TABLE.items() if at in reached}
    assert reached == set(SlotState)
    assert {at for (at, _), to in TABLE.items() if at is not to} == set(SlotState)
    assert all(TABLE[s, SlotInput.CLEAR] is SlotState.EMPTY for s in SlotState if s is not SlotState.EMPTY)


records = st.builds(Slot, st.sampled_from(SlotState), st.text(max_size=8), st.text(max_size=8))


@given(records, records, st.sampled_from(["", *NAMES]))
def test_the_record_round_trips(tmp_path_factory: pytest.TempPathFactory, a: Slot, b: Slot, current: str) -> None:
    state = tmp_path_factory.mktemp("state")
    written = SlotSet(state / "slots" / "default", {"A": a, "B": b}, current)
    slots.write(written)
    assert slots.read(state) == written
    assert slots.active(state) == (state / "slots" / "default" / current if current else None)
    assert written.other in NAMES
    assert written.other != current


def test_before_the_first_installation(tmp_path: Path) -> None:
    assert slots.active(tmp_path) is None
    assert slots.read(tmp_path, "shadow").other == "A"
    assert not (tmp_path / "slots").exists()


GOOD = {**{n: {"state": "empty", "digest": "", "reason": ""} for n in NAMES}, "current": ""}


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "3", "{}", "\xff",
        json.dumps({**GOOD, "A": 3}),
        json.dumps({**GOOD, "A": {**GOOD["A"], "state": "asleep"}}),  # type: ignore[dict-item]
        json.dumps({**GOOD, "current": "C"}),
    ],
)  # fmt: skip
def test_a_damaged_record_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "slots" / "default" / "slots.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match="install") as caught:
        slots.read(tmp_path)
    assert str(file) in str(caught.value)
