"""What the PLC watches of the device: the reject coil with its time-out, and the heartbeat. Pure; times are arguments in ns."""

from __future__ import annotations

HEARTBEAT_LOST_NS = 2_000_000_000


class RejectCoil:
    """On for longer than `timeout_ms` after it was last set: the PLC switches it off. A coil that is stuck stays on,
    whatever is written, until then."""

    def __init__(self, timeout_ms: int) -> None:
        self._timeout_ns = timeout_ms * 1_000_000
        self._set_ns: int | None = None
        self._will_stick = self.stuck = False
        self.timeouts = 0

    def stick_when_set(self) -> None:
        self._will_stick = True

    def written(self, on: bool, now_ns: int) -> bool:
        """Whether the coil is on after a client's write."""
        if not on and not self.stuck:
            self._set_ns = None
        elif on and not self.stuck:
            self._set_ns = now_ns
            self.stuck, self._will_stick = self._will_stick, False
        return on or self.stuck

    def due_ns(self) -> int | None:
        return None if self._set_ns is None else self._set_ns + self._timeout_ns

    def times_out(self, now_ns: int) -> bool:
        """True once when the time is over: the coil goes off."""
        due_ns = self.due_ns()
        if due_ns is None or now_ns < due_ns:
            return False
        self.clear()
        self.timeouts += 1
        return True

    def clear(self) -> None:
        self._set_ns, self.stuck = None, False


class Heartbeat:
    """Alive is who changes the value; a standing value for more than 2 s is one loss."""

    def __init__(self) -> None:
        self._value = 0
        self._moved_ns: int | None = None
        self._lost = False
        self.first_ns: int | None = None
        self.losses = 0

    def written(self, value: int, now_ns: int) -> None:
        if value != self._value:
            self._value, self._moved_ns, self._lost = value, now_ns, False
            self.first_ns = now_ns if self.first_ns is None else self.first_ns

    def watch(self, now_ns: int) -> None:
        age_ns = self.age_ns(now_ns)
        if age_ns is not None and age_ns > HEARTBEAT_LOST_NS and not self._lost:
            self._lost = True
            self.losses += 1

    def age_ns(self, now_ns: int) -> int | None:
        return None if self._moved_ns is None else now_ns - self._moved_ns

    def clear(self) -> None:
        """The register was cleared."""
        self._value = 0
