"""Rows from samples: live and recorded give the same numbers; what is missing, late or from the future is never made up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.field.tag import Quality, Sample
from edge_runtime.field.window import Aligner, align
from edge_runtime.wire.series import Feature, FeatureView, TagView

S = 1_000_000_000
VIEW = FeatureView(
    "v", "1", (TagView("fast", hold_s=2.0), TagView("slow", hold_s=10.0, resample="mean")), (Feature("value"),), 1.0, 4
)  # fmt: skip


def sample(tag: str, at_s: float, value: float | None, quality: Quality = Quality.GOOD) -> Sample:
    return Sample(tag, value, quality, int(at_s * S), 0)


def test_two_rates_on_one_grid() -> None:
    aligner = Aligner(VIEW)
    for i in range(40):
        aligner.add(sample("fast", 0.25 * i, i), 10 * S)
    for i in range(3):
        aligner.add(sample("slow", 4.0 * i, 100 + i), 10 * S)
    rows = [row for now in range(10) for row in aligner.advance(now * S)]
    assert [row.mono_ns // S for row in rows] == list(range(10))
    assert [row.values[0] for row in rows] == [0, 4, 8, 12, 16, 20, 24, 28, 32, 36]
    assert [row.values[1] for row in rows] == [100] * 4 + [101] * 4 + [102] * 2
    np.testing.assert_array_equal(aligner.window()[:, 0], [24, 28, 32, 36])


def test_a_value_is_held_up_to_its_limit_and_is_then_missing_never_zero() -> None:
    aligner = Aligner(VIEW)
    aligner.add(sample("fast", 0.0, 7.0), 0)
    values = [aligner.advance(now * S)[0].values[0] for now in range(5)]
    np.testing.assert_array_equal(values, [7, 7, 7, np.nan, np.nan])


def test_a_tag_can_be_stale_while_its_value_is_still_held() -> None:
    view = FeatureView("v", "1", (TagView("t", hold_s=9.0, stale_s=2.0),), (Feature("value"),))
    aligner = Aligner(view)
    aligner.add(sample("t", 0.0, 7.0), 0)
    rows = [aligner.advance(now * S)[0] for now in range(4)]
    assert [row.stale for row in rows] == [(), (), (), ("t",)]
    assert rows[3].values[0] == 7.0
    assert aligner.stale(2 * S) == ()
    assert aligner.stale(3 * S) == ("t",)


def test_what_cannot_be_used_is_counted_by_reason() -> None:
    aligner = Aligner(VIEW)
    assert aligner.add(sample("fast", 5.0, 1.0), 5 * S)
    aligner.advance(5 * S)
    refused = [
        sample("fast", 4.0, 2.0),
        sample("fast", 5.0, 2.0),
        sample("slow", 4.5, 2.0),
        sample("fast", 60.0, 2.0),
        sample("fast", 5.5, float("nan")),
        sample("fast", 5.5, None, Quality.BAD),
        sample("fast", 5.5, 3.0, Quality.UNCERTAIN),
        sample("stranger", 5.5, 3.0),
    ]
    assert not any(aligner.add(s, 5 * S) for s in refused)
    told = aligner.refused
    assert (told.out_of_order, told.late, told.future, told.bad, told.unknown) == (2, 1, 1, 3, 1)


def test_a_long_pause_costs_a_window_of_rows_and_no_more() -> None:
    aligner = Aligner(VIEW)
    aligner.add(sample("fast", 0.0, 1.0), 0)
    aligner.advance(0)
    rows = aligner.advance(10**6 * S)
    assert len(rows) == VIEW.rows
    assert np.isnan(aligner.window()).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 4.0), st.sampled_from(["last", "mean"]))
def test_live_and_recorded_agree(seed: int, every_s: float, resample: str) -> None:
    rng = np.random.default_rng(seed)
    view = FeatureView("v", "1", (TagView("t", hold_s=1.5, resample=resample),), (Feature("value"),))
    times = np.unique(np.cumsum(rng.exponential(every_s * S, 60)).astype(np.int64))
    values = rng.normal(size=len(times))
    values[rng.random(len(times)) < 0.2] = np.nan
    recorded = align({"t": (times, values)}, view, 0, int(times[-1]) // S * S)
    aligner, live, i = Aligner(view), [], 0
    for row in range(len(recorded)):
        while i < len(times) and times[i] <= row * S:
            aligner.add(Sample("t", float(values[i]), Quality.GOOD, int(times[i]), 0), row * S)
            i += 1
        live += [r.values[0] for r in aligner.advance(row * S)]
    np.testing.assert_allclose(live, recorded[:, 0])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 29))
def test_samples_after_t_never_change_a_row_at_t(seed: int, t: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, 30 * S, 80))
    values = rng.normal(size=80)
    changed = np.where(times > t * S, 1e9, values)
    view = FeatureView("v", "1", (TagView("t", resample="mean"),), (Feature("value"),))
    before, after = (align({"t": (times, v)}, view, 0, 30 * S)[: t + 1] for v in (values, changed))
    np.testing.assert_array_equal(before, after)


def test_a_recording_without_a_good_value_is_missing_throughout() -> None:
    view = FeatureView("v", "1", (TagView("t"),), (Feature("value"),))
    found = align({"t": (np.array([0, S]), np.array([np.nan, np.nan]))}, view, 0, 3 * S)
    assert np.isnan(found).all()
    assert len(found) == 4
    with pytest.raises(KeyError):
        align({}, view, 0, S)
