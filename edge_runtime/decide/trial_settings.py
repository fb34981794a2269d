"""`[trial]` of device.toml."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrialSection:
    """How a new model proves itself. Before it answers: golden vectors, time on this board, and `parts` live frames or more
    (at most `most_parts`, within `timeout_s`) judged as the running model judged them. Then on trial for at least `parts`
    parts and `soak_s`."""

    parts: int = 50
    most_parts: int = 1000
    min_agreement: float = 0.9
    timeout_s: float = 600.0
    soak_s: float = 5.0
    slow_ratio: float = 2.0
    deadline_share: float = 0.5
    hang_ms: int = 200
    memory_mib: int = 512

    def __post_init__(self) -> None:
        if not 1 <= self.parts <= self.most_parts:
            raise ValueError(f"expected 1 <= parts <= most_parts, found {self.parts} and {self.most_parts}")
        if not 0.0 <= self.min_agreement <= 1.0 or not 0.0 < self.deadline_share <= 1.0:
            raise ValueError("expected min_agreement from 0 to 1 and deadline_share above 0, at most 1")
        if self.slow_ratio < 1.0 or self.timeout_s <= 0.0 or self.soak_s < 0.0:
            raise ValueError("expected slow_ratio of at least 1, timeout_s > 0 and soak_s >= 0")
        if not 50 <= self.hang_ms <= 10_000 or self.memory_mib < 128:
            raise ValueError("expected hang_ms from 50 to 10000 and memory_mib of at least 128")
