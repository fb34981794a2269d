"""How often somebody may ask: token buckets, pure but for the clock that is given. At most `KEPT` askers are remembered; the
one that was quiet the longest is forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

KEPT = 10_000


class Rate(NamedTuple):
    per_s: float
    burst: float


class Buckets:
    def __init__(self, rate: Rate, monotonic_s: Callable[[], float]) -> None:
        self._rate, self._now_s = rate, monotonic_s
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, who: str, cost: float = 1.0) -> float:
        """0 where this one may go on (and it is counted), else how long it has to wait."""
        left = self._now(who)
        if left < cost:
            return (cost - left) / self._rate.per_s
        self._put(who, left - cost)
        return 0.0

    def empty(self, who: str) -> float:
        """As `wait_s`, and nothing is counted."""
        return max(0.0, 1.0 - self._now(who)) / self._rate.per_s

    def _now(self, who: str) -> float:
        left, at_s = self._left.get(who, (self._rate.burst, self._now_s()))
        return min(self._rate.burst, left + (self._now_s() - at_s) * self._rate.per_s)

    def _put(self, who: str, left: float) -> None:
        self._left[who] = left, self._now_s()
        self._left.move_to_end(who)
        if len(self._left) > KEPT:
            self._left.popitem(last=False)
