"""What time it is by the cloud: the offset of `clock_offset`, kept, told, and asked for by those who must know.

Told as Event `clock_offset` on stream `link` when it becomes known and when it changes. The system's clock is never set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from edge_runtime import log
from edge_runtime.clock import Clock
from edge_runtime.errors import ResourceError
from edge_runtime.link.clock_offset import ClockOffset
from edge_runtime.link.time_floor import TimeFloor
from edge_runtime.wire.batch import Ack

Record = Callable[[str, str, Mapping[str, Any]], Any]


class TrustedTime(NamedTuple):
    """The true wall time is within `uncertainty_ns` of this."""

    wall_ns: int
    uncertainty_ns: int


def tell(record: Record, stream: str, kind: str, body: Mapping[str, Any]) -> None:
    """Record an Event; a disk that refuses it is told in the log and stops nothing."""
    try:
        record(stream, kind, body)
    except ResourceError as error:
        log.say(logging.WARNING, "an Event could not be recorded", stream=stream, kind=kind, reason=str(error))


class CloudClock:
    """`record` appends an Event: stream, kind, body."""

    def __init__(self, record: Record, floor: TimeFloor, clock: Clock) -> None:
        self._record, self._floor, self._clock = record, floor, clock
        self._offset = ClockOffset()

    def take(self, ack: Ack, mono_ns: int) -> None:
        """Learn from an acknowledgement that came at this monotonic time."""
        if not self._offset.take(ack, mono_ns):
            return
        assert self._offset.cloud is not None
        first = self._floor.now_ns()
        self._floor.seen(self._offset.cloud.wall_ns(mono_ns) - self._offset.cloud.off_by_ns(mono_ns))
        news = self._offset.news(mono_ns, self._clock.wall_ns())
        if news is not None:
            if self._floor.now_ns() > first:
                self._floor.save()
            tell(self._record, "link", "clock_offset", news)

    def trusted(self) -> TrustedTime | None:
        """The time by the cloud; before the first contact by the system's clock, where the kernel says that it is set."""
        mono_ns, cloud = self._clock.monotonic_ns(), self._offset.cloud
        if cloud is not None:
            return TrustedTime(cloud.wall_ns(mono_ns), cloud.off_by_ns(mono_ns))
        uncertainty_ns = self._clock.wall_uncertainty_ns()
        return None if uncertainty_ns is None else TrustedTime(self._clock.wall_ns(), uncertainty_ns)

    @property
    def offset_ns(self) -> int | None:
        """The cloud's wall time less the system's; None before the first contact."""
        return self._offset.offset_ns(self._clock.monotonic_ns(), self._clock.wall_ns())

    @property
    def uncertainty_ns(self) -> int | None:
        cloud = self._offset.cloud
        return None if cloud is None else cloud.off_by_ns(self._clock.monotonic_ns())
