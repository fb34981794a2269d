"""Scaling, quality with its reason, steps and report by exception."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.field.judge import Exceptions, Steps, good, scaled, unscaled, wave
from edge_runtime.field.tag import Quality, Reason, Sample, Tag

FLOW = Tag("flow", "int16", scale=0.1, offset=-5.0, low=0.0, high=100.0)


def at(value: float | None, second: float = 0.0, quality: Quality = Quality.GOOD) -> Sample:
    return Sample("flow", value, quality, round(second * 1e9), 0)


@pytest.mark.parametrize(
    ("raw", "value", "quality", "reason"),
    [
        (100, 5.0, Quality.GOOD, Reason.NONE),
        (40, -1.0, Quality.UNCERTAIN, Reason.OUT_OF_RANGE),
        (2000, 195.0, Quality.UNCERTAIN, Reason.OUT_OF_RANGE),
        (math.nan, None, Quality.BAD, Reason.NOT_A_NUMBER),
        (math.inf, None, Quality.BAD, Reason.NOT_A_NUMBER),
        ("12", None, Quality.BAD, Reason.WRONG_TYPE),
        (None, None, Quality.BAD, Reason.WRONG_TYPE),
    ],
)
def test_a_raw_value_gets_its_unit_and_its_quality(
    raw: object, value: float | None, quality: Quality, reason: Reason
) -> None:
    sample = good(FLOW, raw, 1, 2)
    assert sample.value == pytest.approx(value)
    assert (sample.quality, sample.reason) == (quality, reason)


def test_what_the_source_doubts_stays_doubtful() -> None:
    doubted = good(FLOW, 100, 1, 2, Quality.UNCERTAIN, Reason.SOURCE_UNCERTAIN)
    assert (doubted.value, doubted.quality, doubted.reason) == (5.0, Quality.UNCERTAIN, Reason.SOURCE_UNCERTAIN)
    refused = good(FLOW, 100, 1, 2, Quality.BAD, Reason.SOURCE_BAD)
    assert (refused.value, refused.quality) == (None, Quality.BAD)


def test_a_tag_without_scale_keeps_its_whole_numbers() -> None:
    assert scaled(Tag("n", "uint64"), 2**63 + 1) == 2**63 + 1


@given(st.integers(-30000, 30000))
def test_what_is_written_is_what_was_read(raw: int) -> None:
    assert unscaled(FLOW, scaled(FLOW, raw)) == raw


def test_a_wave_is_good_as_a_whole_or_bad() -> None:
    tag = Tag("vibration", "int16", count=3, rate_hz=1000.0, scale=0.5)
    assert wave(tag, [2, 4, -6], 1, 2).values == (1.0, 2.0, -3.0)
    for raw, reason in (([1, 2], Reason.WRONG_TYPE), ([1, math.nan, 3], Reason.NOT_A_NUMBER), (7, Reason.WRONG_TYPE)):
        refused = wave(tag, raw, 1, 2)
        assert (refused.values, refused.quality, refused.reason) == ((), Quality.BAD, reason)


def test_a_spike_is_doubted_and_a_true_step_believed_at_the_second_reading() -> None:
    steps = Steps(Tag("flow", "float32", max_step=5.0))
    assert steps.settle(at(10)).quality is Quality.GOOD
    spike = steps.settle(at(600))
    assert (spike.quality, spike.reason) == (Quality.UNCERTAIN, Reason.JUMP)
    assert steps.settle(at(11)).quality is Quality.GOOD
    assert steps.settle(at(50)).quality is Quality.UNCERTAIN
    assert steps.settle(at(51)).quality is Quality.GOOD
    assert steps.settle(at(52)).quality is Quality.GOOD


def test_a_value_that_flickers_is_never_believed() -> None:
    steps = Steps(Tag("flow", "float32", max_step=5.0))
    steps.settle(at(10))
    assert {steps.settle(at(v)).quality for v in (100, 300, 500, 700)} == {Quality.UNCERTAIN}


def test_a_second_reading_at_once_settles_a_half_written_value() -> None:
    steps = Steps(Tag("flow", "float32", max_step=5.0))
    steps.settle(at(10))
    torn = at(400)
    assert steps.doubtful(torn)
    steps.note(torn)
    assert steps.settle(at(10.5)) == at(10.5)


def test_a_report_by_exception() -> None:
    news = Exceptions(Tag("flow", "float32", deadband=1.0, report_every_s=10.0))
    told = [
        (at(5.0, 0), True),
        (at(5.9, 1), False),
        (at(4.1, 2), False),
        (at(6.0, 3), True),
        (at(None, 4, Quality.BAD), True),
        (at(None, 5, Quality.BAD), False),
        (at(6.0, 6), True),
        (at(6.0, 15.9), False),
        (at(6.0, 16), True),
    ]
    assert [news.worth(sample) for sample, _ in told] == [worth for _, worth in told]


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=50), st.floats(0.1, 20))
def test_what_is_not_reported_is_within_the_deadband_of_the_last_report(values: list[float], deadband: float) -> None:
    news = Exceptions(Tag("flow", "float32", deadband=deadband, report_every_s=1e6))
    reported = None
    for second, value in enumerate(values):
        if news.worth(at(value, second)):
            reported = value
        assert reported is not None
        assert abs(value - reported) < deadband
