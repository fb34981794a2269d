"""Features: the formulas against plain ones, causal at every row, no NaN from a constant, NaN from a hole."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.infer import features
from edge_runtime.wire.series import PER_TAG, Blend, Feature, FeatureView, Regime, Scaler, TagView, parse_view

RATE_HZ = 1000.0
ALL = (
    *(Feature(kind, rows=8) for kind in PER_TAG),
    Feature("corr", ("a", "b")),
    Feature("ratio", ("a", "b"), rows=5),
    Feature("spread"),
    Feature("log_energy", low_hz=0.0, high_hz=0.25),
    Feature("envelope", low_hz=0.1, high_hz=0.5),
)
VIEW = FeatureView("all", "1", (TagView("a"), TagView("b")), ALL, window_rows=16)


def column(kind: str, x: np.ndarray, **more: float) -> float:
    view = FeatureView("one", "1", (TagView("a"),), (Feature(kind, **more),), 1 / RATE_HZ, len(x))  # type: ignore[arg-type]
    return float(features.columns(x[:, None], view)[0, 0])


def test_the_formulas() -> None:
    x = np.random.default_rng(1).gamma(2.0, 1.0, 64) - 3.0
    z = (x - x.mean()) / x.std()
    wanted = {
        "value": x[-1],
        "mean": x.mean(),
        "std": x.std(),
        "min": x.min(),
        "max": x.max(),
        "range": np.ptp(x),
        "median": np.median(x),
        "slope": np.polyfit(np.arange(64) / RATE_HZ, x, 1)[0],
        "diff": x[-1] - x[0],
        "rms": np.sqrt(np.mean(x * x)),
        "kurtosis": np.mean(z**4) - 3,
        "skew": np.mean(z**3),
        "crest": np.abs(x).max() / np.sqrt(np.mean(x * x)),
    }
    assert set(wanted) == set(PER_TAG)
    for kind, value in wanted.items():
        assert column(kind, x) == pytest.approx(value), kind


def test_a_band_holds_its_tone_and_the_envelope_its_modulation() -> None:
    t = np.arange(1000) / RATE_HZ
    tone = np.sin(2 * np.pi * 200 * t)
    assert (
        column("log_energy", tone, low_hz=190, high_hz=210) > column("log_energy", tone, low_hz=300, high_hz=400) + 10
    )
    knocking = (1 + np.cos(2 * np.pi * 37 * t)) * np.sin(2 * np.pi * 300 * t)
    spectrum = features.envelope_spectrum(knocking)
    assert spectrum.argmax() == 37
    assert (
        column("envelope", knocking, low_hz=30, high_hz=45) > column("envelope", knocking, low_hz=60, high_hz=100) + 3
    )


def test_a_constant_has_stated_values_and_never_nan() -> None:
    for constant in (0.0, 3.3, -1e9, 1e-30):
        found = features.columns(np.full((20, 2), constant), VIEW)
        assert np.isfinite(found).all()
        named = dict(zip([name for name, _ in VIEW.columns()], found[0], strict=True))
        assert named["kurtosis(a,8)"] == named["skew(a,8)"] == named["corr(a|b)"] == named["ratio(a|b,5)"] == 0.0


def test_a_hole_is_a_hole_for_as_long_as_it_is_looked_at() -> None:
    view = FeatureView("v", "1", (TagView("a"), TagView("b")), (Feature("mean"),), window_rows=4)
    rows = np.ones((20, 2))
    rows[10, 0] = np.nan
    missing = np.isnan(features.columns(rows, view))
    assert np.flatnonzero(missing[:, 0]).tolist() == [7, 8, 9, 10]
    assert not missing[:, 1].any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(16, 59), st.floats(-1e6, 1e6))
def test_samples_after_t_never_change_a_column_at_t(seed: int, t: int, other: float) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(60, 2))
    changed = rows.copy()
    changed[t:] = rng.normal(size=(60 - t, 2)) * other
    before = features.columns(rows, VIEW)[: t - VIEW.window_rows + 1]
    np.testing.assert_array_equal(before, features.columns(changed, VIEW)[: len(before)])


def test_one_window_gives_what_a_whole_recording_gives() -> None:
    rows = np.random.default_rng(3).normal(size=(50, 2))
    whole = features.columns(rows, VIEW)
    for i in (0, 7, len(whole) - 1):
        np.testing.assert_allclose(features.columns(rows[i : i + 16], VIEW)[0], whole[i], rtol=1e-9, atol=1e-9)


def test_scaled_columns_are_limited() -> None:
    scaled = features.scale(np.array([[1e12, -1e12, 3.0]]), Scaler((1.0,) * 3, (2.0,) * 3, 20.0))
    assert scaled.tolist() == [[20.0, -20.0, 1.0]]
    assert scaled.dtype == np.float32


def test_too_few_rows_and_the_wrong_width() -> None:
    assert features.columns(np.ones((15, 2)), VIEW).shape == (0, len(VIEW.columns()))
    with pytest.raises(ValueError, match="expected \\(n, 2\\)"):
        features.columns(np.ones((20, 3)), VIEW)


SHORT = FeatureView(
    "short",
    "1",
    (TagView("setting"), TagView("a"), TagView("b")),
    tuple(Feature(kind, ("a", "b", "index"), rows=rows) for kind in ("mean", "std", "slope", "max") for rows in (3, 8)),
    window_rows=8,
    history_rows=3,
    min_rows=1,
    settings=("setting",),
    setting_scale=(1.0,),
    regimes=(Regime((0.0,), (0.0, 5.0, 0.0), (1.0, 2.0, 1.0)), Regime((10.0,), (0.0, 50.0, 7.0), (1.0, 4.0, 3.0))),
    blends=(Blend("index", (0.0, 1.0, -2.0), 0.5),),
)


def short_rows(count: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.column_stack([rng.choice([0.0, 10.0], count) + rng.normal(0, 0.1, count), rng.normal(0, 9, (count, 2))])


def test_a_short_history_is_looked_at_as_far_as_it_goes() -> None:
    rows = short_rows(30)
    whole = features.columns(rows, SHORT)
    assert whole.shape == (30, 24)
    signals = features.signals(rows, SHORT)
    for i in (0, 1, 2, 5, 7, 8, 29):
        seen = signals[max(0, i - 7) : i + 1, 1:]
        np.testing.assert_allclose(whole[i, 3:6], seen.mean(0), atol=1e-9)
        np.testing.assert_allclose(whole[i, 9:12], seen.std(0), atol=1e-9)
        slope = np.polyfit(np.arange(len(seen)), seen, 1)[0] if i else np.zeros(3)
        np.testing.assert_allclose(whole[i, 15:18], slope, atol=1e-9)
        np.testing.assert_allclose(whole[i, 21:24], seen.max(0), atol=1e-9)
        np.testing.assert_allclose(features.columns(rows[: i + 1], SHORT, newest=1)[-1], whole[i], atol=1e-9)


def test_regimes_and_blends_make_the_signals() -> None:
    rows = np.array([[0.2, 7.0, 3.0], [9.0, 58.0, 10.0], [np.nan, 1.0, 1.0]])
    found = features.signals(rows, SHORT)
    np.testing.assert_allclose(found[:2, 1:], [[1.0, 3.0, -4.5], [2.0, 1.0, 0.5]])
    assert np.isnan(found[2]).all()


def test_a_history_of_columns_is_filled_with_its_oldest_row() -> None:
    rows = short_rows(20)
    whole = features.columns(rows, SHORT)
    filled = features.filled(whole, SHORT)
    assert len(filled) == 22
    np.testing.assert_array_equal(filled[:3], np.repeat(whole[:1], 3, 0))
    assert features.sequences(filled.astype(np.float32), 3).shape == (20, 3, 24)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"min_rows": 9}, "min_rows is 9"),
        ({"settings": ["pressure"]}, "'pressure' is not in the view"),
        ({"setting_scale": [0.0]}, "finite number > 0"),
        ({"regimes": []}, "1 with settings"),
        ({"regimes": [{"center": [0.0], "mean": [0.0], "scale": [1.0]}]}, "3 in mean"),
        ({"regimes": [{"center": [0.0], "mean": [0.0] * 3, "scale": [1.0, 0.0, 1.0]}]}, "scales > 0"),
        ({"regimes": [{"center": ["x"], "mean": [0.0] * 3, "scale": [1.0] * 3}]}, "list of numbers"),
        ({"blends": [{"name": "a", "weights": [0.0] * 3}]}, "empty or taken"),
        ({"blends": [{"name": "index", "weights": [0.0]}]}, "3 weights"),
        ({"features": [{"kind": "envelope", "low_hz": 0.1, "high_hz": 0.5}]}, "needs its whole window"),
    ],
)
def test_a_view_that_cannot_be_computed_is_refused(change: dict[str, object], told: str) -> None:
    data = {**json.loads(SHORT.canonical()), **change}
    with pytest.raises(ValueError, match=told):
        parse_view(data)


def test_a_view_read_back_is_the_same_view() -> None:
    assert parse_view(json.loads(SHORT.canonical())) == SHORT
    assert "min_rows" not in json.loads(VIEW.canonical())
