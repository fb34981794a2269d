"""The PackML state model of ISA-TR88.00.02: 17 states, 10 commands, state complete. One table, one pure step.

- An acting state ends with the input `SC` (state complete) and goes to the state that its name announces.
- `Stop` works from every state but those on the way to, at, or below Stopped; `Abort` from every state but its own two.
- A command that the table does not list for a state is refused: the state stays as it is.
"""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """The value is the code in the PLC's `line_state`."""

    CLEARING = 1
    STOPPED = 2
    STARTING = 3
    IDLE = 4
    SUSPENDED = 5
    EXECUTE = 6
    STOPPING = 7
    ABORTING = 8
    ABORTED = 9
    HOLDING = 10
    HELD = 11
    UNHOLDING = 12
    SUSPENDING = 13
    UNSUSPENDING = 14
    RESETTING = 15
    COMPLETING = 16
    COMPLETED = 17

    @property
    def title(self) -> str:
        return self.name.capitalize()


class Input(IntEnum):
    """The value is the command code in the PLC's `command`; `SC` is no command but the PLC's own state complete."""

    SC = 0
    RESET = 1
    START = 2
    STOP = 3
    HOLD = 4
    UNHOLD = 5
    SUSPEND = 6
    UNSUSPEND = 7
    ABORT = 8
    CLEAR = 9
    COMPLETE = 10

    @property
    def title(self) -> str:
        return self.name if self is Input.SC else self.name.capitalize()


S, I = State, Input  # noqa: E741

_ABORT_PATH = (S.ABORTING, S.ABORTED)
_STOP_PATH = (S.STOPPING, S.STOPPED, S.CLEARING, *_ABORT_PATH)

TABLE: dict[tuple[State, Input], State] = {
    (S.CLEARING, I.SC): S.STOPPED,
    (S.STOPPING, I.SC): S.STOPPED,
    (S.ABORTING, I.SC): S.ABORTED,
    (S.RESETTING, I.SC): S.IDLE,
    (S.STARTING, I.SC): S.EXECUTE,
    (S.HOLDING, I.SC): S.HELD,
    (S.UNHOLDING, I.SC): S.EXECUTE,
    (S.SUSPENDING, I.SC): S.SUSPENDED,
    (S.UNSUSPENDING, I.SC): S.EXECUTE,
    (S.EXECUTE, I.SC): S.COMPLETING,
    (S.COMPLETING, I.SC): S.COMPLETED,
    (S.STOPPED, I.RESET): S.RESETTING,
    (S.COMPLETED, I.RESET): S.RESETTING,
    (S.IDLE, I.START): S.STARTING,
    (S.EXECUTE, I.HOLD): S.HOLDING,
    (S.SUSPENDED, I.HOLD): S.HOLDING,
    (S.HELD, I.UNHOLD): S.UNHOLDING,
    (S.EXECUTE, I.SUSPEND): S.SUSPENDING,
    (S.SUSPENDED, I.UNSUSPEND): S.UNSUSPENDING,
    (S.EXECUTE, I.COMPLETE): S.COMPLETING,
    (S.ABORTED, I.CLEAR): S.CLEARING,
    **{(s, I.STOP): S.STOPPING for s in S if s not in _STOP_PATH},
    **{(s, I.ABORT): S.ABORTING for s in S if s not in _ABORT_PATH},
}

ACTING = frozenset(s for (s, i) in TABLE if i is I.SC and s is not S.EXECUTE)
"""States that end by themselves. Execute also has an `SC`, given when the ordered number of parts is made."""


def step(state: State, given: Input) -> State | None:
    """The next state, or None where `given` is refused."""
    return TABLE.get((state, given))


def docs_table() -> str:
    """The table of the reference page: one row a state, in the order of the codes."""
    rows = ["| code | state | kind | inputs that it takes |", "|---|---|---|---|"]
    for state in State:
        kind = "acting" if state in ACTING else "runs" if state is S.EXECUTE else "waits"
        moves = ", ".join(f"{i.title} → {TABLE[state, i].title}" for i in Input if (state, i) in TABLE)
        rows.append(f"| {int(state)} | {state.title} | {kind} | {moves} |")
    return "\n".join(rows)


def docs_commands() -> str:
    """The table of the command codes of the reference page."""
    return "\n".join(
        ["| code | command |", "|---|---|", *(f"| {int(i)} | {i.title} |" for i in Input if i is not I.SC)]
    )
