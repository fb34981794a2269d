"""C-MAPSS files: whitespace text of 26 columns, plain or gzip; read as a whole or refused with the line that is wrong.

Columns: unit, cycle, 3 operating settings, 21 sensors. Rows of a unit stand together, its cycles go up by one. In a
training file each unit runs until it fails, so the life that remains at a row is the number of rows after it.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import DataError

Floats = NDArray[np.float64]

SETTINGS = ("setting_1", "setting_2", "setting_3")
SENSORS = tuple(f"sensor_{i}" for i in range(1, 22))
COLUMNS = ("unit", "cycle", *SETTINGS, *SENSORS)
TAGS = COLUMNS[1:]
SIZE_LIMIT_BYTES = 256 * 1024 * 1024
GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, eq=False)
class Unit:
    """One machine: `rows` (n, 25) in the order of `TAGS`, oldest first."""

    number: int
    rows: Floats

    def __len__(self) -> int:
        return len(self.rows)

    def until(self, cycle: int) -> Unit:
        """What was known of it after `cycle` cycles."""
        return Unit(self.number, self.rows[: int(np.searchsorted(self.rows[:, 0], cycle, "right"))])


@dataclass(frozen=True)
class Cut:
    """A unit seen for `cycle` cycles, with the life that remains after them."""

    unit: int
    cycle: int
    rul: float


def read_units(path: Path) -> list[Unit]:
    """The units of a file, in its order; DataError names the line and what was expected."""
    numbers: list[int] = []
    rows: list[list[float]] = []
    for line_number, line in enumerate(io.StringIO(_text(path)), start=1):
        if not line.strip():
            continue
        values = _values(line, f"{path}: line {line_number}")
        numbers.append(int(values[0]))
        rows.append(values[1:])
        _check_follows(numbers, rows, f"{path}: line {line_number}")
    if not rows:
        raise DataError(f"{path}: holds no rows; expected lines of {len(COLUMNS)} numbers (a C-MAPSS file)")
    table, units = np.array(rows), np.array(numbers)
    starts = [0, *(np.flatnonzero(np.diff(units)) + 1).tolist(), len(units)]
    parts = [Unit(int(units[a]), table[a:b]) for a, b in pairwise(starts)]
    _check_contiguous(parts, path)
    return parts


def read_cuts(path: Path, units: Sequence[Unit]) -> list[Cut]:
    """A CSV with `unit`, `cut_cycle` and `rul`; every unit must be one of `units`, seen for at least that long."""
    lives = {unit.number: len(unit) for unit in units}
    cuts = []
    for number, row in _csv_rows(path, ("unit", "cut_cycle", "rul")):
        unit, cycle, rul = row
        if unit not in lives:
            raise DataError(f"{path}: line {number}: unit {unit:g} is not in the training file")
        if not 1 <= cycle <= lives[int(unit)] or cycle != int(cycle) or rul < 0:
            raise DataError(
                f"{path}: line {number}: cut_cycle {cycle:g} and rul {rul:g}, but unit {unit:g} has "
                f"{lives[int(unit)]} cycles; expected a whole cycle among them and a rul of 0 or more"
            )
        cuts.append(Cut(int(unit), int(cycle), rul))
    if len({cut.unit for cut in cuts}) == len(lives):
        raise DataError(f"{path}: names every unit of the training file, so that none is left to train on")
    return cuts


def read_truth(path: Path) -> Floats:
    """True remaining lives in the order of the predictions: one number a line, or a CSV with the column `rul`."""
    text = _text(path)
    first = text.lstrip().splitlines()[0] if text.strip() else ""
    if "rul" in [name.strip().lower() for name in first.split(",")]:
        values = [row[0] for _, row in _csv_rows(path, ("rul",))]
    else:
        values = [
            _number(line.strip(), f"{path}: line {i}") for i, line in enumerate(text.splitlines(), 1) if line.strip()
        ]
    if not values:
        raise DataError(f"{path}: holds no numbers; expected one remaining life a line, or a CSV with the column rul")
    if min(values) < 0:
        raise DataError(f"{path}: a remaining life is {min(values):g}; expected 0 or more")
    return np.array(values)


def truth_units(path: Path) -> list[int] | None:
    """The units that a truth CSV names, or None where it names none: then its order counts."""
    text = _text(path)
    first = text.lstrip().splitlines()[0] if text.strip() else ""
    names = [name.strip().lower() for name in first.split(",")]
    return [int(row[0]) for _, row in _csv_rows(path, ("unit",))] if {"unit", "rul"} <= set(names) else None


def read_predictions(path: Path) -> tuple[list[int], Floats]:
    """(units, (n, 3) of rul, lower, upper) as `gudgeon predict rul` writes them."""
    found = [row for _, row in _csv_rows(path, ("unit", "rul", "lower", "upper"))]
    if not found:
        raise DataError(f"{path}: holds no predictions")
    values = np.array(found)
    if (values[:, 2] > values[:, 3]).any():
        raise DataError(f"{path}: a row has lower above upper")
    return [int(unit) for unit in values[:, 0]], values[:, 1:]


def digest(path: Path) -> str:
    """SHA-256 of the file as it is."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remaining(unit: Unit, cap: float) -> Floats:
    """The capped life that remains at each row of a unit that ran until it failed."""
    return np.asarray(np.minimum(np.arange(len(unit) - 1, -1, -1.0), cap))


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if data[:2] == GZIP_MAGIC:
            with gzip.open(io.BytesIO(data)) as stream:
                data = stream.read(SIZE_LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if len(data) > SIZE_LIMIT_BYTES:
        raise DataError(f"{path}: more than {SIZE_LIMIT_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not text; expected lines of numbers, plain or gzip") from error


def _values(line: str, where: str) -> list[float]:
    words = line.split()
    if len(words) != len(COLUMNS):
        raise DataError(
            f"{where}: {len(words)} columns, expected {len(COLUMNS)}: unit, cycle, 3 settings and 21 sensors, with "
            "spaces between"
        )
    values = [_number(word, f"{where}: {name}") for name, word in zip(COLUMNS, words, strict=True)]
    for name, value in zip(COLUMNS[:2], values[:2], strict=True):
        if value != int(value) or value < 1:
            raise DataError(f"{where}: {name} is {value:g}, expected a whole number of 1 or more")
    return values


def _number(word: str, where: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise DataError(f"{where}: {word!r} is not a number") from None
    if not math.isfinite(value):
        raise DataError(f"{where}: {word!r} is not finite; remove the row or fill the value before")
    return value


def _check_follows(numbers: list[int], rows: list[list[float]], where: str) -> None:
    if len(numbers) > 1 and numbers[-1] == numbers[-2] and rows[-1][0] != rows[-2][0] + 1:
        raise DataError(
            f"{where}: cycle {rows[-1][0]:g} of unit {numbers[-1]} follows cycle {rows[-2][0]:g}; expected "
            f"{rows[-2][0] + 1:g}: one row a cycle, oldest first"
        )


def _check_contiguous(units: Sequence[Unit], path: Path) -> None:
    seen: set[int] = set()
    for unit in units:
        if unit.number in seen:
            raise DataError(f"{path}: the rows of unit {unit.number} do not stand together; sort by unit, then cycle")
        seen.add(unit.number)


def _csv_rows(path: Path, names: Sequence[str]) -> list[tuple[int, tuple[float, ...]]]:
    """(line number, the named columns) of a CSV with a header."""
    reader = csv.DictReader(io.StringIO(_text(path)), skipinitialspace=True)
    header = [name.strip().lower() for name in reader.fieldnames or ()]
    if missing := [name for name in names if name not in header]:
        raise DataError(f"{path}: no column {missing[0]!r}; expected a CSV with the header {','.join(names)}")
    reader.fieldnames = header
    rows = []
    for row in reader:
        where = f"{path}: line {reader.line_num}"
        rows.append((reader.line_num, tuple(_number((row[n] or "").strip(), f"{where}: {n}") for n in names)))
    return rows
