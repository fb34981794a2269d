"""Which records are under way, in two lanes. Pure: times are handed in.

    live     what was appended since this connection stands: goes first, in batches of whatever there is
    backlog  what was there before, in batches whose size follows how fast they are acknowledged

Each lane keeps the order of each stream; the cloud joins them by sequence number. So a new alarm overtakes a million
queued records.

How much of the backlog is under way decides how long a live record waits behind it, in the line, the broker and the cloud.
So while live records come, its batches are as large as they can be without an acknowledgement taking `QUEUE_S` longer than
the shortest one of late, or half as long again where that is more (as LEDBAT, RFC 6817, does for bulk traffic): a line whose
acknowledgements come late because it is long does not shrink them, a queue that builds up does. Where one takes `SLOW_S`,
they shrink to single records.

A batch is no longer under way when everything in it is committed, or stored on an island beyond a gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge_runtime.wire.envelope import Record

ACK_TIMEOUT_S = 10.0
LIVE_BATCHES = 4
BACKLOG_BATCHES = 2
MOST_RECORDS = 200
LEAST_RECORDS = 50  # of a batch that is not slow
QUICK_S = 0.5  # of a lane that does not yield
QUEUE_S = 0.012
SLOW_S = 2.0
SHORTEST_OF_S = 30.0

Islands = Mapping[str, Sequence[Sequence[int]]]


@dataclass(frozen=True)
class Batch:
    """`spans`: the first and last sequence number of each stream in it."""

    spans: Mapping[str, tuple[int, int]]
    sent_ns: int
    mid: int


class Shortest:
    """The shortest time that an acknowledgement took of late: in this window or the one before."""

    def __init__(self) -> None:
        self._window, self._now_s, self._before_s = -1, float("inf"), float("inf")

    def see(self, took_s: float, now_ns: int) -> None:
        window = int(now_ns / 1e9 / SHORTEST_OF_S)
        if window != self._window:
            self._before_s = self._now_s if window == self._window + 1 else float("inf")
            self._window, self._now_s = window, float("inf")
        self._now_s = min(self._now_s, took_s)

    @property
    def quick_s(self) -> float:
        """What an acknowledgement may take while no queue builds up."""
        shortest_s = min(self._now_s, self._before_s)
        return shortest_s + max(QUEUE_S, shortest_s / 2)


class Lane:
    """`size` is how many records the next batch may have. Lanes of one line share its `shortest`; one
    that `yields` lets no queue build up."""

    def __init__(
        self,
        limit: int,
        timeout_s: float = ACK_TIMEOUT_S,
        first_size: int = MOST_RECORDS,
        shortest: Shortest | None = None,
        yields: bool = False,
    ) -> None:
        self._shortest, self.yields = shortest or Shortest(), yields
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
            self._shortest.see(took_s, now_ns)
            self.size = next_size(self.size, took_s, self._shortest.quick_s if self.yields else QUICK_S)

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


def next_size(size: int, took_s: float, quick_s: float) -> int:
    """How many records the next batch may have, after one that took so long."""
    if took_s <= quick_s:
        return min(MOST_RECORDS, size + (size if size < LEAST_RECORDS else size // 4))
    if took_s > SLOW_S:
        return max(1, size // 2)
    return max(min(size, LEAST_RECORDS), size * 3 // 4)


def _stored(batch: Batch, stream: str, committed: Mapping[str, int], islands: Islands) -> bool:
    first, last = batch.spans[stream]
    on_island = any(a <= first and last <= b for a, b in islands.get(stream, ()))
    return on_island or committed.get(stream, 0) >= last
