"""Window: samples of tags with different rates become rows on one grid, with the quality of what is in them.

Row k is at `k × grid` nanoseconds of monotonic time. It holds, for each tag of the view, its newest good sample at or
before that time (``last``), or the mean of the good ones since the row before (``mean``; the newest where there is none).
A value stands in for missing ones for `hold_s`; beyond it the row has NaN, never 0.0. A row is made once its time has
passed and is never changed: what comes later than its row, or out of order, is counted and not used, so that a score
at a time depends on what was known at that time.

Only samples of quality good, with a finite value, count. `align` does for a recording what `Aligner` does live.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.field.tag import Quality, Sample
from edge_runtime.wire.series import FeatureView, TagView

Floats = NDArray[np.float64]
FUTURE_LIMIT_NS = 1_000_000_000


@dataclass
class Refused:
    """Samples that were not used, by reason."""

    bad: int = 0
    out_of_order: int = 0
    future: int = 0
    late: int = 0
    unknown: int = 0


@dataclass(frozen=True)
class Row:
    """`mono_ns`: the row's time. `values`: one a tag of the view, NaN where there is none. `stale`: tags whose newest
    sample is older than their freshness limit at this row."""

    mono_ns: int
    values: Floats
    stale: tuple[str, ...]


class _Track:
    """One tag: its newest sample, and the mean of those since the last row. Samples wait until their row is made."""

    def __init__(self, tag: TagView) -> None:
        self.tag = tag
        self.hold_ns = round(tag.hold_s * 1e9)
        self.stale_ns = round((tag.stale_s or tag.hold_s) * 1e9)
        self.waiting: list[tuple[int, float]] = []
        self.newest_ns: int | None = None  # of a sample used in a row
        self.value = np.nan

    def at(self, row_ns: int) -> float:
        """The tag's value at this row; takes the samples up to it."""
        count = 0
        for mono_ns, _ in self.waiting:
            if mono_ns > row_ns:
                break
            count += 1
        if count:
            used = [value for _, value in self.waiting[:count]]
            self.newest_ns = self.waiting[count - 1][0]
            self.value = used[-1]
            del self.waiting[:count]
            if self.tag.resample == "mean":
                return float(np.mean(used))
        if self.newest_ns is None or row_ns - self.newest_ns > self.hold_ns:
            return float("nan")
        return self.value

    def is_stale(self, row_ns: int) -> bool:
        return self.newest_ns is None or row_ns - self.newest_ns > self.stale_ns

    def last_ns(self) -> int | None:
        return self.waiting[-1][0] if self.waiting else self.newest_ns


class Aligner:
    """Live: `add` samples as they come, `advance` to now for the rows whose time has passed, `window` for the newest
    rows. It keeps `view.rows` rows. `future_limit_ns`: how far ahead of now a sample may be dated."""

    def __init__(self, view: FeatureView, future_limit_ns: int = FUTURE_LIMIT_NS) -> None:
        self.view = view
        self.grid_ns = round(view.grid_s * 1e9)
        self.refused = Refused()
        self._future_limit_ns = future_limit_ns
        self._tracks = {tag.name: _Track(tag) for tag in view.tags}
        self._ring = np.full((view.rows, len(view.tags)), np.nan)
        self._count = 0
        self._row_ns: int | None = None

    def add(self, sample: Sample, now_ns: int) -> bool:
        """Take a sample; False where it is not used, and `refused` says why. `now_ns`: monotonic."""
        track = self._tracks.get(sample.tag)
        if track is None:
            self.refused.unknown += 1
        elif sample.value is None or sample.quality is not Quality.GOOD or not np.isfinite(float(sample.value)):
            self.refused.bad += 1
        elif sample.mono_ns > now_ns + self._future_limit_ns:
            self.refused.future += 1
        elif (last := track.last_ns()) is not None and sample.mono_ns <= last:
            self.refused.out_of_order += 1
        elif self._row_ns is not None and sample.mono_ns <= self._row_ns:
            self.refused.late += 1
        else:
            track.waiting.append((sample.mono_ns, float(sample.value)))
            return True
        return False

    def advance(self, now_ns: int) -> list[Row]:
        """The rows whose time has passed since the last call, oldest first. After a pause longer than the window only
        the newest rows are made: the older ones could not be in any window."""
        newest = now_ns // self.grid_ns * self.grid_ns
        if self._row_ns is None:
            self._row_ns = newest - self.grid_ns
        first = max(self._row_ns + self.grid_ns, newest - (self.view.rows - 1) * self.grid_ns)
        rows = [self._make(row_ns) for row_ns in range(first, newest + 1, self.grid_ns)]
        self._row_ns = max(self._row_ns, newest)
        return rows

    def _make(self, row_ns: int) -> Row:
        values = np.array([track.at(row_ns) for track in self._tracks.values()])
        stale = tuple(name for name, track in self._tracks.items() if track.is_stale(row_ns))
        self._ring[self._count % len(self._ring)] = values
        self._count += 1
        return Row(row_ns, values, stale)

    def window(self) -> Floats:
        """The newest rows, oldest first: at most `view.rows`, fewer at the start."""
        if self._count < len(self._ring):
            return self._ring[: self._count].copy()
        return np.roll(self._ring, -(self._count % len(self._ring)), axis=0)

    def stale(self, now_ns: int) -> tuple[str, ...]:
        """Tags whose newest sample, waiting ones too, is older than its freshness limit now."""
        aged = ((n, t, t.last_ns()) for n, t in self._tracks.items())
        return tuple(n for n, t, last in aged if last is None or now_ns - last > t.stale_ns)


def align(
    series: Mapping[str, tuple[NDArray[np.int64], Floats]], view: FeatureView, start_ns: int, end_ns: int
) -> Floats:
    """(n, tags) for the rows from `start_ns` to `end_ns`, both on the grid, of whole recordings: tag → (times in ns, in
    order; values, NaN for missing). The same numbers as an `Aligner` fed sample by sample."""
    grid_ns = round(view.grid_s * 1e9)
    row_ns = np.arange(start_ns, end_ns + 1, grid_ns, dtype=np.int64)
    return np.stack([_align_tag(tag, *series[tag.name], row_ns, grid_ns) for tag in view.tags], axis=1)


def _align_tag(
    tag: TagView, times: NDArray[np.int64], values: Floats, row_ns: NDArray[np.int64], grid_ns: int
) -> Floats:
    good = np.isfinite(values)
    times, values = times[good], values[good]
    if not len(times):
        return np.full(len(row_ns), np.nan)
    upto = np.searchsorted(times, row_ns, side="right")
    newest = np.maximum(upto - 1, 0)
    held = np.where((upto > 0) & (row_ns - times[newest] <= round(tag.hold_s * 1e9)), values[newest], np.nan)
    if tag.resample == "last":
        return held
    since = np.searchsorted(times, row_ns - grid_ns, side="right")
    means = [values[a:b].mean() if b > a else np.nan for a, b in zip(since, upto, strict=True)]
    return np.where(upto > since, means, held)
