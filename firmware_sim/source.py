"""Where the parts' pictures come from: drawn by the simulator, or a labelled folder. Either way the truth is known.

- A source is a list of pictures; `order` says which one part number n shows. Nothing but the seed decides it.
- Drawn: `pool` parts in their order, so that the light drifts slowly; then the same ones again.
- Folder: labels.csv (`split,class,file,defect`), images at `<split>/<class>/<file>` or `<class>/<file>`; all images of
  the split once per round, each round shuffled anew, never the same image twice in a row.
- Pictures are kept decoded up to `CACHE_BYTES`, loaded before the line starts.
"""

from __future__ import annotations

import csv
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from firmware_sim.config import SourceSection, nearest
from firmware_sim.errors import DataError
from firmware_sim.part import Truth

Pixels = NDArray[np.uint8]
CACHE_BYTES = 256 * 1024 * 1024
COLUMNS = ("split", "class", "file", "defect")
GOOD_CLASS = "free"
LIGHT_PERIOD_PARTS = 200
SCALE_16_TO_8_BIT = 257


@dataclass(frozen=True)
class Picture:
    """`load` gives uint8 (height, width) or (height, width, 3)."""

    truth: Truth
    load: Callable[[], Pixels]


class Order(Protocol):
    def __call__(self, n: int) -> int:
        """The index of the picture that part `n` shows; asked for 0, 1, 2 … in turn."""


class Source:
    def __init__(self, pictures: Sequence[Picture], order: Order, describe: str) -> None:
        self.pictures, self.order, self.describe = pictures, order, describe
        self._cache: dict[int, Pixels] = {}
        self._cached_bytes = 0

    def preload(self, parts: int) -> None:
        """Decode the pictures before the line starts, as many as `parts` can need (0: all) and memory allows."""
        for index in range(min(len(self.pictures), parts) if parts and self.order is in_turn else len(self.pictures)):
            if self._cached_bytes >= CACHE_BYTES:
                return
            self._pixels(index)

    def part(self, n: int) -> tuple[Pixels, Truth]:
        index = self.order(n) % len(self.pictures)
        return self._pixels(index), self.pictures[index].truth

    def _pixels(self, index: int) -> Pixels:
        if index in self._cache:
            return self._cache[index]
        pixels = self.pictures[index].load()
        if self._cached_bytes + pixels.nbytes <= CACHE_BYTES:
            self._cache[index] = pixels
            self._cached_bytes += pixels.nbytes
        return pixels


def in_turn(n: int) -> int:
    return n


class Rounds:
    """Every one of `n` once a round, each round in a new order; the last of a round is not the first of the next."""

    def __init__(self, n: int, seed: int) -> None:
        self._n, self._rng = n, random.Random(seed)
        self._left: list[int] = []
        self._last = -1

    def __call__(self, n: int) -> int:
        if not self._left:
            self._left = self._rng.sample(range(self._n), self._n)
            if self._n > 1 and self._left[-1] == self._last:
                self._left[0], self._left[-1] = self._left[-1], self._left[0]
        self._last = self._left.pop()
        return self._last


def make(section: SourceSection, seed: int, parts: int) -> Source:
    if section.kind == "folder":
        assert section.images is not None
        return folder(section.images, section.split, seed)
    return rendered(section, seed, parts)


def rendered(section: SourceSection, seed: int, parts: int) -> Source:
    """Picture i depends on (seed, i) only."""
    from firmware_sim.render import CLASSES, render

    defects = [c for c in CLASSES if c != GOOD_CLASS]

    def picture(i: int) -> Picture:
        rng = np.random.default_rng([seed, i, 0])
        bad = bool(rng.random() < section.defect_share)
        name = defects[int(rng.integers(len(defects)))] if bad else GOOD_CLASS
        light = section.light_drift * math.sin(2.0 * math.pi * i / LIGHT_PERIOD_PARTS)

        def load() -> Pixels:
            drawn: Pixels = render(np.random.default_rng([seed, i, 1]), name, section.height, section.width, light)[0]
            return drawn

        return Picture(Truth(name, bad), load)

    count = min(section.pool, parts) if parts else section.pool
    return Source([picture(i) for i in range(count)], in_turn, f"{count} drawn parts, seed {seed}")


def folder(root: Path, split: str, seed: int) -> Source:
    rows = [r for r in _labels(root) if r["split"] == split]
    if not rows:
        known = sorted({r["split"] for r in _labels(root)})
        raise DataError(
            f"{root / 'labels.csv'}: no image of split {split!r}{nearest(split, known)}; splits: {', '.join(known) or 'none'}"
        )
    pictures = [_listed(root, row) for row in rows]
    return Source(pictures, Rounds(len(pictures), seed), f"{len(pictures)} images of {root}, split {split}")


def _labels(root: Path) -> list[dict[str, str]]:
    if not root.is_dir():
        raise DataError(f"images {root}: no such folder, expected one with labels.csv; check the path")
    path = root / "labels.csv"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise DataError(f"{path}: columns are {reader.fieldnames}, expected {','.join(COLUMNS)}")
            return [{key: (row[key] or "").strip() for key in COLUMNS} for row in reader]
    except FileNotFoundError as error:
        raise DataError(
            f"images {root}: has no labels.csv; expected a file with columns {','.join(COLUMNS)}"
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _listed(root: Path, row: dict[str, str]) -> Picture:
    if row["defect"] not in ("0", "1"):
        raise DataError(f"{root / 'labels.csv'}: defect of {row['file']!r} is {row['defect']!r}, expected 0 or 1")
    places = [root / row["split"] / row["class"] / row["file"], root / row["class"] / row["file"]]
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        raise DataError(f"image {row['file']!r} of labels.csv is neither at {places[0]} nor at {places[1]}")
    return Picture(Truth(row["class"], row["defect"] == "1"), lambda: decode(path))


def decode(path: Path) -> Pixels:
    """Grey pictures as (height, width), all others as RGB; 16-bit grey is scaled to 8."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):
                wide = np.asarray(image, np.float64) / SCALE_16_TO_8_BIT
                return np.clip(np.rint(wide), 0, 255).astype(np.uint8)
            return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise DataError(f"image {path}: cannot be decoded: {error}; replace it or take it out of labels.csv") from error


def class_counts(source: Source) -> Counter[str]:
    return Counter(p.truth.class_name for p in source.pictures)
