"""How long a download may take: a total deadline, and a least rate, so that nobody holds it open by dripping bytes.

Every byte that comes off the wire is told here, headers too. The rate is looked at over windows; a connection that gives less
than it in a whole window is given up (`SlowError`), and the download goes on over a new one.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.clock import Clock
from edge_runtime.errors import EndpointError

NS = 1_000_000_000


@dataclass(frozen=True)
class Limits:
    """`deadline_s`: of one call, all tries together. `most_bytes_s`: no faster than this, 0: as fast as it comes. `idle_s`: the
    longest wait for the next byte. `tries`: in a row without a new byte. `restarts`: how often a file that turned out wrong is
    begun anew. `spend`: times the file's length that may be received in all. `leave_free_bytes`: what a download leaves of the
    disk."""

    deadline_s: float = 6 * 3600.0
    least_bytes_s: float = 512.0
    most_bytes_s: float = 0.0
    window_s: float = 60.0
    idle_s: float = 30.0
    connect_s: float = 20.0
    tries: int = 8
    restarts: int = 2
    spend: float = 4.0
    first_wait_s: float = 1.0
    longest_wait_s: float = 300.0
    leave_free_bytes: int = 64 * 1024 * 1024


DEFAULT = Limits()


class SlowError(EndpointError):
    """The other side gives too little."""


class OverdueError(EndpointError):
    """The time for the whole is over."""


class Pace:
    def __init__(self, clock: Clock, limits: Limits = DEFAULT) -> None:
        self._clock, self.limits = clock, limits
        most = limits.most_bytes_s
        self._least_bytes_s = min(limits.least_bytes_s, most / 2) if most > 0 else limits.least_bytes_s
        self._end_ns = clock.monotonic_ns() + round(limits.deadline_s * NS)
        self._window_ns = self._begun_ns = clock.monotonic_ns()
        self._window_bytes = self._begun_bytes = 0
        self.received_bytes = 0

    def begin(self) -> None:
        """A new connection: its first window starts."""
        self.left_s()
        self._window_ns = self._begun_ns = self._clock.monotonic_ns()
        self._window_bytes = self._begun_bytes = 0

    def received(self, count: int) -> None:
        self.received_bytes += count
        self._window_bytes += count
        self._brake(count)
        passed_s = (self._clock.monotonic_ns() - self._window_ns) / NS
        self.left_s()
        if passed_s < self.limits.window_s:
            return
        if self._window_bytes < self._least_bytes_s * passed_s:
            raise SlowError(
                f"only {self._window_bytes} bytes in {passed_s:.0f} s, expected {self._least_bytes_s:.0f} a second"
            )
        self._window_ns, self._window_bytes = self._clock.monotonic_ns(), 0

    def _brake(self, count: int) -> None:
        """Wait while more came on this connection than may; the sender is slowed down by what it cannot send."""
        self._begun_bytes += count
        if self.limits.most_bytes_s > 0:
            passed_s = (self._clock.monotonic_ns() - self._begun_ns) / NS
            ahead_s = self._begun_bytes / self.limits.most_bytes_s - passed_s
            if ahead_s > 0:
                self._clock.sleep(min(ahead_s, self.left_s()))

    def left_s(self) -> float:
        """Until the deadline; OverdueError after it."""
        left = (self._end_ns - self._clock.monotonic_ns()) / NS
        if left <= 0:
            raise OverdueError(
                f"not done within {self.limits.deadline_s:.0f} s; it goes on at the next try from what is there"
            )
        return left

    def patience_s(self, at_most_s: float) -> float:
        """How long to wait for one thing."""
        return min(at_most_s, self.left_s())
