"""What rollouts need of the registry of artifacts: what it offers now, and the seal under an assignment. And one in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edge_runtime.wire.assignment import KIND, Assignment, Item
from edge_runtime.wire.signed import seal


class Published(Protocol):
    """An artifact as the offline-signed targets name it."""

    @property
    def sha256(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def hardware(self) -> Sequence[str]: ...


class Registry(Protocol):
    def target(self, path: str) -> Published | None:
        """What is published for this path now."""

    def seal(self, device: str, counter: int, items: Mapping[str, Item], now_ns: int, valid_ns: int) -> bytes:
        """The sealed assignment; UsageError where an item names what is not published."""


@dataclass(frozen=True)
class InMemory:
    """One artifact of a registry in memory."""

    sha256: str
    index: int = 1
    hardware: Sequence[str] = ("*",)


@dataclass
class MemoryRegistry:
    """For tests and simulations; `sign` is the key's."""

    sign: Callable[[bytes], bytes]
    artifacts: dict[str, InMemory] = field(default_factory=dict)

    def target(self, path: str) -> InMemory | None:
        return self.artifacts.get(path)

    def seal(self, device: str, counter: int, items: Mapping[str, Item], now_ns: int, valid_ns: int) -> bytes:
        return seal(KIND, Assignment(device, counter, now_ns, now_ns + valid_ns, dict(items)).body(), self.sign)


def offers(registry: Registry, item: Item) -> bool:
    """Whether a device could take it; what is only to be gone back from need not be there any more."""
    found = registry.target(item.target)
    return item.go == "revert" or (found is not None and found.sha256 == item.sha256)
