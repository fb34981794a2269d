from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from firmware_sim import packml, registers
from firmware_sim.packml import ACTING, TABLE, Input, State, step

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "plc-handshake.md"


def test_there_are_17_states_and_every_one_can_be_reached_and_left() -> None:
    assert len(State) == 17
    assert set(TABLE.values()) == set(State)
    assert {s for s, _ in TABLE} == set(State)


def test_every_acting_state_ends_by_itself_and_no_other_does() -> None:
    assert {s.title for s in ACTING} == {s.title for s in State if s.title.endswith("ing")}


@given(st.lists(st.sampled_from(Input), max_size=60))
def test_a_walk_never_leaves_the_table_and_the_way_back_to_execute_is_always_open(inputs: list[Input]) -> None:
    state = State.STOPPED
    for given_input in inputs:
        state = step(state, given_input) or state
        assert state in State
    for command in (
        Input.SC,
        Input.ABORT,
        Input.SC,
        Input.CLEAR,
        Input.SC,
        Input.RESET,
        Input.SC,
        Input.START,
        Input.SC,
    ):
        state = step(state, command) or state
    assert state is State.EXECUTE


@given(st.sampled_from(State))
def test_abort_and_stop_work_from_everywhere_that_the_standard_says(state: State) -> None:
    assert step(state, Input.ABORT) in (State.ABORTING, None)
    assert (step(state, Input.ABORT) is None) == (state in (State.ABORTING, State.ABORTED))
    below = (State.STOPPING, State.STOPPED, State.CLEARING, State.ABORTING, State.ABORTED)
    assert (step(state, Input.STOP) is None) == (state in below)


def test_commands_out_of_place_are_refused() -> None:
    assert step(State.STOPPED, Input.START) is None
    assert step(State.EXECUTE, Input.RESET) is None
    assert step(State.HELD, Input.UNSUSPEND) is None


def test_the_reference_page_prints_the_tables_of_the_code() -> None:
    page = DOCS.read_text(encoding="utf-8")
    for table in (packml.docs_table(), packml.docs_commands(), registers.docs_table()):
        assert table in page
