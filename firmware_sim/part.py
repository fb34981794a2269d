"""One part on the belt: what it truly is, what was answered, and what became of it at the gate.

A part is diverted unless its answer is `pass`: reject, review, fault and silence all divert. The first answer decides;
further ones are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PASS, REJECT, REVIEW, FAULT = 1, 2, 3, 4
RESULTS = (PASS, REJECT, REVIEW, FAULT)


@dataclass(frozen=True)
class Truth:
    """What the image source knows of a part."""

    class_name: str
    defect: bool


@dataclass
class Part:
    part_index: int
    part_seq: int
    epoch: int
    serial: int
    lot: int
    truth: Truth
    triggered_ns: int
    wall_ns_triggered: int
    fault_injected: str | None = None
    result: int | None = None
    score: int | None = None
    latency_ms: float | None = None
    answers: int = 0
    answers_differ: bool = False
    pulse_seen: bool = False

    def answer(self, result: int, score: int, now_ns: int) -> None:
        """An answer written at `now_ns`, of the clock that `triggered_ns` was taken from."""
        self.answers += 1
        if self.result is None:
            self.result, self.score = result, score
            self.latency_ms = round((now_ns - self.triggered_ns) / 1e6, 4)
        elif result != self.result:
            self.answers_differ = True

    @property
    def answered(self) -> bool:
        return self.result is not None

    @property
    def diverted(self) -> bool:
        return self.result != PASS

    def log_row(self) -> dict[str, Any]:
        return {
            "part_index": self.part_index,
            "part_seq": self.part_seq,
            "epoch": self.epoch,
            "serial": self.serial,
            "lot": self.lot,
            "truth_class": self.truth.class_name,
            "truth_defect": self.truth.defect,
            "answered": self.answered,
            "answers": self.answers,
            "answers_differ": self.answers_differ,
            "result": self.result,
            "score": self.score,
            "latency_ms": self.latency_ms,
            "diverted": self.diverted,
            "pulse_seen": self.pulse_seen,
            "wall_ns_triggered": self.wall_ns_triggered,
            "fault_injected": self.fault_injected,
        }
