"""Recordings from CSV files: one time column, the other numeric columns are tags. Bad input is an error that names its row.

A folder gives one recording a file. A missing value is an empty cell, `nan`, `null` or `NA`: it becomes NaN, never 0.0.
Times are ISO dates (``2020-03-09 10:14:33``), or numbers of seconds. They must rise; equal ones keep the last row.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import DataError

TIME_NAMES = ("datetime", "timestamp", "time", "date", "ts", "cycle")
LABEL_NAMES = ("anomaly", "changepoint", "label", "is_anomaly")
MISSING = ("", "nan", "null", "na", "none")
FUTURE_LIMIT_S = 86_400.0
SIZE_LIMIT_BYTES = 2 * 1024**3
DELIMITERS = ";,\t"


@dataclass(frozen=True, eq=False)
class Recording:
    """`times_s`: seconds, rising (since 1970 for dates). `values`: (rows, tags), NaN for missing."""

    name: str
    tags: tuple[str, ...]
    times_s: NDArray[np.float64]
    values: NDArray[np.float64]

    def first(self, rows: int) -> Recording:
        return Recording(self.name, self.tags, self.times_s[:rows], self.values[:rows])

    def only(self, tags: Sequence[str]) -> Recording:
        places = [self.tags.index(tag) for tag in tags]
        return Recording(self.name, tuple(tags), self.times_s, self.values[:, places])


def read_all(place: Path, time_column: str | None, ignored: Sequence[str], now_s: float) -> list[Recording]:
    """One recording for a file, one for each CSV of a folder; all have the same tags. DataError tells what is wrong."""
    if place.is_dir():
        files = sorted(p for p in place.rglob("*") if p.name.endswith((".csv", ".csv.gz")))
        if not files:
            raise DataError(f"{place}: no .csv file in this folder; expected one a recording")
    elif place.is_file():
        files = [place]
    else:
        raise DataError(f"{place}: no such file or folder; expected a CSV file or a folder of them")
    recordings = [read(file, time_column, ignored, now_s) for file in files]
    for other in recordings[1:]:
        if other.tags != recordings[0].tags:
            odd = sorted(set(other.tags) ^ set(recordings[0].tags)) or list(other.tags)
            raise DataError(f"{other.name}: its tags differ from those of {recordings[0].name}: {', '.join(odd)}")
    return recordings


def read(file: Path, time_column: str | None, ignored: Sequence[str], now_s: float) -> Recording:
    """Read one CSV; DataError names the row and column of what cannot be used."""
    if file.stat().st_size > SIZE_LIMIT_BYTES:
        raise DataError(f"{file}: larger than {SIZE_LIMIT_BYTES} bytes; split it")
    try:
        with _opened(file) as stream:
            return _parse(file, stream, time_column, ignored, now_s)
    except (UnicodeDecodeError, csv.Error, gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{file}: not a CSV text: {error}") from error


def _opened(file: Path) -> IO[str]:
    if file.name.endswith(".gz"):
        return gzip.open(file, "rt", encoding="utf-8-sig", newline="")
    return file.open(encoding="utf-8-sig", newline="")


def _parse(file: Path, stream: IO[str], time_column: str | None, ignored: Sequence[str], now_s: float) -> Recording:
    head = stream.readline()
    delimiter = max(DELIMITERS, key=head.count)
    names = [name.strip() for name in next(csv.reader([head], delimiter=delimiter), [])]
    if len(names) < 2 or len(set(names)) != len(names):
        raise DataError(f"{file}: expected a header of different column names, found {head.strip()[:80]!r}")
    time_place = _time_place(file, names, time_column)
    skipped = {time_place, *(i for i, name in enumerate(names) if name in ignored or name.lower() in LABEL_NAMES)}
    tags = [i for i in range(len(names)) if i not in skipped]
    if not tags:
        raise DataError(f"{file}: no tag beside the time column {names[time_place]!r}")
    times: list[float] = []
    rows: list[list[float]] = []
    for number, cells in _rows(file, stream, delimiter, len(names)):
        at = _time(file, number, cells[time_place])
        if times and at < times[-1]:
            raise DataError(
                f"{file}: row {number}: its time {cells[time_place]!r} is before the row above; sort the file"
            )
        if at > now_s + FUTURE_LIMIT_S:
            raise DataError(
                f"{file}: row {number}: its time {cells[time_place]!r} lies in the future; check the clock (numbers "
                "are seconds)"
            )
        row = [_value(file, number, names[i], cells[i]) for i in tags]
        if times and at == times[-1]:
            rows[-1] = row
        else:
            times.append(at)
            rows.append(row)
    if len(rows) < 2:
        raise DataError(f"{file}: {len(rows)} rows of data, expected at least 2 different times")
    return Recording(file.name, tuple(names[i] for i in tags), np.array(times), np.array(rows))


def _rows(file: Path, stream: IO[str], delimiter: str, width: int) -> Iterator[tuple[int, list[str]]]:
    for number, cells in enumerate(csv.reader(stream, delimiter=delimiter), start=2):
        if not cells:
            continue
        if len(cells) != width:
            raise DataError(f"{file}: row {number}: {len(cells)} cells, the header has {width}")
        yield number, cells


def _time_place(file: Path, names: list[str], wanted: str | None) -> int:
    if wanted is not None:
        if wanted not in names:
            raise DataError(f"{file}: no column {wanted!r} for the time; it has {', '.join(names)}")
        return names.index(wanted)
    lower = [name.lower() for name in names]
    for name in TIME_NAMES:
        if name in lower:
            return lower.index(name)
    raise DataError(f"{file}: no time column ({', '.join(TIME_NAMES)}) in {', '.join(names)}; name it with --time")


def _time(file: Path, number: int, text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        try:
            date = datetime.fromisoformat(text.strip())
        except ValueError as error:
            raise DataError(f"{file}: row {number}: {text!r} is not a time; expected a date or seconds") from error
        found = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(found):
        raise DataError(f"{file}: row {number}: {text!r} is not a time; expected a date or seconds")
    return found


def _value(file: Path, number: int, name: str, text: str) -> float:
    stripped = text.strip()
    if stripped.lower() in MISSING:
        return math.nan
    try:
        found = float(stripped)
    except ValueError as error:
        raise DataError(
            f"{file}: row {number}: {name} is {stripped[:40]!r}, expected a number; leave it out with --ignore {name}"
        ) from error
    return found if math.isfinite(found) else math.nan
