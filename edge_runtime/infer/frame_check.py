"""Is this frame fit to be judged? Black, saturated, frozen, blurred or occluded frames are not guessed at.

The limits are in the bundle (`FrameLimits`), calibrated on its training images by `calibrate`. Everything is measured
on a grey image of at most `SIDE` pixels a side, so that the cost does not grow with the camera.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.wire.manifest import FrameLimits

SIDE = 128
DARK, BRIGHT = 8, 247
BLOCK = 8
FLAT_STD = 1.5

PROBLEMS = ("wrong_size", "frozen", "black", "saturated", "occluded", "blurred")


@dataclass(frozen=True)
class FrameMeasure:
    """`mean` 0–255; fractions 0–1; `sharpness`: mean absolute Laplacian over standard deviation; `flat_fraction`:
    share of 8 × 8 blocks without any texture."""

    mean: float
    dark_fraction: float
    bright_fraction: float
    sharpness: float
    flat_fraction: float


def thin(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every n-th pixel, grey, at most about SIDE × SIDE."""
    step = max(1, min(pixels.shape[:2]) // SIDE)
    small = pixels[::step, ::step]
    return np.ascontiguousarray(small if small.ndim == 2 else small[:, :, 1])


def measure(pixels: NDArray[np.uint8]) -> FrameMeasure:
    """The figures that the limits are about; needs at least 16 × 16 pixels."""
    grey = thin(pixels)
    x = grey.astype(np.float32)
    around = x[:-2, 1:-1] + x[2:, 1:-1]
    around += x[1:-1, :-2]
    around += x[1:-1, 2:]
    around -= 4 * x[1:-1, 1:-1]
    mean = float(x.mean())
    deviation = float(np.sqrt(max(float(np.vdot(x, x)) / x.size - mean * mean, 0.0)))
    rows, cols = x.shape[0] // BLOCK, x.shape[1] // BLOCK
    blocks = x[: rows * BLOCK, : cols * BLOCK]
    first = block_means(blocks)
    variance = block_means(blocks * blocks) - first * first
    return FrameMeasure(
        mean=mean,
        dark_fraction=float(np.count_nonzero(grey <= DARK)) / x.size,
        bright_fraction=float(np.count_nonzero(grey >= BRIGHT)) / x.size,
        sharpness=float(np.abs(around, out=around).mean()) / max(deviation, 1.0),
        flat_fraction=float(np.count_nonzero(variance < FLAT_STD**2)) / variance.size,
    )


def block_means(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of BLOCK × BLOCK cells of an array whose sides are multiples of BLOCK (as two products: a sum over two strided
    axes is several times slower)."""
    rows, cols = x.shape[0] // BLOCK, x.shape[1] // BLOCK
    share = np.full(BLOCK, 1 / BLOCK, np.float32)
    down = share @ x.reshape(rows, BLOCK, cols * BLOCK)
    return np.asarray(down.reshape(rows, cols, BLOCK) @ share)


def check(pixels: NDArray[np.uint8], limits: FrameLimits, previous: NDArray[np.uint8] | None = None) -> str | None:
    """The problem of a frame, or None. `previous`: the frame before it; an equal one is a frozen camera, since two real
    exposures never agree in every pixel's noise."""
    height, width = pixels.shape[:2]
    if not (limits.min_height <= height <= limits.max_height and limits.min_width <= width <= limits.max_width):
        return "wrong_size"
    if previous is not None and same(pixels, previous):
        return "frozen"
    return judge_measure(measure(pixels), limits)


def same(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    """Equal in every pixel; one row tells most frames apart."""
    middle = len(a) // 2
    return a.shape == b.shape and np.array_equal(a[middle], b[middle]) and np.array_equal(a, b)


def judge_measure(m: FrameMeasure, limits: FrameLimits) -> str | None:
    if m.mean < limits.mean_min or m.dark_fraction > limits.dark_fraction_max:
        return "black"
    if m.mean > limits.mean_max or m.bright_fraction > limits.bright_fraction_max:
        return "saturated"
    if m.flat_fraction > limits.flat_fraction_max:
        return "occluded"
    if m.sharpness < limits.sharpness_min:
        return "blurred"
    return None


def calibrate(frames: Iterable[NDArray[np.uint8]]) -> FrameLimits:
    """Limits that every given (sound or defective, but well exposed) frame meets, with a margin."""
    measures = [measure(frame) for frame in frames]
    if not measures:
        raise ValueError("no frames to calibrate the frame limits on")
    means = [m.mean for m in measures]

    def above(values: list[float], least: float) -> float:
        top = max(values)
        return min(0.98, max(top + 0.5 * (1.0 - top) * 0.5, least))

    return FrameLimits(
        mean_min=0.6 * min(means),
        mean_max=min(252.0, 255.0 - 0.6 * (255.0 - max(means))),
        dark_fraction_max=above([m.dark_fraction for m in measures], 0.25),
        bright_fraction_max=above([m.bright_fraction for m in measures], 0.25),
        sharpness_min=0.75 * min(m.sharpness for m in measures),
        flat_fraction_max=above([m.flat_fraction for m in measures], 0.1),
    )
