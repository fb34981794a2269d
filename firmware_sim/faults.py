"""The faults that a scenario can inject: one table of kinds, and the pure functions that spoil a picture.

A fault with a picture function changes what the camera sends, not what the part is. The others act on the camera, the
part number, the coil or the PLC itself, where firmware_sim/plc.py and the camera act on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]
BLUR_SHARE = 0.04  # Gaussian radius as a share of the shorter side
OCCLUDED_SHARE = 0.7  # of the frame's width
LEVEL_OF_COVER = 35


def black(pixels: Pixels, previous: Pixels | None) -> Pixels:
    return np.zeros_like(pixels)


def saturated(pixels: Pixels, previous: Pixels | None) -> Pixels:
    return np.full_like(pixels, 255)


def frozen(pixels: Pixels, previous: Pixels | None) -> Pixels:
    """The frame before this one, to the last bit; the first frame of all cannot be frozen and stays."""
    return pixels if previous is None else previous


def blurred(pixels: Pixels, previous: Pixels | None) -> Pixels:
    radius = max(2.0, BLUR_SHARE * min(pixels.shape[:2]))
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def occluded(pixels: Pixels, previous: Pixels | None) -> Pixels:
    """A dark, even object covers most of the view from the left."""
    spoiled = pixels.copy()
    spoiled[:, : round(pixels.shape[1] * OCCLUDED_SHARE)] = LEVEL_OF_COVER
    return spoiled


class Kind(NamedTuple):
    """`options` are the keys that a `[[fault]]` of this kind may have beside kind and when, with their defaults."""

    meaning: str
    picture: Callable[[Pixels, Pixels | None], Pixels] | None = None
    options: dict[str, int] = {}  # noqa: RUF012


KINDS: dict[str, Kind] = {
    "black": Kind("the frame is all 0", black),
    "saturated": Kind("the frame is all 255", saturated),
    "frozen": Kind("the frame is the previous one again, bit for bit", frozen),
    "blurred": Kind("the frame is out of focus", blurred),
    "occluded": Kind("a dark object covers 70 % of the frame", occluded),
    "drop_frame": Kind("the camera sends no frame for this part"),
    "duplicate_trigger": Kind("the trigger fires twice for one part: same `part_seq`, the frame is sent twice"),
    "skip_seq": Kind("`part_seq` leaves out `skip` numbers before this part", None, {"skip": 1}),
    "wrap16": Kind("`part_seq` jumps to `to` at this part, so that it soon wraps (65535 → 1)", None, {"to": 65533}),
    "stuck_coil": Kind("from this part on the reject coil stays on when it is next set, until the PLC's time-out"),
    "no_answer": Kind("the PLC answers no request for `duration_ms`", None, {"duration_ms": 500}),
    "reset_plc": Kind("the PLC restarts before this part: registers cleared, `part_seq` from 1, next epoch"),
}


def docs_table() -> str:
    """The table of the reference page."""
    rows = ["| kind | what happens | options |", "|---|---|---|"]
    for name, kind in KINDS.items():
        options = ", ".join(f"`{key}` (default {value})" for key, value in kind.options.items())
        rows.append(f"| `{name}` | {kind.meaning} | {options} |")
    return "\n".join(rows)
