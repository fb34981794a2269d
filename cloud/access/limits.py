"""Token buckets, one for each key.

`Limit` is kept in memory, of a bounded number of keys: the longest unused one is forgotten (a full bucket again). It protects one
process from too much work. `SharedLimit` is kept in the store: what may be guessed at so often, and no more, is counted there for
all web servers, and over a restart.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from sqlalchemy import Connection, Engine, delete, select, update

from cloud.store import tables as t
from cloud.store.database import WRITES, merge

KEYS = 10_000
S_NS = 1_000_000_000
SKEW_NS = 60 * S_NS
_FIRST = merge(t.attempt, ("name", "subject"), at_ns="attempt.at_ns")


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


class SharedLimit:
    """`burst` at once, `per_s` in the long run. `now_ns` is wall time: buckets from more than a minute ahead are of a clock that
    was set back, and begin anew."""

    def __init__(self, engine: Engine, name: str, per_s: float, burst: float, now_ns: Callable[[], int]) -> None:
        self._engine, self._name, self._per_s, self._burst, self._now_ns = engine, name, per_s, burst, now_ns

    def take(self, key: str) -> bool:
        """Whether one more is allowed now; if so it is counted."""
        a, now_ns = t.attempt, self._now_ns()
        full_ns = round(self._burst / self._per_s * S_NS)
        mine = (a.c.name == self._name, a.c.subject == key)
        with self._engine.execution_options(**{WRITES: True}).begin() as connection:
            of_old = (a.c.at_ns < now_ns - full_ns) | (a.c.at_ns > now_ns + SKEW_NS)
            connection.execute(delete(a).where(a.c.name == self._name, of_old))  # those are full again
            row = {"name": self._name, "subject": key, "tokens": self._burst, "at_ns": now_ns}
            connection.execute(_FIRST, row)
            left = self._left(connection, key, now_ns, held=True)
            if left < 1.0:
                return False
            connection.execute(update(a).where(*mine).values(tokens=left - 1.0, at_ns=now_ns))
        return True

    def wait_s(self, key: str) -> float:
        """How long until one more is allowed; 0.0: now."""
        with self._engine.connect() as connection:
            left = self._left(connection, key, self._now_ns())
        return 0.0 if left >= 1.0 else (1.0 - left) / self._per_s

    def _left(self, connection: Connection, key: str, now_ns: int, held: bool = False) -> float:
        c = t.attempt.c
        query = select(c.tokens, c.at_ns).where(c.name == self._name, c.subject == key)
        row = connection.execute(query.with_for_update() if held else query).one_or_none()
        if row is None or row.at_ns > now_ns + SKEW_NS:
            return self._burst
        passed_s = max(0, now_ns - int(row.at_ns)) / S_NS
        return min(self._burst, float(row.tokens) + passed_s * self._per_s)
