"""The figures against cases small enough to work out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tools.pipeline import metrics

DEFECT = np.array([True, True, True, False, False])


def test_balanced_accuracy_is_the_mean_of_recall_and_passed_share() -> None:
    diverted = np.array([True, True, False, False, True])
    assert metrics.balanced_accuracy(DEFECT, diverted) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_one_kind_only_has_no_balanced_accuracy_or_auroc() -> None:
    sound = np.zeros(3, bool)
    assert math.isnan(metrics.balanced_accuracy(sound, sound))
    assert math.isnan(metrics.auroc(sound, np.arange(3.0)))


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ([0.9, 0.8, 0.7, 0.2, 0.1], 1.0),
        ([0.1, 0.2, 0.3, 0.8, 0.9], 0.0),
        ([0.5] * 5, 0.5),
        ([0.9, 0.4, 0.3, 0.4, 0.1], 4.5 / 6),
    ],
)
def test_auroc_counts_pairs_and_halves_ties(score: list[float], expected: float) -> None:
    assert metrics.auroc(DEFECT, np.array(score)) == pytest.approx(expected)


def test_per_class_and_macro_f1() -> None:
    labels, predicted = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0])
    table = metrics.per_class(labels, predicted, ("a", "b", "c"))
    assert table["a"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    assert table["b"] == {"precision": pytest.approx(2 / 3), "recall": 1.0, "f1": pytest.approx(0.8), "support": 2}
    assert table["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert metrics.macro_f1(labels, predicted, 3) == pytest.approx((0.5 + 0.8 + 0.0) / 3)
    assert metrics.macro_f1(labels, predicted, 4) == metrics.macro_f1(labels, predicted, 3)


def test_ece_is_zero_when_confidence_is_kept_and_the_gap_when_not() -> None:
    sure = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert metrics.ece(np.array([0, 0]), sure) == 0.0
    assert metrics.ece(np.array([0, 1]), sure) == pytest.approx(0.5)
    half = np.array([[0.75, 0.25]] * 4)
    assert metrics.ece(np.array([0, 0, 0, 1]), half) == pytest.approx(0.0)


def test_intervals_hold_the_figure_and_repeat_with_the_seed() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    p = 0.2 + 0.8 * np.eye(3)[labels] * rng.random((90, 1))
    p /= p.sum(1, keepdims=True)
    diverted = p[:, 0] < 0.4
    report = metrics.report(labels, p, diverted, 0)
    for name, (low, high) in report["ci95"].items():
        assert low <= report[name] <= high
    assert set(report["ci95"]) == {"accuracy", "balanced_accuracy", "auroc", "macro_f1"}
    assert report == metrics.report(labels, p, diverted, 0)
