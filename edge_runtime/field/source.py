"""Source: what brings Samples by itself, in threads of its own. The seam behind which every sensor protocol stands.

Sources push Reports (Sample, Wave, Gap) into one bounded queue. When the reader is too slow the oldest go, counted by tag,
and the next one of a tag that lost some is preceded by a Gap: nothing is lost without a record. The queue never blocks a
source.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edge_runtime.field.tag import Gap, Report, Sample, Wave

Sink = Callable[[Report], None]


@dataclass(frozen=True)
class Health:
    """How one endpoint does. `problem` is empty while it answers; `gaps` counts the Gap records it gave."""

    endpoint: str
    answers: bool
    problem: str = ""
    connects: int = 0
    failures: int = 0
    late: int = 0
    gaps: int = 0


class Source(Protocol):
    """`start` returns at once and never raises for an endpoint that is not there: it is tried again with back-off, and its
    tags are BAD until it answers. `stop` ends the threads and closes the connections."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def health(self) -> tuple[Health, ...]: ...


class ReportQueue:
    """Bounded; safe from many threads. `dropped` counts what went because nobody took it."""

    def __init__(self, limit: int = 100_000) -> None:
        self._limit = limit
        self._items: deque[Report] = deque()
        self._lost: dict[str, tuple[int, int]] = {}  # tag → times of the first report that went
        self._filled = threading.Condition()
        self.dropped = 0

    def put(self, report: Report) -> None:
        with self._filled:
            if len(self._items) >= self._limit:
                self._drop(self._items.popleft())
            self._items.append(report)
            self._filled.notify()

    def take(self, timeout_s: float = 0.0) -> list[Report]:
        """All that has come, oldest first; waits up to `timeout_s` where there is nothing."""
        with self._filled:
            if not self._items and timeout_s > 0:
                self._filled.wait(timeout_s)
            out: list[Report] = []
            for report in self._items:
                if report.tag in self._lost and isinstance(report, (Sample, Wave)):
                    out.append(_gap(report, self._lost.pop(report.tag)))
                out.append(report)
            self._items.clear()
            return out

    def _drop(self, report: Report) -> None:
        self.dropped += 1
        times = (
            (report.from_mono_ns, report.from_wall_ns) if isinstance(report, Gap) else (report.mono_ns, report.wall_ns)
        )
        self._lost.setdefault(report.tag, times)


def _gap(first: Sample | Wave, lost: tuple[int, int]) -> Gap:
    return Gap(first.tag, lost[0], first.mono_ns, lost[1], first.wall_ns, "nobody took the reports in time")


class Outage:
    """What the tags of one endpoint need to know about a loss: when each was last good, and the Gap when it is good again."""

    def __init__(self) -> None:
        self._good: dict[str, tuple[int, int]] = {}
        self._cause: dict[str, str] = {}

    def begin(self, tags: tuple[str, ...], cause: str) -> None:
        for tag in tags:
            if tag in self._good:
                self._cause.setdefault(tag, cause)

    def end(self, tag: str, mono_ns: int, wall_ns: int) -> Gap | None:
        """Called with every good reading; the Gap where an outage lies between it and the one before."""
        before, cause = self._good.get(tag), self._cause.pop(tag, None)
        self._good[tag] = (mono_ns, wall_ns)
        if before is None or cause is None:
            return None
        return Gap(tag, before[0], mono_ns, before[1], wall_ns, cause)

    def touch(self, tag: str, mono_ns: int, wall_ns: int) -> None:
        """The tag is known to be as good as it was until now; not while an outage lasts."""
        if tag in self._good and tag not in self._cause:
            self._good[tag] = (mono_ns, wall_ns)

    def filled(self, tag: str, cause: str) -> None:
        """What this cause took from the tag was filled: there is no gap of it."""
        if self._cause.get(tag) == cause:
            del self._cause[tag]

    def last(self, tag: str) -> tuple[int, int] | None:
        """Monotonic and wall time of the newest good reading."""
        return self._good.get(tag)
