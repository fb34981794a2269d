"""What of the outbox this connection has carried, and what of it may be forgotten. Pure: times are handed in.

    live     appended since the birth (of the line, for the line's streams)
    backlog  what was there before

Data of Sparkplug are QoS 0: nobody acknowledges them. So after each burst a *barrier* is sent, a request that the broker
must answer. Once its answer is here, the broker has read everything before it. What lies before an answered barrier is
confirmed by a second one, sent `hold_ns` later: had the primary host died meanwhile, the broker would have told that before
it answered. (A hold of 0: the first answer is enough.)

Everything sent is a span (after, last] of a stream. A stream is acknowledged as far as confirmed spans follow one another
from its beginning without a hole; so live spans wait for the backlog before them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from edge_runtime.wire.envelope import Record

Span = tuple[str, int, int]


@dataclass
class _Group:
    """What was sent since the barrier before; `token` and `sent_ns` are of the barrier that ended it."""

    spans: list[Span] = field(default_factory=list)
    token: int = 0
    sent_ns: int = 0
    answered_ns: int | None = None


class Delivery:
    """One for each session. `heads`: the last number of each stream at the birth."""

    def __init__(self, heads: Mapping[str, int]) -> None:
        self._live_from = dict(heads)
        self._live_sent: dict[str, int] = {}
        self._backlog_sent: dict[str, int] = {}
        self._done: set[str] = set()
        self._open = _Group()
        self._waiting: deque[_Group] = deque()
        self._proven_ns = -1  # when the newest answered barrier was sent
        self._confirmed: dict[str, list[tuple[int, int]]] = {}
        self._acked: dict[str, int] = {}

    @property
    def live_after(self) -> dict[str, int]:
        return self._live_from | self._live_sent

    @property
    def backlog_after(self) -> Mapping[str, int]:
        return self._backlog_sent

    @property
    def backlog_upto(self) -> Mapping[str, int]:
        return self._live_from

    def backlog_streams(self, streams: Sequence[str]) -> list[str]:
        """Those that may still have a backlog."""
        return [s for s in streams if s not in self._done]

    def sent(self, records: Iterable[Record], live: bool) -> None:
        after, sent = (self.live_after, self._live_sent) if live else (self._backlog_sent, self._backlog_sent)
        first: dict[str, int] = {}
        for r in records:
            first.setdefault(r.stream, after.get(r.stream, 0))
            sent[r.stream] = r.seq
        self._open.spans += [(stream, before, sent[stream]) for stream, before in first.items()]

    def no_backlog(self, streams: Iterable[str]) -> None:
        """Nothing lies between what was sent of the backlog and what is live."""
        for stream in streams:
            if stream not in self._done:
                self._done.add(stream)
                span = (self._backlog_sent.get(stream, 0), self._live_from.get(stream, 0))
                self._confirmed.setdefault(stream, []).append(span)

    def born_again(self, heads: Mapping[str, int]) -> None:
        """The line is back: what was appended to its streams while it was away is backlog."""
        for stream, head in heads.items():
            if stream in self._done:
                self._done.discard(stream)
                self._backlog_sent[stream] = self.live_after.get(stream, 0)
            self._live_from[stream] = head
            self._live_sent.pop(stream, None)

    # ── barriers ────────────────────────────────────────────────────────────────────────────────────────────────────

    def wants_barrier(self, now_ns: int, hold_ns: int) -> bool:
        """One at a time: for what was sent since the last one, or for what waited out the hold."""
        if any(g.answered_ns is None for g in self._waiting):
            return False
        first = next((g.answered_ns for g in self._waiting if g.spans), None)
        return bool(self._open.spans) or (first is not None and now_ns >= first + hold_ns > self._proven_ns)

    def barrier(self, token: int, now_ns: int) -> None:
        self._open.token, self._open.sent_ns = token, now_ns
        self._waiting.append(self._open)
        self._open = _Group()

    def answered(self, token: int, now_ns: int) -> None:
        for group in self._waiting:
            if group.token == token and group.answered_ns is None:
                group.answered_ns, self._proven_ns = now_ns, group.sent_ns

    def unanswered_ns(self, now_ns: int) -> int:
        """How long the oldest barrier waits for its answer."""
        return max((now_ns - g.sent_ns for g in self._waiting if g.answered_ns is None), default=0)

    @property
    def under_way(self) -> bool:
        return bool(self._open.spans) or any(g.answered_ns is None for g in self._waiting)

    def confirmed(self, hold_ns: int) -> dict[str, int]:
        """stream → the number up to which it may be acknowledged, where that is news."""
        while self._waiting:
            group = self._waiting[0]
            held = group.answered_ns is None or self._proven_ns < group.answered_ns + hold_ns
            if group.answered_ns is None or (held and hold_ns and group.spans):
                break
            for stream, before, last in self._waiting.popleft().spans:
                self._confirmed.setdefault(stream, []).append((before, last))
        news = {stream: self._advance(stream) for stream in list(self._confirmed)}
        return {stream: seq for stream, seq in news.items() if seq}

    def _advance(self, stream: str) -> int:
        """The new contiguous end of `stream`; 0 where it did not move."""
        before = end = self._acked.get(stream, 0)
        spans = sorted(self._confirmed[stream])
        while spans and spans[0][0] <= end:
            end = max(end, spans.pop(0)[1])
        self._confirmed[stream] = spans
        if not spans:
            del self._confirmed[stream]
        self._acked[stream] = end
        return end if end > before else 0
