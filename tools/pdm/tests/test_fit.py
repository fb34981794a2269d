"""A fitted model: one graph for training and device, causal, its false-alarm rate as stated, its tag the right one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import DataError
from edge_runtime.infer.onnx import OnnxEngine
from edge_runtime.infer.reference import ReferenceEngine
from tools.pdm import calibrate, fit
from tools.pdm.fit import Settings
from tools.pdm.tests import made

PLAIN = Settings(members=("distance", "pca"), rate=0.02, drift=0.0)


def test_the_stated_rate_is_the_measured_one_on_fresh_rows() -> None:
    above = total = 0
    for seed in range(8):
        fitted = fit.fit([made.rows(4000, seed)], made.view(), PLAIN)
        scores = fit.scores_at(fitted, made.rows(4000, 100 + seed))
        scores = scores[np.isfinite(scores)]
        above += int((scores > fitted.calibration.threshold).sum())
        total += len(scores)
        c = fitted.calibration
        assert c.measured_low <= PLAIN.rate <= c.measured_high
    low, high = calibrate.interval(above, total, depends_rows=10)
    assert low < PLAIN.rate < high


def test_an_ensemble_is_calibrated_as_a_whole() -> None:
    both = fit.fit([made.rows(2000)], made.view(), PLAIN)
    alone = fit.fit([made.rows(2000)], made.view(), replace(PLAIN, members=("pca",)))
    assert both.calibration.threshold != alone.calibration.threshold
    pooled = np.concatenate(both.held_out)
    assert (pooled > both.calibration.threshold).mean() == pytest.approx(PLAIN.rate, abs=0.001)


def test_a_fault_is_found_and_its_tag_named() -> None:
    fitted = fit.fit([made.rows(2000)], made.view(), PLAIN)
    for place, tag in enumerate(made.TAGS):
        rows = made.rows(300, 7)
        rows[200:, place] += 8 * made.rows(2000)[:, place].std()
        values = fit.values_at(fitted, rows)
        assert (values[210:, 0] > fitted.calibration.threshold).all(), tag
        assert values[210:, 1:].mean(0).argmax() == place
        np.testing.assert_allclose(values[210:, 1:].sum(1), 1.0, atol=1e-3)


def test_rows_after_t_never_change_a_score_at_t() -> None:
    fitted = fit.fit([made.rows(1000)], made.view(), PLAIN)
    rows = made.rows(200, 3)
    before = fit.scores_at(fitted, rows)
    for t in (20, 99, 150):
        changed = rows.copy()
        changed[t:] *= 1e6
        np.testing.assert_array_equal(fit.scores_at(fitted, changed)[:t], before[:t])


def test_one_graph_gives_the_same_in_batches_and_on_every_engine(tmp_path: Path) -> None:
    fitted = fit.fit([made.rows(800)], made.view(), PLAIN)
    (tmp_path / "m.onnx").write_bytes(fitted.onnx)
    whole = fit.run(fitted.onnx, fitted.inputs[:20])
    for engine in (OnnxEngine(tmp_path / "m.onnx", "a"), ReferenceEngine(tmp_path / "m.onnx", "b")):
        single = np.stack([engine.infer(fitted.inputs[i : i + 1]) for i in range(20)])
        np.testing.assert_allclose(single, whole, rtol=1e-4, atol=1e-5)


def test_a_hole_gives_no_score_for_as_long_as_it_is_in_the_window() -> None:
    fitted = fit.fit([made.rows(800)], made.view(), PLAIN)
    rows = made.rows(60, 5)
    rows[30, 2] = np.nan
    missing = np.isnan(fit.scores_at(fitted, rows))
    assert np.flatnonzero(missing).tolist() == [0, 1, 2, 3, 30, 31, 32, 33, 34]


def test_a_tag_that_wanders_counts_for_less() -> None:
    rng = np.random.default_rng(0)
    still, wandering = rng.normal(size=800), np.cumsum(rng.normal(size=800)) * 0.2
    scaler = fit.drift_scaler(np.stack([still, wandering], 1), Settings(drift=1.0))
    plain = fit.drift_scaler(np.stack([still, wandering], 1), Settings(drift=0.0))
    assert scaler.scale[0] / plain.scale[0] < 1.2
    assert scaler.scale[1] / plain.scale[1] > 2.0


def test_rows_that_cannot_give_a_model() -> None:
    with pytest.raises(DataError, match="whole windows of 5 rows"):
        fit.fit([made.rows(40)], made.view(), PLAIN)
    with pytest.raises(DataError, match="whole windows"):
        fit.fit([made.rows(1)], made.view(), PLAIN)
    with pytest.raises(DataError, match="whole windows"):
        fit.fit([np.full((500, 4), np.nan)], made.view(), PLAIN)
    with pytest.raises(DataError, match="no model 'magic'"):
        fit.fit([made.rows(500)], made.view(), replace(PLAIN, members=("magic",)))
    with pytest.raises(DataError, match="must not be above"):
        fit.fit([made.rows(500)], made.view(), replace(PLAIN, levels=(0.5,)))


def test_constant_rows_have_a_finite_threshold() -> None:
    rows = made.rows(500)
    rows[:, 1] = 20.0
    fitted = fit.fit([rows], made.view(), PLAIN)
    assert np.isfinite(fitted.calibration.threshold)
    assert np.isfinite(fit.values_at(fitted, rows)[10:]).all()
    changed = rows.copy()
    changed[400:, 1] = 21.0
    assert (fit.scores_at(fitted, changed)[410:] > fitted.calibration.threshold).all()


def test_several_recordings_are_never_joined() -> None:
    parts = [made.rows(400, seed) for seed in range(3)]
    fitted = fit.fit(parts, made.view(), PLAIN)
    assert len(fitted.inputs) == 3 * 396
