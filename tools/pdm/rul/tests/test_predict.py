"""predict and evaluate, end to end, with a small bundle of remaining life; needs neither PyTorch nor scikit-learn."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from edge_runtime.cli import run
from edge_runtime.infer.tests import tiny_onnx
from edge_runtime.tests.series_bundles import make_series_bundle
from edge_runtime.wire.series import Feature, FeatureView, Interval, Scaler, SeriesManifest, TagView
from tools.pdm import pack
from tools.pdm.rul import simulate
from tools.pdm.rul.data import Unit
from tools.pdm.rul.simulate import Fleet

KEY = Ed25519PrivateKey.generate()
VIEW = FeatureView(
    "life",
    "1",
    (TagView("cycle"), TagView("sensor_2")),
    (Feature("value", ("cycle",)), Feature("mean", ("sensor_2",), 20)),
    window_rows=20,
    min_rows=1,
)


def life_bundle(path: Path) -> Path:
    """remaining = 150 − cycle, ten less and ten more."""
    node = tiny_onnx.node
    tensors: dict[str, NDArray[Any]] = {
        "weights": np.tile(np.array([[-1.0], [0.0]], np.float32), (1, 1, 3)),
        "start": np.array([150, 140, 160], np.float32),
        "shape": np.array([1, 3], np.int64),
    }
    nodes = [
        node("MatMul", ["x", "weights"], ["sum"]),
        node("Add", ["sum", "start"], ["all"]),
        node("Reshape", ["all", "shape"], ["y"]),
    ]
    draft = SeriesManifest(
        kind="rul",
        name="life",
        version="1",
        created="2026-01-01T00:00:00Z",
        view=VIEW,
        view_sha256=VIEW.digest(),
        scaler=Scaler((0.0, 0.0), (1.0, 1.0), 1e6),
        variants=(),
        files={},
        interval=Interval("cycles", 125.0, 0.9, 2.0, 3.0),
    )
    model = pack.Model("model.fp32.onnx", "fp32", tiny_onnx.model(nodes, tensors, (1, 1, 2), (1, 3)))
    windows = np.random.default_rng(0).normal(50, 1, (4, 20, 2))
    pack.pack(path, draft, [model], windows, key=KEY)
    return path


def test_a_row_a_unit_in_the_order_of_the_file_at_its_last_cycle(tmp_path: Path) -> None:
    units, _ = simulate.cut_units(simulate.make_units(Fleet(6, shortest=40, longest=160), 2), 3)
    units = [*units[::-1], Unit(99, units[0].rows[:5])]
    (tmp_path / "test.txt.gz").write_bytes(gzip.compress(simulate.text(units).encode()))
    bundle, out = life_bundle(tmp_path / "b"), tmp_path / "p.csv"
    assert run("predict", ["rul", str(bundle), "--test", str(tmp_path / "test.txt.gz"), "--out", str(out)]) == 0
    rows = list(csv.reader(out.open()))
    assert rows[0] == ["unit", "rul", "lower", "upper"]
    assert [int(row[0]) for row in rows[1:]] == [unit.number for unit in units]
    for row, unit in zip(rows[1:], units, strict=True):
        middle = min(150.0 - len(unit), 125.0)
        assert float(row[1]) == pytest.approx(max(middle, 0.0))
        assert float(row[2]) == pytest.approx(max(min(138.0 - len(unit), middle), 0.0))
        assert float(row[3]) == pytest.approx(min(163.0 - len(unit), 125.0))


def test_evaluate_reads_what_predict_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.csv").write_text("unit,rul,lower,upper\n3,100,90,125\n1,20,15,25\n")
    (tmp_path / "lines.txt").write_text("130\n30\n")
    (tmp_path / "named.csv").write_text("unit,cut_cycle,rul\n1,9,30\n3,9,130\n")
    for truth in ("lines.txt", "named.csv"):
        arguments = ["rul", "--predictions", str(tmp_path / "p.csv"), "--truth", str(tmp_path / truth), "--json"]
        assert run("evaluate", [*arguments, "--cap", "125"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["n"] == 2
        assert found["rmse"] == pytest.approx(np.sqrt((25**2 + 10**2) / 2), abs=1e-3)
        assert found["coverage"] == 0.5
        assert found["mean_width"] == 22.5


@pytest.mark.parametrize(
    ("predictions", "truth", "told"),
    [
        ("unit,rul\n1,2", "3", "no column 'lower'"),
        ("unit,rul,lower,upper\n", "3", "holds no predictions"),
        ("unit,rul,lower,upper\n1,2,3,1\n", "3", "lower above upper"),
        ("unit,rul,lower,upper\n1,nan,1,3\n", "3", "not finite"),
        ("unit,rul,lower,upper\n1,2,1,3\n", "3\n4", "2 remaining lives for 1 predictions"),
        ("unit,rul,lower,upper\n1,2,1,3\n", "unit,rul\n2,4", "no row for unit 1"),
    ],
)
def test_what_does_not_fit_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], predictions: str, truth: str, told: str
) -> None:
    (tmp_path / "p.csv").write_text(predictions)
    (tmp_path / "t").write_text(truth)
    assert run("evaluate", ["rul", "--predictions", str(tmp_path / "p.csv"), "--truth", str(tmp_path / "t")]) == 8
    assert told in capsys.readouterr().err


def test_another_kind_of_bundle_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t").write_text(simulate.text(simulate.make_units(Fleet(1, shortest=20, longest=20), 0)))
    for kind, told in (("anomaly", "of kind anomaly, expected rul"), ("rul", "needs the tag 'temperature'")):
        bundle = make_series_bundle(tmp_path / kind, kind=kind, sign_key=KEY)
        assert run("predict", ["rul", str(bundle), "--test", str(tmp_path / "t"), "--out", str(tmp_path / "o")]) == 4
        assert told in capsys.readouterr().err
    assert run("predict", ["rule"]) == 2
    assert "did you mean 'rul'" in capsys.readouterr().err
