"""Time as an argument: the real clock, and a fake one that ships for tests and simulation."""

from __future__ import annotations

import ctypes
import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic time for control, wall time for labels; both in nanoseconds."""

    def monotonic_ns(self) -> int: ...
    def wall_ns(self) -> int: ...
    def wall_uncertainty_ns(self) -> int | None: ...
    def sleep(self, seconds: float) -> None: ...


class _Timex(ctypes.Structure):
    """struct timex of <sys/timex.h> (Linux); only the first fields are read."""

    _fields_ = [
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long), ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long), ("status", ctypes.c_int), ("rest", ctypes.c_byte * 192),
    ]  # fmt: skip


UNSYNCHRONISED = 0x40  # STA_UNSYNC
LOOK_EVERY_NS = 5_000_000_000


class SystemClock:
    def __init__(self) -> None:
        self._looked_ns = -LOOK_EVERY_NS
        self._uncertainty_ns: int | None = None

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        return time.time_ns()

    def wall_uncertainty_ns(self) -> int | None:
        """How far the wall clock may be off, as the kernel's NTP discipline bounds it (adjtimex, `maxerror`); None where
        the clock was never synchronised."""
        now_ns = time.monotonic_ns()
        if now_ns - self._looked_ns >= LOOK_EVERY_NS:
            self._looked_ns, self._uncertainty_ns = now_ns, _kernel_uncertainty_ns()
        return self._uncertainty_ns

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def _kernel_uncertainty_ns() -> int | None:
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    state = _Timex()
    if adjtimex is None or adjtimex(ctypes.byref(state)) < 0 or state.status & UNSYNCHRONISED:
        return None
    return int(state.maxerror) * 1000


class FakeClock:
    """A clock that moves only when told to, or by `sleep`."""

    def __init__(self, monotonic_ns: int = 1_000_000_000, wall_ns: int = 1_700_000_000_000_000_000) -> None:
        self._monotonic_ns = monotonic_ns
        self._wall_ns = wall_ns
        self.uncertainty_ns: int | None = None

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def wall_ns(self) -> int:
        return self._wall_ns

    def wall_uncertainty_ns(self) -> int | None:
        return self.uncertainty_ns

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._monotonic_ns += round(seconds * 1e9)
        self._wall_ns += round(seconds * 1e9)
