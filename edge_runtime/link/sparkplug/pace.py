"""How fast a backlog may be flushed: so many records and so many bytes a second, with a burst of one second. Pure."""

from __future__ import annotations

from edge_runtime.link.rate import Bucket


class Pace:
    """0: no limit. What was spent beyond what is there is owed."""

    def __init__(self, records_per_s: float, bytes_per_s: float, now_ns: int) -> None:
        self._records, self._bytes = (
            Bucket(rate, now_ns, least_burst=1.0) if rate else None for rate in (records_per_s, bytes_per_s)
        )

    def records(self, now_ns: int, most: int) -> int:
        """How many records may go now, at most `most`."""
        if self._bytes and self._bytes.level(now_ns) < 1:
            return 0
        return max(0, min(most, int(self._records.level(now_ns)))) if self._records else most

    def spend(self, records: int, size_bytes: int, now_ns: int) -> None:
        for bucket, size in ((self._records, records), (self._bytes, size_bytes)):
            if bucket:
                bucket.take(size, now_ns)

    def wait_s(self, now_ns: int) -> float:
        """How long until a record may go."""
        return max(bucket.wait_s(now_ns) if bucket else 0.0 for bucket in (self._records, self._bytes))
