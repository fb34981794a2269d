"""Features: the formulas against plain ones, causal at every row, no NaN from a constant, NaN from a hole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.infer import features
from edge_runtime.wire.series import PER_TAG, Feature, FeatureView, Scaler, TagView

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
