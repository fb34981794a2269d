"""Command: one thing that the cloud asks a device to do once. Pure format; the rules of admission are in `link.commands`.

Leaf `command` (not retained, `signed` with kind ``command``):

    {v, id, device, name, args, counter, issued_ns, expires_ns}

`counter` rises with every command that the cloud makes for a device: a device admits none at or below the highest it has
seen. `id` names the command in the Events that tell what became of it. `args` is JSON; the command to write a point is
``{"value": number or bool}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.wire.signed import canonical, read_fields

VERSION = 1
KIND = "command"
ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
LONGEST_NS = 24 * 3600 * 10**9

#: kinds of the Events on stream `command` → whether the command has ended with it
ENDS: Mapping[str, bool] = {
    "accepted": False,  # admitted by link and handed to control
    "done": True,  # written to the PLC, which confirmed it
    "refused": True,  # by link or by the Guard: nothing was written
    "expired": True,  # it came, or its turn came, too late: nothing was written
    "replayed": True,  # its counter was seen before: nothing was written this time
    "unknown": True,  # begun, and no end was recorded or confirmed: it may have been carried out; never tried again
}

_TYPES: Mapping[str, type] = {
    "id": str, "device": str, "name": str, "args": dict, "counter": int, "issued_ns": int, "expires_ns": int,
}  # fmt: skip


@dataclass(frozen=True)
class Command:
    id: str
    device: str
    name: str
    counter: int
    issued_ns: int
    expires_ns: int
    args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not ID.fullmatch(self.id) or not NAME.fullmatch(self.name):
            raise ValueError(
                f"command: id {self.id[:80]!r} and name {self.name[:80]!r} must be 1 to 64 of A-Z a-z 0-9 _ . -"
            )
        if self.counter < 1:
            raise ValueError("command: counter must be 1 or more")
        if not 0 < self.expires_ns - self.issued_ns <= LONGEST_NS:
            raise ValueError("command: expires_ns must be after issued_ns, by at most a day")

    def body(self) -> bytes:
        """The bytes to be signed."""
        return canonical({"v": VERSION, **vars(self), "args": dict(self.args)})


def read_command(body: bytes) -> Command:
    """The content of a command; ValueError names what is wrong."""
    return Command(**read_fields(body, "command", VERSION, _TYPES))
