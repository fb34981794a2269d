"""What the in-memory camera adds to the contract: a frame that never comes."""

from __future__ import annotations

import numpy as np

from edge_runtime.field.camera_memory import MemoryCamera


def test_a_frame_that_never_comes_is_none() -> None:
    camera = MemoryCamera(lambda trigger: None if trigger == 2 else np.full((2, 2), trigger, np.uint8))
    camera.open()
    assert camera.frame(2, 1.0) is None
    frame = camera.frame(3, 1.0)
    assert frame is not None
    assert int(frame.pixels[0, 0]) == 3
