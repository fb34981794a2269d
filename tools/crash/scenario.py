"""What a crash scenario is: a program, the way back, and what must be true then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tools.crash.models import Model
from tools.crash.notes import Note

#: what recovery found, as JSON data
State = Mapping[str, Any]


def nothing(folder: Path) -> None:
    """For a scenario that begins with an empty folder."""


class Scenario(NamedTuple):
    """`prepare` makes the folder as it is before; `run` is recorded, in a process of its own, and tells what it has
    promised (`notes.tell`). `recover` does on an image what a restart does, goes on working for a moment, and returns what
    it found; it is recorded and may tell, too. `check`: notes, state, model → what is wrong."""

    text: str
    run: Callable[[Path], None]
    recover: Callable[[Path], State]
    check: Callable[[Sequence[Note], State, Model], list[str]]
    prepare: Callable[[Path], None] = nothing
