"""How many in any one second. Pure."""

from __future__ import annotations

from collections.abc import Iterable

SECOND_NS = 1_000_000_000


def peak_per_s(times_ns: Iterable[int]) -> int:
    """The most that fall into any window of one second, wherever it begins."""
    times, first, most = sorted(times_ns), 0, 0
    for i, t in enumerate(times):
        while t - times[first] >= SECOND_NS:
            first += 1
        most = max(most, i - first + 1)
    return most
