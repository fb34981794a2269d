"""What is compared. Read from JSON with every key checked, never changed afterwards.

- An arm is a bundle, by its digest; `share` is its part of the devices. The first arm is what the others are compared with.
- Which arm a device is in is a hash of experiment and device, as in rollouts (`cloud.rollout.cohort`), told by its tag
  ``cohort.<experiment>``. Devices get the bundle of their arm by a rollout with that filter, and by no other way.
- `metric`: what counts of a Decision. `labelled`: of what people said of parts (`outcomes`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cloud.rollout.cohort import position
from cloud.rollout.tags import check_filter
from edge_runtime.wire.manifest import SHA256

ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
ARMS = (2, 8)
#: metric → results of Decisions that count as an event (docs/reference/cloud.md)
METRICS: Mapping[str, tuple[int, ...]] = {
    "reject": (2,),
    "review": (3,),
    "fault": (4,),
    "not_passed": (2, 3, 4),
    "labelled": (),
}
BETTER = ("low", "high")


@dataclass(frozen=True)
class Arm:
    """`digest`: of the bundle, as Decisions name it."""

    name: str
    digest: str
    share: float = 1.0

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"arm {self.name[:40]!r}: expected 1 to 32 characters of A-Z a-z 0-9 _ -")
        if not SHA256.fullmatch(self.digest):
            raise ValueError(f"arm {self.name}: digest {self.digest[:80]!r}: expected 64 hex digits")
        if not 0.0 < self.share <= 1000.0:
            raise ValueError(f"arm {self.name}: share is {self.share:g}, expected above 0, up to 1000")


@dataclass(frozen=True)
class Experiment:
    """`effect`: the difference that is worth finding; it only decides how soon, not whether, one is found. `alpha`: the chance
    that arms which are alike are told apart, however often one looks."""

    arms: tuple[Arm, ...]
    metric: str = "reject"
    better: str = "low"
    effect: float = 0.02
    alpha: float = 0.05
    where: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not ARMS[0] <= len(self.arms) <= ARMS[1]:
            raise ValueError(f"arms: {len(self.arms)} of them, expected {ARMS[0]} to {ARMS[1]}")
        for what in ("name", "digest"):
            if len({getattr(arm, what) for arm in self.arms}) < len(self.arms):
                raise ValueError(f"arms: two have the same {what}")
        if self.metric not in METRICS:
            raise ValueError(f"metric is {self.metric[:40]!r}, expected one of {', '.join(METRICS)}")
        if self.better not in BETTER:
            raise ValueError(f"better is {self.better[:40]!r}, expected low or high")
        if not 0.0 < self.effect < 1.0:
            raise ValueError(f"effect is {self.effect:g}, expected between 0 and 1")
        if not 0.0 < self.alpha <= 0.5:
            raise ValueError(f"alpha is {self.alpha:g}, expected above 0, up to 0.5")
        check_filter(self.where)

    @property
    def shares(self) -> tuple[float, ...]:
        """Of one."""
        total = sum(arm.share for arm in self.arms)
        return tuple(arm.share / total for arm in self.arms)

    def arm_of(self, experiment: str, device: str) -> int:
        """The number of a device's arm."""
        at, upto = position(experiment, device), 0.0
        for number, share in enumerate(self.shares):
            upto += share
            if at < upto:
                return number
        return len(self.arms) - 1

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)


def tag_of(experiment: str) -> str:
    return f"cohort.{experiment}"


def experiment_of(text: str) -> Experiment:
    """Of the text that `to_json` made."""
    value: dict[str, Any] = json.loads(text)
    return Experiment(
        **{**value, "arms": tuple(Arm(**arm) for arm in value["arms"]), "where": tuple(value["where"])},
    )
