"""What the outbox gives up, and in which order, when its disk budget is used up. One table, in the order of giving up.

    evict_oldest  the oldest records of the stream go
    thin          first all but every n-th go, oldest first; when that is not enough, the oldest
    refuse        nothing stored is ever given up; where there is no room, a new record is refused

All streams that thin are thinned before anything is evicted whole. Each record given up is told as part of a range
(`wire.batch.Shed`); the newest record of a stream always stays, because the chain goes on from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from edge_runtime.wire.envelope import STREAMS

DAY_S = 86_400
MIB = 1024 * 1024
LEAST_BUDGET_BYTES = 32 * MIB


@dataclass(frozen=True)
class ClassPolicy:
    """`every`: the n of `thin`. `retention_s`: records older than this go, told as policy ``retention``; 0 keeps them until
    the budget is used up. Age is running time of the device: a wrong wall clock ages nothing."""

    policy: Literal["evict_oldest", "thin", "refuse"] = "evict_oldest"
    every: int = 10
    retention_s: int = 0

    def __post_init__(self) -> None:
        if self.every < 2 or self.retention_s < 0:
            raise ValueError(f"every = {self.every}, retention_s = {self.retention_s}: expected >= 2 and >= 0")


#: in the order in which they are given up
CLASSES: dict[str, ClassPolicy] = {
    "review": ClassPolicy(retention_s=30 * DAY_S),
    "metric": ClassPolicy("thin", retention_s=90 * DAY_S),
    "telemetry": ClassPolicy("thin"),
    "link": ClassPolicy(),
    "health": ClassPolicy(),
    "decision": ClassPolicy(),
    "command": ClassPolicy(),
    "fault": ClassPolicy(),
    "alarm": ClassPolicy("refuse"),
}


@dataclass(frozen=True)
class Storage:
    """The `[storage]` section.

    `budget_bytes`: what the whole state folder may take on the disk, as `du` counts it: database, its log, kept frames,
    slots and staged updates together; 0: no limit. `reserve_bytes` of it are for alarms alone. `staging_bytes` are held
    back for an update. `classes`: stream → its policy, where it is not that of the table."""

    budget_bytes: int = 1024 * MIB
    reserve_bytes: int = 2 * MIB
    staging_bytes: int = 16 * MIB
    classes: Mapping[str, ClassPolicy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        least = LEAST_BUDGET_BYTES + self.reserve_bytes + self.staging_bytes
        if self.reserve_bytes < 0 or self.staging_bytes < 0 or (self.budget_bytes and self.budget_bytes < least):
            raise ValueError(
                f"budget_bytes = {self.budget_bytes}: expected 0 (no limit) or at least {least} "
                "(32 MiB + reserve_bytes + staging_bytes)"
            )
        unknown = set(self.classes) - set(STREAMS)
        if unknown:
            raise ValueError(f"classes: no stream {', '.join(sorted(unknown))}; there are {', '.join(STREAMS)}")

    def policy(self, stream: str) -> ClassPolicy:
        return self.classes.get(stream, CLASSES[stream])


class Step(NamedTuple):
    """One thing to try: `every` 0 evicts, n > 0 thins."""

    stream: str
    every: int


def steps(storage: Storage) -> Iterator[Step]:
    """What to try, in order, to make room."""
    for stream in CLASSES:
        if storage.policy(stream).policy == "thin":
            yield Step(stream, storage.policy(stream).every)
    for stream in CLASSES:
        if storage.policy(stream).policy != "refuse":
            yield Step(stream, 0)
