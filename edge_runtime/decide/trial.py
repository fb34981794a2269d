"""A model on trial, part by part: is it still fit to answer? Pure; the first row that holds sends it back.

crashed    it raised an error
not finite the engine returned a value that is not finite
late       it alone took longer than the deadline, `LATE_PARTS` times running
slow       each of the last `SLOW_PARTS` took more than `slow_ratio` × what the model before it took at the median
faults     `FAULT_PARTS` answers running became `fault`

A single slow part is the board's noise; five running are the model's. What it decides, and whether that agrees with the model
before it, is judged outside of this process (`update.trial`).
"""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_runtime.infer.model import Looked

LATE_PARTS = 2
SLOW_PARTS = 5
FAULT_PARTS = 3
PACE_PARTS = 101
PACE_LEAST = 9  # parts that the model before must have judged, to say what is slow


class Pace:
    """What the newest parts took in the model, in microseconds."""

    def __init__(self) -> None:
        self._us: deque[int] = deque(maxlen=PACE_PARTS)

    def add(self, looked: Looked) -> None:
        if looked.judgement is not None:
            self._us.append(sum(looked.steps_us.values()))

    @property
    def usual_us(self) -> float | None:
        return median(self._us) if len(self._us) >= PACE_LEAST else None

    @property
    def p99_us(self) -> float | None:
        return sorted(self._us)[max(0, -(-99 * len(self._us) // 100) - 1)] if self._us else None


class Trial:
    """`usual_us`: the median of the model before; None: not known, nothing is called slow."""

    def __init__(self, slow_ratio: float, deadline_ms: float, usual_us: float | None) -> None:
        self._slow_us = None if usual_us is None else slow_ratio * usual_us
        self._deadline_us = deadline_ms * 1000.0
        self._late = self._slow = self._faults = 0
        self.pace = Pace()
        self.parts = 0

    def looked(self, looked: Looked) -> str:
        """Why it must go back, "" where it may stay."""
        if looked.judgement is None:
            return ""
        if not looked.judgement.finite:
            return "not finite: the engine returned a value that is not finite"
        self.parts += 1
        self.pace.add(looked)
        took_us = sum(looked.steps_us.values())
        self._late = self._late + 1 if took_us > self._deadline_us else 0
        self._slow = self._slow + 1 if self._slow_us is not None and took_us > self._slow_us else 0
        if self._late >= LATE_PARTS:
            return (
                f"late: {self._late} parts running took longer than the deadline, the last one {took_us / 1000:.1f} ms"
            )
        if self._slow >= SLOW_PARTS:
            limit_ms = (self._slow_us or 0.0) / 1000
            return f"slow: {self._slow} parts running took more than {limit_ms:.2f} ms, the last one {took_us / 1000:.2f} ms"
        return ""

    def answered(self, fault: bool) -> str:
        """What became of its answer."""
        self._faults = self._faults + 1 if fault else 0
        return f"faults: {self._faults} answers running became fault" if self._faults >= FAULT_PARTS else ""
