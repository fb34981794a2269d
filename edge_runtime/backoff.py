"""Exponential back-off with full jitter: a random time between 0 and a ceiling that doubles (AWS Architecture Blog, 2015)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """`next_s` gives the time to wait before the next try; `reset` after a success. All bounds are in seconds; after
    `floor_after` tries in a row the wait is at least `floor_s`."""

    first_s: float = 0.2
    limit_s: float = 30.0
    rng: random.Random = field(default_factory=random.Random)
    tries: int = 0
    floor_s: float = 0.0
    floor_after: int = 0

    def next_s(self) -> float:
        ceiling = min(self.limit_s, self.first_s * 2 ** min(self.tries, 30))
        floor = self.floor_s if self.tries >= self.floor_after else 0.0
        self.tries += 1
        return self.rng.uniform(floor, max(floor, ceiling))

    def reset(self) -> None:
        self.tries = 0
