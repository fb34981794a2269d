"""Closed intervals of sequence numbers, and how far a stream reaches without a gap. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """`first` … `last`, both included."""

    first: int
    last: int


class Given(NamedTuple):
    """Records that the device gave up (`wire.batch.Shed`): all of `first` … `last`, or all but the multiples of `every`."""

    first: int
    last: int
    every: int

    def reach(self, seq: int) -> int:
        """The last number given up in one go from `seq` on; `seq` − 1 where it was not given up."""
        if not self.first <= seq <= self.last or (self.every and seq % self.every == 0):
            return seq - 1
        return min(self.last, (seq // self.every + 1) * self.every - 1) if self.every else self.last


def runs(seqs: Sequence[int]) -> list[Span]:
    """Rising numbers as the fewest intervals."""
    if seqs and seqs[-1] - seqs[0] + 1 == len(seqs):
        return [Span(seqs[0], seqs[-1])]
    return merged(Span(seq, seq) for seq in seqs)


def merged(spans: Iterable[Span]) -> list[Span]:
    """The union as the fewest intervals, in order."""
    out: list[Span] = []
    for span in sorted(spans):
        if out and span.first <= out[-1].last + 1:
            out[-1] = Span(out[-1].first, max(out[-1].last, span.last))
        else:
            out.append(span)
    return out


def reach(head: int, spans: Sequence[Span], given: Sequence[Given]) -> int:
    """The highest number below which everything is delivered or given up, beginning at `head`. `spans` in order."""
    at = 0
    while True:
        before = head
        while at < len(spans) and spans[at].first <= head + 1:
            head = max(head, spans[at].last)
            at += 1
        head = max([head, *(g.reach(head + 1) for g in given)])
        if head == before:
            return head
