"""`gudgeon train pdm`: from a CSV to a bundle that the device installs, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_runtime.errors import DataError
from edge_runtime.field.tag import Quality, Sample
from edge_runtime.field.window import Aligner
from edge_runtime.infer import series_bundle
from edge_runtime.infer.series import load_series_model
from tools.pdm import train_cli
from tools.pdm.tests import made

KEY = Ed25519PrivateKey.generate()
NOW_S = 1_800_000_000.0


def train(tmp_path: Path, data: Path, *more: str) -> dict[str, Any]:
    args = ["--data", str(data), "--out", str(tmp_path / "b"), "--models", "distance,pca", "--rate", "0.01", *more]
    return train_cli.train(train_cli.parse(args), NOW_S, lambda *_: None, KEY)


def test_a_csv_becomes_a_bundle_that_follows_live_samples(tmp_path: Path) -> None:
    rows = made.rows(1200)
    rows[300:303, 0] = np.nan  # shorter than the hold
    summary = train(tmp_path, made.write_csv(tmp_path / "a.csv", rows))
    assert summary["tags"] == list(made.TAGS)
    assert summary["calibration"]["false_alarm_rate"] == 0.01
    levels = list(summary["calibration"]["levels"].values())
    assert levels == sorted(levels)
    bundle = series_bundle.load(tmp_path / "b")
    assert bundle.reference is not None
    assert bundle.manifest.view.digest() == summary["view_sha256"]
    model = load_series_model(tmp_path / "b", tmp_path / "engines.json")
    aligner, alarms, named = Aligner(bundle.manifest.view), [], ""
    live = made.rows(120, 9)
    live[80:, 2] += 10 * made.rows(1000)[:, 2].std()
    for i, row in enumerate(live):
        now_ns = i * 1_000_000_000
        for tag, value in zip(made.TAGS, row, strict=True):
            aligner.add(Sample(tag, float(value), Quality.GOOD, now_ns, 0), now_ns)
        aligner.advance(now_ns)
        verdict = model.judge(model.answer(aligner.window()))
        if verdict is not None and verdict.anomalous:
            alarms.append(i)
            named = verdict.shares[0][0]
    assert set(range(85, 120)) <= set(alarms)
    assert len([i for i in alarms if i < 80]) <= 4
    assert named == "current"


def test_a_folder_of_recordings_and_a_view_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for i in range(3):
        made.write_csv(tmp_path / "data" / f"{i}.csv", made.rows(300, i))
    view = tmp_path / "view.toml"
    view.write_text(
        'name = "pump"\nversion = "7"\nwindow_rows = 8\n'
        '[[tags]]\nname = "flow"\n[[tags]]\nname = "pressure"\n'
        '[[features]]\nkind = "mean"\n[[features]]\nkind = "corr"\ntags = ["flow", "pressure"]\n'
    )
    summary = train(tmp_path, tmp_path / "data", "--view", str(view))
    assert summary["tags"] == ["flow", "pressure"]
    assert series_bundle.load(tmp_path / "b").manifest.view.version == "7"
    view.write_text(view.read_text().replace('"flow"\n[[tags]]', '"heat"\n[[tags]]').replace('["flow",', '["heat",'))
    with pytest.raises(DataError, match="no column 'heat' for the view"):
        train(tmp_path, tmp_path / "data", "--view", str(view))
    view.write_text("name = 3")
    with pytest.raises(DataError, match="at least one"):
        train(tmp_path, tmp_path / "data", "--view", str(view))


def test_a_constant_tag_is_left_out_and_said(tmp_path: Path) -> None:
    rows = made.rows(600)
    rows[:, 1] = 3.0
    assert train(tmp_path, made.write_csv(tmp_path / "a.csv", rows))["left_out"] == ["pressure"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: np.full_like(rows, 7.0), "constant in the training rows"),
        (lambda rows: np.full_like(rows, np.nan), "not one value in the training rows"),
        (lambda rows: np.where(np.arange(4) == 2, np.nan, rows), "current: not one value"),
        (lambda rows: rows[:1], "1 rows of data"),
        (lambda rows: rows[:30], "whole windows of 5 rows"),
        (lambda rows: np.where(np.arange(len(rows))[:, None] % 40 < 20, np.nan, rows), "whole windows of 5 rows"),
        (lambda rows: np.where(rows == rows[50, 1], 1e200, rows), "too large to be learned from"),
    ],
)
def test_what_cannot_be_learned_is_an_error_with_its_reason(tmp_path: Path, change: Any, told: str) -> None:
    data = made.write_csv(tmp_path / "a.csv", change(made.rows(120)))
    with pytest.raises(DataError, match=told):
        train(tmp_path, data)
    assert not (tmp_path / "b").exists()


def test_a_long_hole_in_a_recording(tmp_path: Path) -> None:
    rows = made.rows(600)
    lines = made.write_csv(tmp_path / "a.csv", rows).read_text().splitlines()

    def with_a_hole(before: int) -> Path:
        times = [i if i < before else i + 50_000 for i in range(len(rows))]
        cells = [line.split(",", 1)[1] for line in lines[1:]]
        path = tmp_path / f"{before}.csv"
        path.write_text("\n".join([lines[0], *(f"{t},{c}" for t, c in zip(times, cells, strict=True))]))
        return path

    assert train(tmp_path, with_a_hole(300))["calibration"]["rows"] > 500
    with pytest.raises(DataError, match="holes so long that no block"):
        train(tmp_path, with_a_hole(599))


def test_unscaled_tags_weigh_alike(tmp_path: Path) -> None:
    """Tags of 1e-3 and 1e9 in one table: the fault is found in the smallest too."""
    data = made.write_csv(tmp_path / "a.csv", made.rows(800))
    train(tmp_path, data)
    model = load_series_model(tmp_path / "b", tmp_path / "engines.json")
    rows = made.rows(5, 3)
    rows[:, 0] += 10 * made.rows(1000)[:, 0].std()
    verdict = model.judge(model.answer(rows))
    assert verdict is not None
    assert verdict.anomalous
    assert verdict.shares[0][0] == "flow"


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not a bundle, so it is not replaced"):
        train(tmp_path, made.write_csv(tmp_path / "a.csv", made.rows(300)))


@pytest.mark.parametrize(
    "wrong", [["--rate", "0"], ["--rate", "0.9"], ["--epochs", "0"], ["--grid-s", "-1"], ["--seed", "-1"]]
)
def test_wrong_arguments(tmp_path: Path, wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train_cli.parse(["--data", "a.csv", "--out", str(tmp_path), *wrong])
    assert stopped.value.code == 2
