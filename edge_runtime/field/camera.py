"""Camera: delivers the frame that belongs to a trigger. One seam; the drivers are in `camera_*.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Frame:
    """`trigger` is the PLC's `part_seq`; `pixels` is uint8, (height, width) grey or (height, width, 3) RGB."""

    trigger: int
    timestamp_ns: int
    pixels: NDArray[np.uint8]
    source: str = ""


class Camera(Protocol):
    """Raises `errors.EndpointError` when the camera is gone; after that `open` may be called again.

    `repeats`: equal frames one after the other are no sign of a frozen camera (a folder that goes round)."""

    repeats: bool

    def open(self) -> None: ...

    def frame(self, trigger: int, timeout_s: float) -> Frame | None:
        """The frame of this trigger; frames of earlier triggers are thrown away. None if it does not come in time."""

    def idle(self) -> None:
        """Called between parts: a short time in which the next frame may be prepared."""

    def close(self) -> None: ...

    def describe(self) -> dict[str, Any]: ...
