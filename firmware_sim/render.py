"""Machined surfaces, drawn: ground metal with tool marks, uneven light and sensor noise, and six defects with masks.

A sound part is not a clean picture. It has stains, bright grinding lines, vignetting and a lighting drift, so that
telling a part apart needs the defect and not the dirt. Everything comes from the generator that is handed in: equal
generators give equal pictures. Coordinates are (row, column); grinding runs from top to bottom.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

CLASSES = ("free", "blowhole", "break", "crack", "fray", "uneven", "scratch")

Picture = NDArray[np.float32]
Mask = NDArray[np.bool_]


def render(
    rng: np.random.Generator, class_name: str, height: int = 320, width: int = 280, light: float = 0.0
) -> tuple[NDArray[np.uint8], Mask | None]:
    """One part of class `class_name` as uint8 (height, width), with its defect's mask (None for ``free``).

    `light` −1…1 darkens or brightens the whole scene, as a lamp that ages. ValueError for an unknown class."""
    if class_name not in CLASSES:
        raise ValueError(f"class is {class_name!r}, expected one of {', '.join(CLASSES)}")
    if not -1.0 <= light <= 1.0:
        raise ValueError(f"light is {light}, expected −1 to 1")
    surface = _surface(rng, height, width)
    mask = None
    if class_name != "free":
        surface, mask = DEFECTS[class_name](rng, surface)
    return _expose(rng, surface, light), mask


def _noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> Picture:
    """Smooth noise of deviation about 1: `cells` random values a side, interpolated to `shape`."""
    coarse = rng.standard_normal((max(2, cells[0]), max(2, cells[1]))).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _surface(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Reflectance around 1: grinding texture, tool marks, stains."""
    shape = (height, width)
    lines = _noise(rng, shape, (int(rng.integers(2, 7)), width))
    fine = _noise(rng, shape, (height // 10, width))
    rough = _noise(rng, shape, (height // 2, width // 2))
    cloud = _noise(rng, shape, (5, 4))
    contrast = float(rng.uniform(0.04, 0.11))
    surface = 1.0 + contrast * (0.7 * lines + 0.5 * fine + 0.4 * rough) + float(rng.uniform(0.01, 0.07)) * cloud
    surface *= 1.0 + float(rng.uniform(0.0, 0.12)) * np.maximum(_noise(rng, shape, (2, width // 4)) - 0.8, 0.0)
    for _ in range(int(rng.integers(0, 4))):
        surface *= 1.0 - float(rng.uniform(0.03, 0.12)) * _stain(rng, shape)
    if rng.random() < 0.5:
        surface *= 1.0 - float(rng.uniform(0.05, 0.2)) * _specks(rng, shape)
    return np.asarray(surface, np.float32)


def _specks(rng: np.random.Generator, shape: tuple[int, int]) -> Picture:
    """Dust: a few faint dots, smaller and softer than a blowhole."""
    image, draw = _canvas(shape)
    for _ in range(int(rng.integers(1, 9))):
        y, x = _place(rng, shape, 0.0)
        size = float(rng.uniform(0.5, 1.6))
        draw.ellipse((x - size, y - size, x + size, y + size), fill=255)
    return _soft(image, 1.2)


def _stain(rng: np.random.Generator, shape: tuple[int, int]) -> Picture:
    """A soft smudge, 0 to 1: wide, without an edge."""
    y, x = _place(rng, shape, 0.0)
    spread = rng.uniform(0.04, 0.14, 2) * shape[0]
    rows = np.exp(-0.5 * ((np.arange(shape[0], dtype=np.float32) - y) / spread[0]) ** 2)
    cols = np.exp(-0.5 * ((np.arange(shape[1], dtype=np.float32) - x) / spread[1]) ** 2)
    return np.asarray(np.outer(rows, cols), np.float32)


def _expose(rng: np.random.Generator, surface: Picture, light: float) -> NDArray[np.uint8]:
    """Lamp, vignetting and sensor: grey levels of the camera."""
    height, width = surface.shape
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    slope = rng.uniform(-0.22, 0.22, 2).astype(np.float32)
    lamp = 1.0 + slope[0] * y + slope[1] * x - float(rng.uniform(0.0, 0.15)) * (x * x + y * y)
    level = float(rng.uniform(80, 130)) * 2.0 ** (0.7 * light)
    grey = level * surface * lamp
    grey += np.sqrt(np.maximum(grey, 1.0)) * float(rng.uniform(0.12, 0.3)) * rng.standard_normal(grey.shape, np.float32)
    return np.asarray(np.clip(grey, 0, 255), np.uint8)


def _place(rng: np.random.Generator, shape: tuple[int, int], margin: float) -> tuple[float, float]:
    """A point at least `margin` (share of the side) from the border."""
    low, high = margin, 1.0 - margin
    return float(rng.uniform(low, high)) * shape[0], float(rng.uniform(low, high)) * shape[1]


def _soft(mask: Image.Image, radius: float) -> Picture:
    return np.asarray(mask.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255.0


def _canvas(shape: tuple[int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("L", (shape[1], shape[0]))
    return image, ImageDraw.Draw(image)


def _is_set(mask: Image.Image) -> Mask:
    return np.asarray(mask) > 127


def _outline(
    rng: np.random.Generator, y: float, x: float, radius: tuple[float, float], rough: float
) -> list[tuple[float, float]]:
    """A closed wobbly outline round (y, x) as (x, y) points."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    wobble = 1.0 + rough * sum(
        rng.standard_normal() / k * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (1, 2, 3, 5)
    )
    turn = rng.uniform(0, np.pi)
    u, v = radius[0] * wobble * np.cos(angle), radius[1] * wobble * np.sin(angle)
    rows, cols = y + u * np.cos(turn) - v * np.sin(turn), x + u * np.sin(turn) + v * np.cos(turn)
    return list(zip(cols.tolist(), rows.tolist(), strict=True))


def _blowhole(rng: np.random.Generator, surface: Picture) -> tuple[Picture, Mask]:
    """One to three small dark holes with a bright rim on one side."""
    image, draw = _canvas(surface.shape)
    for _ in range(int(rng.integers(1, 4))):
        y, x = _place(rng, surface.shape, 0.06)
        size = float(rng.uniform(2.0, 8.0))
        draw.polygon(_outline(rng, y, x, (size, size * float(rng.uniform(0.5, 1.0))), 0.15), fill=255)
    hole = _soft(image, 1.0)
    rim = np.roll(_soft(image, 2.0), (2, 2), (0, 1)) * (1.0 - hole)
    drilled = surface * (1.0 - float(rng.uniform(0.25, 0.7)) * hole) + float(rng.uniform(0.05, 0.3)) * rim
    return np.asarray(drilled, np.float32), _is_set(image)


def _break(rng: np.random.Generator, surface: Picture) -> tuple[Picture, Mask]:
    """A piece broken off an edge or a corner: a rough patch without grinding, with a dark fracture line."""
    height, width = surface.shape
    edge = int(rng.integers(0, 4))
    along = float(rng.uniform(0.0, 1.0))
    y, x = ((0.0, along), (1.0, along), (along, 0.0), (along, 1.0))[edge]
    radius = (float(rng.uniform(9, 46)), float(rng.uniform(9, 46)))
    image, draw = _canvas(surface.shape)
    draw.polygon(_outline(rng, y * height, x * width, radius, 0.2), fill=255)
    inside = _soft(image, 1.2)
    fracture = np.clip(4.0 * inside * (1.0 - inside), 0, 1)
    flat = float(rng.uniform(0.45, 0.95)) + 0.12 * _noise(rng, surface.shape, (height // 8, width // 8))
    broken = surface * (1.0 - inside) + flat * inside - float(rng.uniform(0.1, 0.4)) * fracture
    return np.asarray(np.maximum(broken, 0.05), np.float32), _is_set(image)


def _path(
    rng: np.random.Generator, start: tuple[float, float], angle: float, length: float, wander: float
) -> list[tuple[float, float]]:
    """A wandering line as (x, y) points; `angle` 0 is downwards."""
    steps = max(2, int(length / 4.0))
    angles = angle + np.cumsum(wander * rng.standard_normal(steps))
    rows = start[0] + np.cumsum(np.concatenate([[0.0], 4.0 * np.cos(angles)]))
    cols = start[1] + np.cumsum(np.concatenate([[0.0], 4.0 * np.sin(angles)]))
    return list(zip(cols.tolist(), rows.tolist(), strict=True))


def _crack(rng: np.random.Generator, surface: Picture) -> tuple[Picture, Mask]:
    """A thin dark wandering line, sometimes with a branch; mostly across the grinding."""
    image, draw = _canvas(surface.shape)
    start = _place(rng, surface.shape, 0.2)
    angle = float(rng.uniform(0.25, 0.75)) * np.pi * (1 if rng.random() < 0.5 else -1)
    points = _path(rng, start, angle, float(rng.uniform(40, 130)), 0.22)
    thickness = int(rng.integers(2, 4))
    draw.line(points, fill=255, width=thickness)
    if rng.random() < 0.5:
        x, y = points[len(points) // 2]
        draw.line(_path(rng, (y, x), angle + 0.8, float(rng.uniform(15, 45)), 0.25), fill=255, width=thickness)
    depth = float(rng.uniform(0.22, 0.65))
    return surface * (1.0 - depth * _soft(image, 0.6)), _is_set(image)


def _scratch(rng: np.random.Generator, surface: Picture) -> tuple[Picture, Mask]:
    """A straight bright line across the grinding: metal laid bare."""
    image, draw = _canvas(surface.shape)
    start = _place(rng, surface.shape, 0.15)
    angle = float(rng.uniform(0.2, 0.8)) * np.pi * (1 if rng.random() < 0.5 else -1)
    draw.line(_path(rng, start, angle, float(rng.uniform(50, 160)), 0.015), fill=255, width=int(rng.integers(2, 4)))
    return surface + float(rng.uniform(0.2, 0.6)) * _soft(image, 0.6), _is_set(image)


def _fray(rng: np.random.Generator, surface: Picture) -> tuple[Picture, Mask]:
    """A large smooth island where grinding never reached the casting skin."""
    height, width = surface.shape
    y, x = _place(rng, surface.shape, 0.25)
    image, draw = _canvas(surface.shape)
    radius = (float(rng.uniform(0.16, 0.32)) * height, float(rng.uniform(0.12, 0.25)) * width)
    draw.polygon(_outline(rng, y, x, radius, 0.1), fill=255)
    inside = _soft(image, 2.0)
    skin = float(rng.uniform(0.6, 0.9)) + 0.04 * _noise(rng, surface.shape, (height // 12, width // 12))
    return np.asarray(surface * (1.0 - inside) + skin * inside, np.float32), _is_set(image)


def _uneven(rng: np.random.Generator, surface: Picture) -> tuple[Picture, Mask]:
    """Worn on one side of a wavy border: another brightness and another depth of grinding."""
    height, width = surface.shape
    border = float(rng.uniform(0.25, 0.75)) * height + 0.03 * height * _noise(rng, (1, width), (2, 5))[0]
    rows = np.arange(height, dtype=np.float32)[:, None]
    below = rows > border[None, :]
    worn = below if rng.random() < 0.5 else ~below
    share = _soft(Image.fromarray(worn.astype(np.uint8) * 255), 1.5)
    gain = float(rng.uniform(0.12, 0.35)) * (1 if rng.random() < 0.5 else -1)
    grain = 1.0 + float(rng.uniform(0.5, 1.5)) * (surface - 1.0)
    changed = (1.0 + gain) * grain + 0.06 * _noise(rng, surface.shape, (2, width))
    return np.asarray(surface * (1.0 - share) + changed * share, np.float32), worn


DEFECTS: dict[str, Callable[[np.random.Generator, Picture], tuple[Picture, Mask]]] = {
    "blowhole": _blowhole,
    "break": _break,
    "crack": _crack,
    "fray": _fray,
    "uneven": _uneven,
    "scratch": _scratch,
}
