"""From a raw value to a Sample: scaling, and how far to trust it. Pure; the same for every driver.

In this order: not a number or not a number's type is BAD (no value); outside `low` to `high` is UNCERTAIN, with the value;
what the source itself calls uncertain stays UNCERTAIN. `Steps` adds what one reading alone cannot show: a step larger than
`max_step` is UNCERTAIN until a second reading confirms it, which is how a half-written value (one word new, one old) and
a spike are told from a true step.
"""

from __future__ import annotations

import math

from edge_runtime.field.tag import Quality, Reason, Sample, Tag, Wave

Raw = int | float | bool


def scaled(tag: Tag, raw: Raw) -> Raw:
    """The value in the tag's unit; whole numbers stay whole where nothing scales them."""
    if tag.scale == 1.0 and tag.offset == 0.0:
        return raw
    return raw * tag.scale + tag.offset


def unscaled(tag: Tag, value: Raw) -> Raw:
    """The raw value to write; rounded where the wire carries whole numbers."""
    if tag.scale == 1.0 and tag.offset == 0.0:
        return value
    raw = (value - tag.offset) / tag.scale
    return raw if tag.type in ("float32", "float64") else round(raw)


def good(
    tag: Tag, raw: object, mono_ns: int, wall_ns: int, quality: Quality = Quality.GOOD, reason: Reason = Reason.NONE
) -> Sample:
    """The Sample of a raw value that the source calls `quality`."""
    if quality is Quality.BAD:
        return bad(tag, reason, mono_ns, wall_ns)
    if not isinstance(raw, (int, float)):
        return bad(tag, Reason.WRONG_TYPE, mono_ns, wall_ns)
    value = scaled(tag, raw)
    if isinstance(value, float) and not math.isfinite(value):
        return bad(tag, Reason.NOT_A_NUMBER, mono_ns, wall_ns)
    if (tag.low is not None and value < tag.low) or (tag.high is not None and value > tag.high):
        quality, reason = Quality.UNCERTAIN, Reason.OUT_OF_RANGE
    return Sample(tag.name, value, quality, mono_ns, wall_ns, reason)


def bad(tag: Tag, reason: Reason, mono_ns: int, wall_ns: int) -> Sample:
    return Sample(tag.name, None, Quality.BAD, mono_ns, wall_ns, reason)


def wave(tag: Tag, raw: object, mono_ns: int, wall_ns: int) -> Wave:
    """The Wave of a block of raw values; BAD as a whole where one of them is no number, or the block is short."""

    def refused(reason: Reason) -> Wave:
        return Wave(tag.name, (), tag.rate_hz, Quality.BAD, mono_ns, wall_ns, reason)

    if not isinstance(raw, (list, tuple)) or not all(isinstance(v, (int, float)) for v in raw):
        return refused(Reason.WRONG_TYPE)
    if len(raw) != tag.count:
        return refused(Reason.WRONG_TYPE)
    values = tuple(float(scaled(tag, v)) for v in raw)
    if not all(map(math.isfinite, values)):
        return refused(Reason.NOT_A_NUMBER)
    return Wave(tag.name, values, tag.rate_hz, Quality.GOOD, mono_ns, wall_ns)


class Steps:
    """The step check of one tag. `doubtful` asks whether a reading should be taken again at once; `settle` gives the
    Sample to believe."""

    def __init__(self, tag: Tag) -> None:
        self._limit = tag.max_step
        self._last: float | None = None  # the last value that was believed
        self._waiting: float | None = None  # a step that no second reading has confirmed yet

    def doubtful(self, sample: Sample) -> bool:
        return self._is_step(sample, self._last)

    def settle(self, sample: Sample) -> Sample:
        if sample.value is None or sample.quality is not Quality.GOOD or not self._limit:
            return sample
        confirmed = self._waiting is not None and not self._is_step(sample, self._waiting)
        if not self._is_step(sample, self._last) or confirmed:
            self._last, self._waiting = float(sample.value), None
            return sample
        self._waiting = float(sample.value)
        return Sample(sample.tag, sample.value, Quality.UNCERTAIN, sample.mono_ns, sample.wall_ns, Reason.JUMP)

    def note(self, sample: Sample) -> None:
        """A first reading that is about to be taken again: the second may confirm it."""
        if sample.value is not None:
            self._waiting = float(sample.value)

    def _is_step(self, sample: Sample, before: float | None) -> bool:
        if not self._limit or before is None or sample.value is None or sample.quality is not Quality.GOOD:
            return False
        return abs(float(sample.value) - before) > self._limit


class Exceptions:
    """Report by exception, for one tag: a Sample is worth a report when its quality or reason is new, when it moved by the
    deadband or more since the last report, or when `report_every_s` has passed."""

    def __init__(self, tag: Tag) -> None:
        self._deadband, self._every_ns = tag.deadband, round(tag.report_every_s * 1e9)
        self._last: Sample | None = None

    def worth(self, sample: Sample) -> bool:
        if not self._is_news(sample):
            return False
        self._last = sample
        return True

    def _is_news(self, sample: Sample) -> bool:
        last = self._last
        if last is None or (sample.quality, sample.reason) != (last.quality, last.reason):
            return True
        if sample.mono_ns - last.mono_ns >= self._every_ns:
            return True
        if sample.value is None or last.value is None:
            return sample.value is not last.value
        moved = abs(float(sample.value) - float(last.value))
        return moved >= self._deadband if self._deadband else moved > 0
