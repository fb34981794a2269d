"""Temperature and thresholds on held-out scores with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from tools.pipeline import calibrate


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_temperature_undoes_a_scale(scale: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(3, p=row) for row in p])
    found = calibrate.fit_temperature((logits * scale).astype(np.float32), labels)
    assert found == pytest.approx(scale, rel=0.12)


def test_best_threshold_is_in_the_middle_of_the_gap() -> None:
    defect = np.array([False, False, True, True])
    assert calibrate.best_threshold(defect, np.array([0.1, 0.2, 0.6, 0.9])) == pytest.approx(0.4)


def test_all_alike_scores_still_give_a_threshold() -> None:
    defect = np.array([False, True])
    assert 0.0 <= calibrate.best_threshold(defect, np.array([0.5, 0.5])) <= 1.0


def test_review_band_is_below_reject() -> None:
    rng = np.random.default_rng(1)
    defect = rng.random(400) < 0.5
    score = np.clip(np.where(defect, 0.7, 0.3) + rng.normal(0, 0.15, 400), 0, 1)
    limits = calibrate.choose_thresholds(defect, score)
    assert 0.35 < limits.review < 0.65
    assert limits.review <= limits.reject <= 1.0
    assert (score[~defect] >= limits.reject).mean() <= calibrate.REJECT_OVERKILL + 1e-9
    assert limits == calibrate.choose_thresholds(defect, score)


def test_without_defects_the_thresholds_are_neutral() -> None:
    limits = calibrate.choose_thresholds(np.zeros(5, bool), np.linspace(0, 1, 5))
    assert (limits.review, limits.reject) == (0.5, 0.5)
