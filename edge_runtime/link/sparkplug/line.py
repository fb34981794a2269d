"""Whether the line is there, as the outbox tells: `control` speaks of it every second while it reaches the PLC. Pure."""

from __future__ import annotations

from edge_runtime.link.sparkplug.session import LineInput
from edge_runtime.wire.envelope import Event

#: (stream, kind) → only a `control` that reaches its PLC records it; one of them comes at least every second
SIGNS = {("metric", "control"), ("decision", "decision"), ("health", "plc_connected")}
LOST = ("fault", "plc_lost")
STREAMS_OF_INTEREST = ("metric", "decision", "health", "fault")


class LineWatch:
    """`timeout_ns`: silence after which the line counts as gone."""

    def __init__(self, boot_id: str, timeout_ns: int) -> None:
        self._boot_id, self._timeout_ns = boot_id, timeout_ns
        self._seen_ns = self._lost_ns = -1

    def see(self, event: Event | None) -> None:
        """Any Event, in any order; those of an earlier boot say nothing about now."""
        if event is None or event.boot_id != self._boot_id:
            return
        if (event.stream, event.kind) in SIGNS:
            self._seen_ns = max(self._seen_ns, event.mono_ns)
        elif (event.stream, event.kind) == LOST:
            self._lost_ns = max(self._lost_ns, event.mono_ns)

    def verdict(self, now_mono_ns: int) -> LineInput:
        there = self._seen_ns > self._lost_ns and now_mono_ns - self._seen_ns <= self._timeout_ns
        return LineInput.SEEN if there else LineInput.GONE
