"""A packed folder is a bundle that the device accepts; what must not be replaced is not; evaluate reads it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image

from edge_runtime.errors import BundleError, DataError
from edge_runtime.infer import bundle as bundles
from edge_runtime.infer import select
from edge_runtime.infer.onnx import OnnxEngine
from edge_runtime.tests import bundles as small
from edge_runtime.wire.manifest import Thresholds
from tools.pipeline import evaluate, pack

KEY = Ed25519PrivateKey.generate()


def _pack(tmp_path: Path, out: Path) -> Path:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    (work / pack.FP32).write_bytes(small.model(2, 0))
    (work / pack.INT8).write_bytes(small.model_int8(2, 0))
    frames = [small.make_frame(i % 2 == 1, i) for i in range(6)]
    contents = pack.Contents(
        name="spots",
        version="1",
        created="2026-01-01T00:00:00Z",
        classes=("ok", "spot"),
        ok_class="ok",
        temperature=1.5,
        input=small.SPEC,
        thresholds=Thresholds(0.5, 0.3),
        golden=frames,
        train_frames=frames,
        engines={
            pack.INT8: ("onnxruntime", "int8", OnnxEngine(work / pack.INT8, "int8")),
            pack.FP32: ("onnxruntime", "fp32", OnnxEngine(work / pack.FP32, "fp32")),
        },
        training={"n": 6, "seed": 0, "recipe": {"epochs": 1}},
        metrics={"auroc": 1.0},
    )
    pack.pack(out, work, contents, KEY)
    return out


def _data(folder: Path, label: str = "spot") -> Path:
    rows = []
    for i in range(8):
        name = label if i % 2 else "ok"
        (folder / "test" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(small.make_frame(i % 2 == 1, 50 + i)).save(folder / "test" / name / f"{i}.png")
        rows.append(("test", name, f"{i}.png", i % 2))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("split", "class", "file", "defect"), *rows])
    return folder


def test_the_bundle_loads_and_every_variant_passes_its_golden_vectors(tmp_path: Path) -> None:
    bundle = bundles.load(_pack(tmp_path, tmp_path / "b"))
    choice = select.choose(bundle, tmp_path / "engines.json")
    assert set(choice.latency_us) == {"onnxruntime-fp32", "onnxruntime-int8"}
    assert not choice.refused
    assert bundle.manifest.frame_limits.min_height == small.FRAME_SIDE // 2
    assert "spot" in (tmp_path / "b" / pack.CARD).read_text()


def test_a_bundle_is_replaced_and_a_stranger_is_not(tmp_path: Path) -> None:
    out = _pack(tmp_path, tmp_path / "b")
    (out / "old.bin").write_bytes(b"left over")
    _pack(tmp_path, out)
    assert not (out / "old.bin").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(DataError, match="not a bundle, so it is not replaced"):
        _pack(tmp_path, tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_golden_vectors_take_the_classes_in_turn() -> None:
    labels = np.array([0] * 10 + [1] * 3 + [2])
    logits = np.eye(3, dtype=np.float32)[labels] * 5
    chosen = pack.choose_golden(labels, logits, 5, np.random.default_rng(0))
    assert sorted(labels[chosen].tolist()) == [0, 0, 1, 1, 2]


def test_evaluate_reports_the_promised_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = _pack(tmp_path, tmp_path / "b")
    assert evaluate.main([str(out), "--data", str(_data(tmp_path / "d")), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"n", "classes", "per_class", "fp32", "int8", "file_bytes"}
    assert report["n"] == 8
    for precision in ("fp32", "int8"):
        found = report[precision]
        assert set(found) == {"accuracy", "balanced_accuracy", "auroc", "macro_f1", "ece", "ci95"}
        assert found["balanced_accuracy"] == found["auroc"] == 1.0
        assert set(found["ci95"]) == {"accuracy", "balanced_accuracy", "auroc", "macro_f1"}
        assert report["file_bytes"][precision] > 0
    assert report["per_class"]["spot"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 4}
    assert evaluate.main([str(out), "--data", str(tmp_path / "d")]) == 0
    assert "8 images" in capsys.readouterr().out


def test_evaluate_refuses_what_does_not_fit(tmp_path: Path) -> None:
    out = _pack(tmp_path, tmp_path / "b")
    with pytest.raises(DataError, match="is not in the bundle; it has ok, spot"):
        evaluate.evaluate(out, _data(tmp_path / "rust", "rust"), "test")
    with pytest.raises(DataError, match="no row has split 'spring'"):
        evaluate.evaluate(out, _data(tmp_path / "d"), "spring")
    only = small.make_bundle(tmp_path / "fp32", int8=False, sign_key=KEY)
    with pytest.raises(BundleError, match="no int8 variant"):
        evaluate.evaluate(only, tmp_path / "d", "test")
