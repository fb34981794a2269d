"""Everything that the updater stands between, as it is given to it; `simulated` has fakes of all."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edge_runtime.clock import Clock
from edge_runtime.update.cloud_port import CloudPort
from edge_runtime.update.gate import Gate
from edge_runtime.update.tuf.repository import TrustedRepository
from edge_runtime.update.tuf.target import Target

DOWNLOADS = Path("update") / "download"

#: stream, kind, body of an Event
Item = tuple[str, str, Mapping[str, object]]
#: bytes that are there, and those that there will be
Progress = Callable[[int, int], None]


class Get(Protocol):
    """Fetches an artifact, whole, with the hash that was signed. `have`: releases in the store, by hash, for deltas."""

    def __call__(self, target: Target, have: Mapping[str, Path], progress: Progress) -> Path: ...


class HaltError(Exception):
    """The updater shall end now, or what it fetches is no longer wanted."""


@dataclass(frozen=True)
class Device:
    """`hardware`: the classes that it is of, the first one is what it is told as."""

    id: str
    boot_id: str
    hardware: Sequence[str]


@dataclass
class Seams:
    """Everything outside. `gate`: of a slot set, None where this device has no such slot set. `tell`: Events. `stopping`: asked
    in the middle of what takes long."""

    cloud: CloudPort
    trust: TrustedRepository
    get: Get
    gate: Callable[[str], Gate | None]
    clock: Clock
    tell: Callable[[Item], None] = lambda item: None
    stopping: Callable[[], bool] = lambda: False
    rng: random.Random = field(default_factory=random.Random)
