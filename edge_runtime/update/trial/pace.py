"""What a candidate takes on this board, against the running model in the same breath: both judge the same frames in turns, so
that what else the board does meets both alike.

This process gives way to every other, so a run in which the system took the processor away tells nothing of the model and is
taken again. A figure is taken in each of `ROUNDS` rounds and its lowest value counts: a spike is the board's, a slow model is
slow in every round; and it is refused only where a second measurement says so, too. What takes no longer than what runs is not
refused because the deadline is short: that the running model keeps it is seen every day, and this process sees a busier board.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROUNDS = 3
RUNS = 100
WARM_RUNS = 5
TRIES = 4  # of each run
NO_SLOWER = 1.25

Look = Callable[[NDArray[np.uint8]], object]


@dataclass(frozen=True)
class Paces:
    """Milliseconds a part; of the running model None where there is none."""

    p50_ms: float
    p99_ms: float
    running_p50_ms: float | None = None
    running_p99_ms: float | None = None

    @property
    def measured(self) -> dict[str, float]:
        return {name: value for name, value in vars(self).items() if value is not None}


def measure(
    candidate: Look,
    running: Look | None,
    frames: Sequence[NDArray[np.uint8]],
    runs: int = RUNS,
    timer: Callable[[], int] = time.perf_counter_ns,
    taken_away: Callable[[], int] = lambda: resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw,
) -> Paces:
    """`taken_away`: how often the system took the processor away so far."""
    looks = [candidate] if running is None else [candidate, running]
    for look in looks * WARM_RUNS:
        look(frames[0])
    rounds = np.empty((ROUNDS, len(looks), runs))
    for place in np.ndindex(ROUNDS, runs):
        for n, look in enumerate(looks):
            rounds[place[0], n, place[1]] = _run_ms(look, frames[place[1] % len(frames)], timer, taken_away)
    p50, p99 = (np.percentile(rounds, share, axis=2).min(0).round(4).tolist() for share in (50, 99))
    return Paces(p50[0], p99[0], p50[1], p99[1]) if running else Paces(p50[0], p99[0])


def _run_ms(look: Look, frame: NDArray[np.uint8], timer: Callable[[], int], taken_away: Callable[[], int]) -> float:
    shortest_ms = float("inf")
    for _ in range(TRIES):
        before, begin = taken_away(), timer()
        look(frame)
        took_ms = (timer() - begin) / 1e6
        if taken_away() == before:
            return took_ms
        shortest_ms = min(shortest_ms, took_ms)
    return shortest_ms


def problem(paces: Paces, slow_ratio: float, deadline_ms: float, deadline_share: float) -> str:
    """Why it is too slow, "" where it is not."""
    limit_ms = deadline_ms * deadline_share
    for name in ("p50", "p99"):
        own, other = getattr(paces, f"{name}_ms"), getattr(paces, f"running_{name}_ms")
        if other is not None and own > slow_ratio * other:
            return f"too slow: {name} {own:.2f} ms, more than {slow_ratio:g} times the {other:.2f} ms of what runs"
    no_slower = paces.running_p50_ms is not None and paces.p50_ms <= NO_SLOWER * paces.running_p50_ms
    if paces.p99_ms > limit_ms and not no_slower:
        return f"too slow: p99 {paces.p99_ms:.2f} ms, more than {limit_ms:.2f} ms of the {deadline_ms:g} ms deadline"
    return ""
