"""NAB's scoring: the ends of its scale, and what a late or a false detection costs."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import DataError
from tools.pdm import nab
from tools.pdm.fit import Settings
from tools.pdm.nab import Window, detections, score

REAL = Path(__file__).resolve().parents[4] / "shared" / "data" / "nab"
WINDOWS = [Window(1000, 1099), Window(2000, 2199)]


def test_the_ends_of_the_scale() -> None:
    assert score([1000, 2000], WINDOWS, 750)["score"] == 100.0
    assert score([], WINDOWS, 750)["score"] == 0.0
    assert score([1000, 1001, 1050, 2000], WINDOWS, 750)["score"] == 100.0


def test_later_is_worse_and_the_end_of_a_window_is_worth_nothing() -> None:
    found = [score([1000 + late, 2000], WINDOWS, 750)["score"] for late in (0, 30, 60, 99)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(75.0, abs=1.0)


def test_a_false_detection_costs_by_how_far_it_is_from_a_window() -> None:
    early = score([900, 1000, 2000], WINDOWS, 750)
    assert early["raw"] == pytest.approx(2 - 0.11)
    assert early["false_detections"] == 1
    just_after = score([1000, 1101, 2000], WINDOWS, 750)["raw"]
    long_after = score([1000, 1600, 2000], WINDOWS, 750)["raw"]
    assert just_after == pytest.approx(2 + 0.11 * nab.sigmoid(2 / 99), abs=1e-4)
    assert long_after == pytest.approx(2 - 0.11)


def test_the_probation_rows_do_not_count() -> None:
    assert score([10, 500, 1000, 2000], WINDOWS, 750)["score"] == 100.0
    assert score([2000], WINDOWS, 1500)["windows"] == 1
    with pytest.raises(DataError, match="no labelled window"):
        score([1], WINDOWS, 5000)
    assert nab.probation_rows(22_695) == 750
    assert nab.probation_rows(1000) == 150


def test_a_detection_is_a_rise_after_quiet_rows() -> None:
    scores = np.zeros(100)
    scores[[10, 11, 12, 30, 90]] = 2.0
    scores[50] = np.nan
    assert detections(scores, 1.0, 20) == [10, 90]
    assert detections(scores, 1.0, 15) == [10, 30, 90]
    assert detections(scores, 3.0) == []


def test_a_folder_laid_out_like_nab(tmp_path: Path) -> None:
    start = datetime(2014, 1, 1)
    values = np.random.default_rng(0).normal(80, 1, 3000)
    values[2000:2100] += 15
    (tmp_path / "a").mkdir()
    (tmp_path / "labels").mkdir()
    lines = [f"{start + timedelta(minutes=5 * i)},{v}" for i, v in enumerate(values)]
    (tmp_path / "a/s.csv").write_text("\n".join(["timestamp,value", *lines]))
    span = [str(start + timedelta(minutes=5 * i)) for i in (1950, 2150)]
    (tmp_path / "labels/combined_windows.json").write_text(json.dumps({"a/s.csv": [span]}))
    result = nab.evaluate(tmp_path, "a/s.csv", Settings(members=("distance",), rate=1e-5, method="pot"))
    assert (result["found"], result["false_detections"]) == (1, 0)
    assert result["score"] > 80
    assert result["best_threshold_score"] >= result["score"]
    (tmp_path / "a/t.csv").write_text("\n".join(["timestamp,value", *lines]))
    with pytest.raises(DataError, match=r"no readable windows of 'a/t.csv'"):
        nab.evaluate(tmp_path, "a/t.csv")
    (tmp_path / "a/u.csv").write_text("timestamp,value\n2014-01-01 00:00:00,warm\n")
    with pytest.raises(DataError, match="row 2: could not convert"):
        nab.evaluate(tmp_path, "a/u.csv")


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no NAB at {REAL}")
def test_the_real_series() -> None:
    result = nab.evaluate(REAL)
    assert (result["rows"], result["windows"]) == (22_695, 4)
    assert result["score"] > 40
    assert result["best_threshold_score"] > 90
