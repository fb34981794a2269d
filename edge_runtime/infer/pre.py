"""From a raw frame to the network's input: the one function that training and the device both use.

Resizing is Pillow's box filter (every source pixel counts once, so that a small defect cannot fall between samples);
normalising makes the frame independent of exposure: per image to mean 0 and standard deviation 1, or by fixed figures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_runtime.wire.manifest import InputSpec

RESIZE = {"area": "BOX", "bilinear": "BILINEAR"}
NORMALISE = ("per_image", "mean_std")
STD_FLOOR = 4.0  # grey levels; keeps a black or flat frame from turning into amplified noise


def preprocess(frame: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """`frame`: uint8 (h, w) or (h, w, 3). Returns float32 (1, channels, spec.height, spec.width), C-contiguous.

    ValueError if the frame has another type or number of dimensions."""
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] != 3):
        raise ValueError(
            f"frame is {frame.dtype} with shape {frame.shape}, expected uint8 (height, width) or (height, width, 3)"
        )
    if frame.shape == ((spec.height, spec.width) if spec.channels == 1 else (spec.height, spec.width, 3)):
        return normalise(frame, spec)
    from PIL import Image  # two megabytes, and no need of them where the camera gives the network's size

    image = Image.fromarray(np.ascontiguousarray(frame))
    if image.mode == "RGB" and spec.channels == 1:
        image = image.convert("L")
    elif image.mode == "L" and spec.channels == 3:
        image = image.convert("RGB")
    small = np.asarray(image.resize((spec.width, spec.height), Image.Resampling[RESIZE[spec.resize]]))
    return normalise(small, spec)


def normalise(small: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """uint8 (spec.height, spec.width[, 3]) to the network's float32 input."""
    x = small.astype(np.float32)
    if spec.normalise == "per_image":
        x -= x.mean()
        x *= 1.0 / max(float(np.sqrt(np.vdot(x, x) / x.size)), STD_FLOOR)
    else:
        x -= spec.mean
        x *= 1.0 / spec.std
    return x[None, None] if x.ndim == 2 else np.ascontiguousarray(x.transpose(2, 0, 1))[None]
