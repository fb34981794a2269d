"""What a host asks for beside a rebirth. Who decides about it (`link.commands.CommandDesk`: allow-list, expiry, replay
protection, Guard) is handed to the node; here it is only kept from being flooded."""

from __future__ import annotations

import logging
from typing import Protocol

from edge_runtime import log
from edge_runtime.clock import Clock

PER_MINUTE = 60
MINUTE_NS = 60_000_000_000


class Commands(Protocol):
    def request(self, source: str, name: str, value: object, issued_wall_ns: int) -> None:
        """`source`: NCMD or DCMD. Says what became of it by an Event; never raises for what was asked."""


class AtMost:
    """Passes on `PER_MINUTE` requests a minute, so that nobody fills the outbox with refusals from outside. Those beyond are
    not carried out; the log says so once a minute."""

    def __init__(self, commands: Commands, clock: Clock) -> None:
        self._commands, self._clock = commands, clock
        self._minute, self._passed = -1, 0

    def request(self, source: str, name: str, value: object, issued_wall_ns: int) -> None:
        minute = self._clock.monotonic_ns() // MINUTE_NS
        if minute != self._minute:
            self._minute, self._passed = minute, 0
        self._passed += 1
        if self._passed <= PER_MINUTE:
            self._commands.request(source, name, value, issued_wall_ns)
        elif self._passed == PER_MINUTE + 1:
            log.say(logging.WARNING, "too many commands; the rest of this minute's are ignored", source=source)
