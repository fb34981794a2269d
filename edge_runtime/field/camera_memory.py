"""A camera in memory: frames handed in by the test or the benchmark. It ships with the product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import EndpointError
from edge_runtime.field.camera import Frame


class MemoryCamera:
    """`source(trigger)` gives the pixels of a trigger, or None where the frame never comes. `alive = False`: gone."""

    repeats = False

    def __init__(self, source: Callable[[int], NDArray[np.uint8] | None]) -> None:
        self._source = source
        self.alive = True

    def open(self) -> None:
        if not self.alive:
            raise EndpointError("memory camera: switched off")

    def frame(self, trigger: int, timeout_s: float) -> Frame | None:
        if not self.alive:
            raise EndpointError("memory camera: switched off")
        pixels = self._source(trigger)
        return None if pixels is None else Frame(trigger, trigger, pixels)

    def idle(self) -> None:
        pass

    def close(self) -> None:
        pass

    def describe(self) -> dict[str, Any]:
        return {"driver": "memory"}
