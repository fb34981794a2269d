"""Recorder: what `control` writes Events through. A disk that is full or broken never stops the line: what cannot be stored
is kept in memory, bounded, and stored in order as soon as the disk takes it again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from edge_runtime.errors import ResourceError

Item = tuple[str, str, Mapping[str, Any]]
KEPT_ITEMS = 2000
COMMIT_ITEMS = 20


class Store(Protocol):
    def append_many(self, items: Sequence[Item], durable: bool | None = None) -> Any: ...
    def depth(self) -> int: ...


class Recorder:
    """`poke` is called after each successful commit (it wakes `link`). `lost` counts what did not fit into memory."""

    def __init__(self, store: Store, poke: Callable[[], object] = lambda: None) -> None:
        self._store, self.poke = store, poke
        self._kept: deque[Item] = deque()
        self.lost = 0
        self.error = ""

    def record(self, *items: Item) -> bool:
        """Store the items, after everything that still waits in memory. False where the disk refused."""
        self._kept.extend(items)
        if not self._kept:
            return True
        try:
            self._flush(len(items))
        except ResourceError as error:
            self.error = str(error)
            while len(self._kept) > KEPT_ITEMS:
                self._kept.popleft()
                self.lost += 1
            return False
        self.error = ""
        self.poke()
        return True

    def _flush(self, newest: int) -> None:
        """What waited goes in pieces of `COMMIT_ITEMS`, because one commit is bounded; the newest items in one commit."""
        while len(self._kept) > newest:
            self._take(min(COMMIT_ITEMS, len(self._kept) - newest))
        self._take(len(self._kept))

    def _take(self, count: int) -> None:
        self._store.append_many([self._kept[i] for i in range(count)])
        for _ in range(count):
            self._kept.popleft()

    def depth(self) -> int:
        """How many stored Events wait for the cloud."""
        return self._store.depth()

    @property
    def waiting(self) -> int:
        return len(self._kept)
