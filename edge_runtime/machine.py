"""State machines, all written one way: states, inputs, one table, a pure step.

TABLE: Table[State, Input] = {(State.IDLE, Input.START): State.RUN, …}
state = step(TABLE, state, input)      # an input with no row leaves the state as it is
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

S = TypeVar("S", bound=Enum)
I = TypeVar("I", bound=Enum)  # noqa: E741

Table = Mapping[tuple[S, I], S]


def step(table: Mapping[tuple[S, I], S], state: S, event: I) -> S:
    """The next state; the same one where the table has no row."""
    return table.get((state, event), state)
