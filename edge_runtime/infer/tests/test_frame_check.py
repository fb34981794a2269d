"""Frames that must not be judged: each kind is recognised, and good frames pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from edge_runtime.infer import frame_check
from edge_runtime.infer.frame_check import FrameMeasure, calibrate, check, judge_measure, measure
from edge_runtime.tests.bundles import make_frame
from edge_runtime.wire.manifest import FrameLimits

LIMITS = calibrate([make_frame(i % 2 == 1, i) for i in range(10)])
GOOD = make_frame(False, 99)
SIDE = GOOD.shape[0]


def occluded() -> NDArray[np.uint8]:
    pixels = GOOD.copy()
    pixels[:, : SIDE * 3 // 4] = 90
    return pixels


def blurred() -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(GOOD).filter(ImageFilter.GaussianBlur(1.2)))


BAD: dict[str, NDArray[np.uint8]] = {
    "black": np.random.default_rng(0).integers(0, 6, (SIDE, SIDE), dtype=np.uint8),
    "saturated": np.random.default_rng(0).integers(248, 256, (SIDE, SIDE), dtype=np.uint8),
    "occluded": occluded(),
    "blurred": blurred(),
    "wrong_size": GOOD[:8],
}


@pytest.mark.parametrize("problem", BAD)
def test_a_bad_frame_is_named(problem: str) -> None:
    assert check(BAD[problem], LIMITS) == problem


def test_every_problem_is_tested() -> None:
    assert {*BAD, "frozen"} == set(frame_check.PROBLEMS)


@pytest.mark.parametrize("seed", range(8))
def test_good_frames_pass(seed: int) -> None:
    assert check(make_frame(seed % 2 == 1, 500 + seed), LIMITS) is None
    colour = np.repeat(make_frame(False, seed)[:, :, None], 3, axis=2)
    assert check(colour, LIMITS) is None


def test_the_same_frame_again_is_frozen_and_one_pixel_makes_it_live() -> None:
    assert check(GOOD, LIMITS) is None
    assert check(GOOD.copy(), LIMITS, GOOD) == "frozen"
    live = GOOD.copy()
    live[3, 3] ^= 1
    assert check(live, LIMITS, GOOD) is None
    strided = np.repeat(GOOD, 2, axis=1)[:, ::2]
    assert check(strided, LIMITS, GOOD) == "frozen"
    assert check(GOOD, LIMITS, GOOD[:32]) is None  # another size is another camera setting


def test_too_large_is_wrong_size() -> None:
    assert check(GOOD, replace(LIMITS, max_width=SIDE - 1)) == "wrong_size"


def test_the_figures_are_what_they_say() -> None:
    halves = np.zeros((32, 32), np.uint8)
    halves[:, 16:] = 255
    m = measure(halves)
    assert (m.mean, m.dark_fraction, m.bright_fraction, m.flat_fraction) == (127.5, 0.5, 0.5, 1.0)
    checker = (np.indices((32, 32)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert measure(checker).flat_fraction == 0.0
    assert measure(checker).sharpness == pytest.approx(4 * 255 / 127.5, rel=1e-3)


def test_the_cost_does_not_grow_with_the_camera() -> None:
    assert max(frame_check.thin(np.zeros((3000, 4000), np.uint8)).shape) < 3 * frame_check.SIDE
    assert frame_check.thin(np.zeros((16, 16), np.uint8)).shape == (16, 16)


def test_the_smallest_frame_can_be_measured() -> None:
    assert isinstance(measure(np.zeros((16, 16), np.uint8)), FrameMeasure)


def test_every_calibration_frame_meets_its_limits() -> None:
    frames = [make_frame(True, i, level) for i, level in enumerate((20, 60, 150, 220, 255))]
    limits = calibrate(frames)
    assert [judge_measure(measure(f), limits) for f in frames] == [None] * len(frames)
    with pytest.raises(ValueError, match="no frames"):
        calibrate([])


def test_default_limits_let_everything_through() -> None:
    assert [check(f, FrameLimits()) for n, f in BAD.items() if n != "wrong_size"] == [None] * 4
