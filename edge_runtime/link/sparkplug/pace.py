"""How fast a backlog may be flushed: so many records and so many bytes a second, with a burst of one second. Pure."""

from __future__ import annotations


class Pace:
    """0: no limit. What was spent beyond what is there is owed."""

    def __init__(self, records_per_s: float, bytes_per_s: float) -> None:
        self._rates = (records_per_s, bytes_per_s)
        self._burst = [max(1.0, rate) for rate in self._rates]
        self._left = list(self._burst)
        self._seen_ns: int | None = None

    def records(self, now_ns: int, most: int) -> int:
        """How many records may go now, at most `most`."""
        self._refill(now_ns)
        if self._rates[1] and self._left[1] <= 0:
            return 0
        return max(0, min(most, int(self._left[0]))) if self._rates[0] else most

    def spend(self, records: int, size_bytes: int) -> None:
        self._left[0] -= records
        self._left[1] -= size_bytes

    def wait_s(self) -> float:
        """How long until a record may go."""
        wanted = (1.0 - self._left[0], 1.0 - self._left[1])
        return max((w / rate for w, rate in zip(wanted, self._rates, strict=True) if rate and w > 0), default=0.0)

    def _refill(self, now_ns: int) -> None:
        passed_s = 0.0 if self._seen_ns is None else max(0, now_ns - self._seen_ns) / 1e9
        self._seen_ns = now_ns
        grown = [left + rate * passed_s for left, rate in zip(self._left, self._rates, strict=True)]
        self._left = [min(most, now) for most, now in zip(self._burst, grown, strict=True)]
