"""One row of the table of attacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Attack(NamedTuple):
    """`run` gets an empty folder, makes the attack against the production code and asserts that it came to nothing: that it was
    refused for the reason that `told` names, and that what was confirmed before still holds."""

    area: str
    name: str
    told: str
    run: Callable[[Path], None]
