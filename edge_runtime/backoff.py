"""Exponential back-off with full jitter: a random time between 0 and a ceiling that doubles (AWS Architecture Blog, 2015)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """`next_s` gives the time to wait before the next try; `reset` after a success. Both bounds are in seconds."""

    first_s: float = 0.2
    limit_s: float = 30.0
    rng: random.Random = field(default_factory=random.Random)
    tries: int = 0

    def next_s(self) -> float:
        ceiling = min(self.limit_s, self.first_s * 2 ** min(self.tries, 30))
        self.tries += 1
        return self.rng.uniform(0.0, ceiling)

    def reset(self) -> None:
        self.tries = 0
