"""Makes the frames of the next parts ready, a few ahead, in a thread: at the trigger nothing is left to be computed.

Order is kept, so that a frozen frame is the one that was sent before it. `take` gives part n once `ready` says so.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firmware_sim.camera import ReadyFrame, encode
from firmware_sim.faults import KINDS
from firmware_sim.scenario import Fault
from firmware_sim.source import Source

AHEAD = 6


@dataclass(frozen=True)
class Upcoming:
    """One part that is about to be inspected, with everything that will happen to it."""

    part_index: int
    frame: ReadyFrame
    faults: tuple[Fault, ...]


class Feeder:
    """`faults_of(part_index)` is asked once for each part, in order."""

    def __init__(self, source: Source, faults_of: Callable[[int], tuple[Fault, ...]]) -> None:
        self._source, self._faults_of = source, faults_of
        self._queue: deque[Upcoming] = deque()
        self._next = 0
        self._previous: NDArray[np.uint8] | None = None
        self._taken = asyncio.Event()
        self.added: Callable[[], None] = lambda: None

    @property
    def ready(self) -> bool:
        return bool(self._queue)

    def take(self) -> Upcoming:
        self._taken.set()
        return self._queue.popleft()

    async def run(self) -> None:
        """Until it is cancelled. A picture that cannot be loaded ends it with a DataError."""
        while True:
            while len(self._queue) < AHEAD:
                faults = self._faults_of(self._next)
                self._queue.append(await asyncio.to_thread(self._make, self._next, faults))
                self._next += 1
                self.added()
            self._taken.clear()
            await self._taken.wait()

    def _make(self, part_index: int, faults: Sequence[Fault]) -> Upcoming:
        pixels, truth = self._source.part(part_index)
        for fault in faults:
            spoil = KINDS[fault.kind].picture
            if spoil is not None:
                pixels = spoil(pixels, self._previous)
        self._previous = pixels
        return Upcoming(part_index, encode(pixels, truth), tuple(faults))
