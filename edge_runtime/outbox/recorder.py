"""Recorder: what `control` writes Events through. A disk that is full or broken never stops the line: what cannot be stored
is kept in memory, bounded, and stored in order as soon as the disk takes it again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from edge_runtime.errors import ResourceError

Item = tuple[str, str, Mapping[str, Any]]
KEPT_ITEMS = 2000


class Store(Protocol):
    def append_many(self, items: Sequence[Item], durable: bool | None = None) -> Any: ...
    def depth(self) -> int: ...


class Recorder:
    """`poke` is called after each successful commit (it wakes `link`). `lost` counts what did not fit into memory."""

    def __init__(self, store: Store, poke: Callable[[], None] = lambda: None) -> None:
        self._store, self._poke = store, poke
        self._kept: deque[Item] = deque()
        self.lost = 0
        self.error = ""

    def record(self, *items: Item) -> bool:
        """Store the items, after everything that still waits in memory, in one commit. False where the disk refused."""
        self._kept.extend(items)
        if not self._kept:
            return True
        try:
            self._store.append_many(list(self._kept))
        except ResourceError as error:
            self.error = str(error)
            while len(self._kept) > KEPT_ITEMS:
                self._kept.popleft()
                self.lost += 1
            return False
        self._kept.clear()
        self.error = ""
        self._poke()
        return True

    def depth(self) -> int:
        """How many stored Events wait for the cloud."""
        return self._store.depth()

    @property
    def waiting(self) -> int:
        return len(self._kept)
