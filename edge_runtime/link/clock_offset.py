"""How far this device's clock is from the cloud's, from the times in the acknowledgements, as NTP does (RFC 5905). Pure.

    t1  device's monotonic time at the checkpoint       t2  cloud's wall time when it came
    t4  device's monotonic time at the acknowledgement  t3  cloud's wall time when the answer left

    offset (cloud's wall − device's monotonic) = ((t2 − t1) + (t3 − t4)) / 2, off by at most half of (t4 − t1) − (t3 − t2)

- The best exchange is kept; its uncertainty grows by `DRIFT_PPM` as it ages, so that a later one takes its place.
- Everything is told against the *monotonic* clock: a jump of the wall clock changes what `offset_ns` says and nothing else.
- The system's clock is never set.
"""

from __future__ import annotations

from typing import NamedTuple

from edge_runtime.wire.batch import Ack

DRIFT_PPM = 100
TELL_NS = 1_000_000_000
SANE_NS = range(946_684_800 * 10**9, 4_102_444_800 * 10**9)  # the years 2000 to 2099


class CloudTime(NamedTuple):
    """`base_ns` + monotonic time is the cloud's wall time, at most `uncertainty_ns` off, as measured at `at_ns`."""

    base_ns: int
    uncertainty_ns: int
    at_ns: int

    def off_by_ns(self, mono_ns: int) -> int:
        """The uncertainty, grown with age."""
        return self.uncertainty_ns + abs(mono_ns - self.at_ns) * DRIFT_PPM // 1_000_000

    def wall_ns(self, mono_ns: int) -> int:
        return self.base_ns + mono_ns


def measured(ack: Ack, mono_ns: int) -> CloudTime | None:
    """One exchange; None where the acknowledgement's times cannot be right."""
    away_ns, held_ns = mono_ns - ack.echo_mono_ns, ack.now_ns - ack.received_ns
    if ack.echo_mono_ns <= 0 or ack.received_ns not in SANE_NS or not 0 <= held_ns <= away_ns:
        return None
    base_ns = (ack.received_ns - ack.echo_mono_ns + ack.now_ns - mono_ns) // 2
    return CloudTime(base_ns, (away_ns - held_ns + 1) // 2, mono_ns)


class ClockOffset:
    """`cloud` is the best exchange so far, None before the first."""

    def __init__(self) -> None:
        self.cloud: CloudTime | None = None
        self._told_ns: int | None = None

    def take(self, ack: Ack, mono_ns: int) -> bool:
        """Keep this exchange if it is better than what is known by now, or if the cloud's clock was moved."""
        new, old = measured(ack, mono_ns), self.cloud
        if new is None:
            return False
        moved = old is not None and abs(new.base_ns - old.base_ns) > new.uncertainty_ns + old.off_by_ns(mono_ns)
        if old is None or moved or new.uncertainty_ns <= old.off_by_ns(mono_ns):
            self.cloud = new
            return True
        return False

    def offset_ns(self, mono_ns: int, wall_ns: int) -> int | None:
        """What would have to be added to the system's wall clock; None while unknown."""
        return None if self.cloud is None else self.cloud.wall_ns(mono_ns) - wall_ns

    def news(self, mono_ns: int, wall_ns: int) -> dict[str, int] | None:
        """What is to be told: the first offset, and each that differs from the last one told by more than a second and more
        than it is uncertain."""
        offset_ns = self.offset_ns(mono_ns, wall_ns)
        if offset_ns is None or self.cloud is None:
            return None
        uncertainty_ns = self.cloud.off_by_ns(mono_ns)
        if self._told_ns is not None and abs(offset_ns - self._told_ns) <= TELL_NS + uncertainty_ns:
            return None
        self._told_ns = offset_ns
        return {"offset_ns": offset_ns, "uncertainty_ns": uncertainty_ns}
