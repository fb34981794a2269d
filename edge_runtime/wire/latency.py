"""Latency as a histogram: the edges that device and cloud count by."""

from __future__ import annotations

from bisect import bisect_left

#: upper edges; the last bucket has none
EDGES_MS = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100)
BUCKETS = len(EDGES_MS) + 1


def bucket(latency_us: int) -> int:
    """Which bucket counts it: the first whose edge it does not pass."""
    return bisect_left(EDGES_MS, latency_us / 1000)
