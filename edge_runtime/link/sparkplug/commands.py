"""What a host asks for beside a rebirth, and the answer of a device that allows nothing: a refusal, told as an Event.

Whoever allows something (allow-list, expiry, replay protection, Guard) implements `Commands` and is handed to the node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from edge_runtime.clock import Clock

TEXT_LIMIT = 200
TOLD_PER_MINUTE = 20


class Commands(Protocol):
    def request(self, source: str, name: str, value: object, issued_wall_ns: int) -> None:
        """`source`: NCMD or DCMD. Says what became of it by an Event; never raises for what was asked."""


class Teller(Protocol):
    def append(self, stream: str, kind: str, body: Mapping[str, Any]) -> Any: ...


class RefuseAll:
    """Every request is refused. At most `TOLD_PER_MINUTE` refusals a minute become Events, so that nobody fills the outbox
    from outside; the next one says how many were not told."""

    def __init__(self, outbox: Teller, clock: Clock) -> None:
        self._outbox, self._clock = outbox, clock
        self._minute = -1
        self._told = self._untold = 0

    def request(self, source: str, name: str, value: object, issued_wall_ns: int) -> None:
        minute = self._clock.monotonic_ns() // 60_000_000_000
        if minute != self._minute:
            self._minute, self._told = minute, 0
        if self._told >= TOLD_PER_MINUTE:
            self._untold += 1
            return
        self._told += 1
        body: dict[str, Any] = {"source": source, "name": name[:TEXT_LIMIT], "issued_wall_ns": issued_wall_ns}
        body |= {"reason": "this device takes no commands but Node Control/Rebirth"}
        if self._untold:
            body["untold_before"], self._untold = self._untold, 0
        self._outbox.append("command", "refused", body)
