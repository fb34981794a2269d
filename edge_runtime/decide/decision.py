"""Decision: what the device answers for one part, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any


class Result(IntEnum):
    """The code written to the PLC."""

    PASS = 1
    REJECT = 2
    REVIEW = 3
    FAULT = 4


class Health(IntEnum):
    """The device health written to the PLC."""

    NOMINAL = 1
    DEGRADED = 2
    SAFE = 3


@dataclass(frozen=True)
class Decision:
    """`part_seq` is the PLC's 16-bit number; (`part_epoch`, `part_seq`) never repeats: the epoch counts wraps and PLC
    resets. `score` is the probability of a defect, 0–1, or None where no model ran. `steps_us` is the time of each
    step in microseconds, `latency_us` from trigger seen to answer written."""

    part_seq: int
    part_epoch: int
    result: Result
    score: float | None
    label: str
    reason: str
    bundle_digest: str
    engine: str
    variant: str
    frame_timestamp_ns: int | None
    latency_us: int
    steps_us: Mapping[str, int] = field(default_factory=dict)
    lot: int | None = None
    serial: int | None = None
    recipe: int | None = None

    def body(self) -> dict[str, Any]:
        """The JSON body of the decision Event."""
        return {**vars(self), "result": int(self.result), "steps_us": dict(self.steps_us)}
