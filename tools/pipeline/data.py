"""Labelled image folders: `labels.csv` with `split,class,file,defect`, images at `<split>/<class>/<file>` or `<class>/<file>`.

A defect image may have `<name>_mask.png` beside it (non-zero where the defect is). Nothing here needs torch.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edge_runtime.errors import DataError

COLUMNS = ("split", "class", "file", "defect")
OK_NAMES = ("free", "ok", "good", "pass")
PIXELS_MAX = 64_000_000


@dataclass(frozen=True)
class Row:
    split: str
    label: str
    path: Path
    defect: bool

    @property
    def mask_path(self) -> Path:
        return self.path.with_name(f"{self.path.stem}_mask.png")


def read_labels(folder: Path, split: str | None = None) -> list[Row]:
    """Rows of `labels.csv`, all or those of `split`; DataError names what is missing."""
    table = folder / "labels.csv"
    if not table.is_file():
        raise DataError(f"{table}: no such file; expected a table with the columns {', '.join(COLUMNS)}")
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if missing := [c for c in COLUMNS if c not in (reader.fieldnames or [])]:
            raise DataError(f"{table}: column {missing[0]!r} is missing; expected {', '.join(COLUMNS)}")
        records = list(reader)
    splits = sorted({r["split"] for r in records})
    if split is not None and split not in splits:
        raise DataError(f"{table}: no row has split {split!r}; found {', '.join(splits) or 'no rows'}")
    return [
        Row(r["split"], r["class"], _locate(folder, r), _flag(table, r))
        for r in records
        if split is None or r["split"] == split
    ]


def _flag(table: Path, record: dict[str, str]) -> bool:
    if record["defect"] not in ("0", "1"):
        raise DataError(f"{table}: defect is {record['defect']!r} for {record['file']}, expected 0 or 1")
    return record["defect"] == "1"


def _locate(folder: Path, record: dict[str, str]) -> Path:
    for path in (
        folder / record["split"] / record["class"] / record["file"],
        folder / record["class"] / record["file"],
    ):
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            return path
    raise DataError(
        f"{folder}: image {record['file']} is neither in {record['split']}/{record['class']} nor in {record['class']}"
    )


def load_image(path: Path) -> NDArray[np.uint8]:
    """The image as uint8 grey (h, w); DataError if it cannot be read."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > PIXELS_MAX:
                raise DataError(f"{path}: {image.width} × {image.height} pixels is over the limit of {PIXELS_MAX}")
            return np.asarray(image.convert("L"))
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{path}: not a readable image: {error}") from error


def load_mask(row: Row, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """The defect's mask in the image's shape, or None where there is no mask file."""
    if not row.mask_path.is_file():
        return None
    with Image.open(row.mask_path) as image:
        mask = image.convert("L")
        if mask.size != (shape[1], shape[0]):
            mask = mask.resize((shape[1], shape[0]), Image.Resampling.NEAREST)
        return np.asarray(mask) > 127


def class_names(rows: Sequence[Row]) -> tuple[tuple[str, ...], str]:
    """(classes with the sound one first, the sound one's name); DataError unless exactly one class is sound."""
    ok = sorted({r.label for r in rows if not r.defect})
    if len(ok) != 1:
        raise DataError(f"labels.csv: expected exactly one class with defect = 0, found {', '.join(ok) or 'none'}")
    bad = sorted({r.label for r in rows if r.defect})
    if not bad or ok[0] in bad:
        raise DataError("labels.csv: expected at least one class with defect = 1, apart from the sound one")
    return (ok[0], *bad), ok[0]


def data_digest(rows: Sequence[Row]) -> str:
    """SHA-256 over labels and pixels of the files, independent of their order and place."""
    lines = sorted(f"{r.label} {r.defect} {hashlib.sha256(r.path.read_bytes()).hexdigest()}" for r in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def similar_groups(images: Sequence[NDArray[np.uint8]], threshold: float = 0.95, side: int = 24) -> NDArray[np.int64]:
    """Group number of each image: images whose thumbnails correlate above `threshold` are one group (transitively).

    Several exposures of one tile must not stand on both sides of a cross-validation fold."""
    thumbs = np.stack([_thumbnail(image, side) for image in images])
    similar = thumbs @ thumbs.T > threshold
    parent = list(range(len(images)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in zip(*np.nonzero(np.triu(similar, 1)), strict=True):
        parent[root(int(i))] = root(int(j))
    roots = [root(i) for i in range(len(images))]
    order = {r: k for k, r in enumerate(dict.fromkeys(roots))}
    return np.array([order[r] for r in roots])


def _thumbnail(image: NDArray[np.uint8], side: int) -> NDArray[np.float64]:
    small = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX), np.float64).ravel()
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-9)


def grouped_folds(
    labels: NDArray[np.int64], groups: NDArray[np.int64], folds: int, shuffle: Callable[[NDArray[np.int64]], None]
) -> NDArray[np.int64]:
    """Fold number of each sample: groups stay whole, classes are spread evenly (greedy, largest group first)."""
    fold_of = np.full(len(labels), -1)
    counts = np.zeros((folds, int(labels.max()) + 1))
    total = np.bincount(labels, minlength=counts.shape[1]).astype(float)
    numbers = np.unique(groups)
    shuffle(numbers)
    for group in sorted(numbers, key=lambda g: -int((groups == g).sum())):
        members = groups == group
        add = np.bincount(labels[members], minlength=counts.shape[1])
        cost = [(((counts[f] + add) / total) ** 2).sum() - ((counts[f] / total) ** 2).sum() for f in range(folds)]
        best = int(np.argmin(cost))
        fold_of[members] = best
        counts[best] += add
    return fold_of
