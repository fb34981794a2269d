"""Token buckets, one for each key, of a bounded number of keys: the longest unused one is forgotten (a full bucket again)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

KEYS = 10_000


class Limit:
    """`burst` at once, `per_s` in the long run. `now_s` is monotonic."""

    def __init__(self, per_s: float, burst: float, now_s: Callable[[], float], keys: int = KEYS) -> None:
        self._per_s, self._burst, self._now_s, self._keys = per_s, burst, now_s, keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str) -> bool:
        """Whether one more is allowed now; if so it is counted."""
        return self.wait_s(key, take=True) == 0.0

    def wait_s(self, key: str, take: bool = False) -> float:
        """How long until one more is allowed; 0.0: now."""
        with self._lock:
            now_s = self._now_s()
            left, at_s = self._buckets.pop(key, (self._burst, now_s))
            left = min(self._burst, left + (now_s - at_s) * self._per_s)
            allowed = left >= 1.0
            self._buckets[key] = (left - 1.0 if take and allowed else left, now_s)
            if len(self._buckets) > self._keys:
                self._buckets.popitem(last=False)
            return 0.0 if allowed else (1.0 - left) / self._per_s
