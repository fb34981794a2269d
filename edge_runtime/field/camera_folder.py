"""A folder as a camera: one image per trigger, in order of name, round and round. For users without a camera at hand,
and for tests against a foreign PLC. Decoded images are kept within a byte limit, and the next one is decoded ahead."""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edge_runtime.errors import DataError, EndpointError
from edge_runtime.field.camera import Frame

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".tif", ".tiff")
CACHE_BYTES = 64 * 1024 * 1024
PIXELS_LIMIT = 64_000_000


class FolderCamera:
    """`path` is searched with its subfolders; masks (`*_mask.*`) and hidden files are not images."""

    repeats = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: list[Path] = []
        self._cache: OrderedDict[Path, NDArray[np.uint8]] = OrderedDict()
        self._next = 0

    def open(self) -> None:
        if not self._path.is_dir():
            raise EndpointError(f"camera folder {self._path}: no such folder")
        self._files = sorted(
            p
            for p in self._path.rglob("*")
            if p.suffix.lower() in SUFFIXES
            and not p.stem.endswith("_mask")
            and not p.name.startswith(".")
            and p.is_file()
        )
        if not self._files:
            raise EndpointError(f"camera folder {self._path}: no image ({', '.join(SUFFIXES)}) in it")
        self._next %= len(self._files)
        self.idle()

    def frame(self, trigger: int, timeout_s: float) -> Frame | None:
        if not self._files:
            raise EndpointError(f"camera folder {self._path}: not open")
        file = self._files[self._next]
        self._next = (self._next + 1) % len(self._files)
        return Frame(trigger, time.time_ns(), self._pixels(file), file.name)

    def idle(self) -> None:
        """Decode the next image while there is time. An unreadable one is reported when its turn comes, by `frame`."""
        if self._files:
            with suppress(EndpointError):
                self._pixels(self._files[self._next])

    def close(self) -> None:
        self._cache.clear()
        self._files = []

    def describe(self) -> dict[str, Any]:
        return {"driver": "folder", "path": str(self._path), "images": len(self._files)}

    def _pixels(self, file: Path) -> NDArray[np.uint8]:
        if file in self._cache:
            self._cache.move_to_end(file)
            return self._cache[file]
        try:
            pixels = decode_image(file)
        except DataError as error:
            raise EndpointError(f"camera folder: {error}") from error
        self._cache[file] = pixels
        while len(self._cache) > 1 and sum(p.nbytes for p in self._cache.values()) > CACHE_BYTES:
            self._cache.popitem(last=False)
        return pixels


def decode_image(file: Path) -> NDArray[np.uint8]:
    """uint8 grey (h, w) or RGB (h, w, 3); DataError if it is not a readable image."""
    try:
        with Image.open(file) as image:
            if image.width * image.height > PIXELS_LIMIT:
                raise DataError(f"{file}: {image.width} × {image.height} pixels is over the limit of {PIXELS_LIMIT}")
            if image.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion would clip at 255
                return np.asarray(np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255), dtype=np.uint8)
            grey = image.mode in ("L", "1", "LA")
            return np.asarray(image.convert("L" if grey else "RGB"))
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: not a readable image: {error}") from error
