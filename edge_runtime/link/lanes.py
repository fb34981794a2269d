"""Which records are under way, in two lanes. Pure: times are handed in.

    live     what was appended since this connection stands: goes first, in batches of whatever there is
    backlog  what was there before, in batches whose size follows how fast they are acknowledged

Each lane keeps the order of each stream; the cloud joins them by sequence number. So a new alarm overtakes a million
queued records, and on a slow line the backlog never puts more in front of it than the line carries in a moment.
A batch is no longer under way when everything in it is committed, or stored on an island beyond a gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_runtime.wire.envelope import Record

ACK_TIMEOUT_S = 10.0
LIVE_BATCHES = 4
BACKLOG_BATCHES = 3
MOST_RECORDS = 200
QUICK_S = 0.5
SLOW_S = 2.0

Islands = Mapping[str, Sequence[Sequence[int]]]


@dataclass(frozen=True)
class Batch:
    """`spans`: the first and last sequence number of each stream in it."""

    spans: Mapping[str, tuple[int, int]]
    sent_ns: int
    mid: int


class Lane:
    """`size` is how many records the next batch may have; it doubles while answers come quickly and halves when not."""

    def __init__(self, limit: int, timeout_s: float = ACK_TIMEOUT_S, first_size: int = MOST_RECORDS) -> None:
        self._limit, self._timeout_ns = limit, round(timeout_s * 1e9)
        self._batches: deque[Batch] = deque()
        self.sent: dict[str, int] = {}
        self.size = first_size

    @property
    def has_room(self) -> bool:
        return len(self._batches) < self._limit

    def add(self, records: Sequence[Record], now_ns: int, mid: int = 0) -> None:
        spans: dict[str, tuple[int, int]] = {}
        for r in records:
            spans[r.stream] = (spans[r.stream][0] if r.stream in spans else r.seq, r.seq)
        self.sent |= {stream: last for stream, (_, last) in spans.items()}
        self._batches.append(Batch(spans, now_ns, mid))

    def acknowledged(self, committed: Mapping[str, int], islands: Islands, now_ns: int) -> None:
        for batch in [b for b in self._batches if all(_stored(b, s, committed, islands) for s in b.spans)]:
            self._batches.remove(batch)
            took_s = (now_ns - batch.sent_ns) / 1e9
            if took_s < QUICK_S:
                self.size = min(MOST_RECORDS, 2 * self.size)
            elif took_s > SLOW_S:
                self.size = max(1, self.size // 2)

    def refused(self, mid: int) -> Batch | None:
        """The broker turned this batch away: it is under way no longer, and what follows it goes on."""
        found = next((b for b in self._batches if b.mid == mid), None)
        if found is not None:
            self._batches.remove(found)
        return found

    def timed_out(self, now_ns: int) -> bool:
        return bool(self._batches) and now_ns - self._batches[0].sent_ns > self._timeout_ns

    def reset(self) -> None:
        """Nothing is under way: what is not acknowledged will be sent again, more carefully if it took too long."""
        if self._batches:
            self.size = max(1, self.size // 2)
        self._batches.clear()
        self.sent.clear()


def _stored(batch: Batch, stream: str, committed: Mapping[str, int], islands: Islands) -> bool:
    first, last = batch.spans[stream]
    on_island = any(a <= first and last <= b for a, b in islands.get(stream, ()))
    return on_island or committed.get(stream, 0) >= last
