"""A series bundle is verified as a whole, installed like any other, and answers with a stated quality."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.errors import BundleError, UsageError
from edge_runtime.field.tag import Quality
from edge_runtime.identity import public_bytes
from edge_runtime.infer import bundle as bundles
from edge_runtime.infer import kinds, series, series_bundle
from edge_runtime.infer.series import SeriesModel, load_series_model
from edge_runtime.tests.series_bundles import CALIBRATION, VIEW, make_series_bundle, rows
from edge_runtime.update import keyring
from edge_runtime.update.install import install
from edge_runtime.wire.series import Calibration, Interval, Scaler, parse, parse_view

KEY = Ed25519PrivateKey.generate()


def model(tmp_path: Path, **changes: Any) -> SeriesModel:
    return load_series_model(make_series_bundle(tmp_path / "b", sign_key=KEY, **changes), tmp_path / "engines.json")


def test_it_loads_and_kinds_are_not_mixed_up(tmp_path: Path) -> None:
    path = make_series_bundle(tmp_path / "b", sign_key=KEY)
    bundle = kinds.load(path)
    assert isinstance(bundle, series_bundle.SeriesBundle)
    assert bundle.manifest.view == VIEW
    assert bundle.reference is not None
    assert parse((path / "manifest.toml").read_bytes()) == bundle.manifest
    with pytest.raises(BundleError, match="a bundle of time series, expected one for a camera"):
        bundles.load(path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"view_sha256": "0" * 64}, "the model was not trained with this view"),
        ({"scaler": Scaler((0.0,), (1.0,))}, "the view has 4 columns"),
        ({"scaler": Scaler((0.0,) * 4, (1.0, 1.0, 0.0, 1.0))}, "finite scales > 0"),
        ({"scaler": Scaler((float("nan"),) * 4, (1.0,) * 4)}, "finite centers"),
        ({"calibration": replace(CALIBRATION, threshold=float("nan"))}, "threshold is nan"),
        ({"calibration": replace(CALIBRATION, levels={"low": 0.1})}, "at least the threshold"),
        ({"calibration": replace(CALIBRATION, smoothing="magic")}, "expected smoothing of"),
        ({"calibration": None}, "has \\[calibration\\] alone"),
        ({"interval": Interval("h", 125.0, 0.9)}, "has \\[calibration\\] alone"),
        ({"kind": "vision"}, "expected one of anomaly, rul"),
        ({"contributions": "tea leaves"}, "contributions is"),
        ({"variants": ()}, "at least one"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_field(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    path = make_series_bundle(tmp_path / "b", signed=False, **changes)
    with pytest.raises(BundleError, match=told):
        series_bundle.load(path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tags": []}, "at least one"),
        ({"grid_s": 0.0}, "grid_s is 0.0"),
        ({"grid_s": float("nan")}, "grid_s is nan"),
        ({"window_rows": 0}, "must be 1 or more"),
        ({"features": [{"kind": "magic"}]}, "kind is 'magic'"),
        ({"features": [{"kind": "value", "tags": ["pressure"]}]}, "'pressure' is not in the view"),
        ({"features": [{"kind": "corr"}]}, "exactly two tags"),
        ({"features": [{"kind": "log_energy", "low_hz": 0.1, "high_hz": 9.0}]}, "the band must be"),
        ({"features": [{"kind": "log_energy", "low_hz": 0.1, "high_hz": 0.2}]}, "the band is narrower"),
        ({"features": [{"kind": "mean", "rows": 9}]}, "expected 0 to window_rows"),
        ({"tags": [{"name": "a"}, {"name": "a"}]}, "different names"),
        ({"tags": [{"name": "a", "hold_s": -1}]}, "0 or more"),
        ({"surprise": 1}, "unknown key 'surprise'"),
    ],
)
def test_a_view_that_cannot_be_computed_is_refused(change: dict[str, Any], told: str) -> None:
    data = {"name": "v", "version": "1", "tags": [{"name": "a"}], "features": [{"kind": "value"}], "window_rows": 4}
    parse_view(data)
    with pytest.raises(ValueError, match=told):
        parse_view({**data, **change})


def test_any_change_of_the_view_changes_its_hash() -> None:
    assert replace(VIEW).digest() == VIEW.digest()
    others = [replace(VIEW, grid_s=2.0), replace(VIEW, version="2"), replace(VIEW, tags=VIEW.tags[::-1])]
    others.append(replace(VIEW, tags=(replace(VIEW.tags[0], hold_s=6.0), VIEW.tags[1])))
    assert len({view.digest() for view in (VIEW, *others)}) == 5


def test_golden_windows_are_run_at_install(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "trust").mkdir(parents=True)
    keyring.write_public(state / "trust" / "mine.pub", public_bytes(KEY))
    good = make_series_bundle(tmp_path / "good", sign_key=KEY)
    assert install(good, state, "asset-pump-anomaly").changed
    wrong = make_series_bundle(tmp_path / "wrong", sign_key=KEY, scaler=Scaler((61.0, 4.0, 0.8, 0.4), (1.0,) * 4))
    with pytest.raises(BundleError, match=r"refused in its trial.*golden vectors differ"):
        install(wrong, state, "asset-pump-anomaly")
    for elsewhere in ("pump", "default", "asset-pump-rul"):  # where nothing would run it
        with pytest.raises(UsageError, match="kind anomaly: expected --slot-set asset-<name>-anomaly"):
            install(good, state, elsewhere)


def test_a_missing_value_gives_no_score_and_says_so(tmp_path: Path) -> None:
    m = model(tmp_path)
    assert m.answer(rows(3)).reason == "3 of 5 rows so far"
    window = rows(5)
    assert m.answer(window).quality is Quality.GOOD
    window[2, 1] = np.nan
    answer = m.answer(window)
    assert answer.values is None
    assert answer.quality is Quality.UNCERTAIN
    assert answer.reason == "missing values of vibration"
    assert m.judge(answer) is None


def test_a_stale_tag_gives_no_score_though_its_value_is_held(tmp_path: Path) -> None:
    m = model(tmp_path)
    answer = m.answer(rows(5), stale=("vibration",))
    assert answer.values is None
    assert (answer.quality, answer.reason) == (Quality.UNCERTAIN, "nothing new from vibration")
    assert m.judge(answer) is None


def test_the_verdict_names_the_tag_and_the_severity(tmp_path: Path) -> None:
    m = model(tmp_path)
    calm = m.judge(m.answer(rows(5)))
    assert calm is not None
    assert not calm.anomalous
    assert calm.severity == ""
    m = load_series_model(tmp_path / "b", tmp_path / "engines.json")
    loud = m.judge(m.answer(rows(5, shift=20.0)))
    assert loud is not None
    assert loud.anomalous
    assert loud.severity == "critical"
    assert loud.shares[0][0] == "vibration"
    assert sum(share for _, share in loud.shares) == pytest.approx(1.0, abs=1e-5)


def test_many_rows_give_the_numbers_of_one_at_a_time(tmp_path: Path) -> None:
    m = model(tmp_path)
    data = rows(40)
    data[17, 0] = np.nan
    many = series.run_many(m.manifest, m.engine, data)
    for t in range(40):
        values = m.answer(data[max(0, t - 4) : t + 1]).values
        if values is None:
            assert np.isnan(many[t]).all()
        else:
            np.testing.assert_allclose(many[t], values)


@pytest.mark.parametrize(("kind", "expected"), [("mean", 2.0), ("median", 2.0), ("none", 3.0), ("ewma", 2.25)])
def test_smoothing_is_causal_and_restarts_after_a_gap(kind: str, expected: float) -> None:
    calibration = Calibration("conformal", 0.01, 1.0, kind, 3)
    scores = np.array([9.0, np.nan, 1.0, 2.0, 3.0])
    got = series.smooth(scores, calibration)
    assert got[0] == 9.0
    assert np.isnan(got[1])
    assert got[2] == 1.0
    assert got[4] == expected


def test_remaining_life_is_widened_limited_and_in_order(tmp_path: Path) -> None:
    m = model(tmp_path, kind="rul")
    found = m.remaining(m.answer(rows(5)))
    assert found is not None
    assert found.upper - found.lower == pytest.approx(6.0, abs=1e-5)
    interval = Interval("h", 10.0, 0.9, 1.0, 1.0)
    wild = series.remaining(np.array([12.0, 11.0, 30.0], np.float32), interval)
    assert (wild.lower, wild.remaining, wild.upper) == (10.0, 10.0, 10.0)
    assert series.remaining(np.array([-3.0, 4.0, -5.0], np.float32), interval).remaining == 0.0
    with pytest.raises(BundleError, match="expected anomaly"):
        m.judge(m.answer(rows(5)))
