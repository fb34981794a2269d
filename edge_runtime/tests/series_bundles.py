"""Small real bundles of time series for tests: two tags, a graph whose score is the mean size of the scaled columns.

`make_series_bundle(tmp_path / "b")` gives a folder that `update.install` accepts. anomaly: [score, share, share]; rul:
[10 − mean, 8 − mean, 12 − mean] of the scaled columns.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from edge_runtime.infer import features
from edge_runtime.infer.reference import ReferenceEngine
from edge_runtime.infer.tests import tiny_onnx
from edge_runtime.update.sign import sign_bundle
from edge_runtime.wire import manifest as wire
from edge_runtime.wire import series
from edge_runtime.wire.manifest import Variant
from edge_runtime.wire.series import Calibration, Feature, FeatureView, Interval, Scaler, SeriesManifest, TagView

VIEW = FeatureView(
    name="pump",
    version="1",
    tags=(TagView("temperature", "C"), TagView("vibration", "mm/s", hold_s=2.0)),
    features=(Feature("value"), Feature("std", rows=4)),
    window_rows=4,
    history_rows=2,
)
CALIBRATION = Calibration("conformal", 0.01, 1.5, "mean", 3, rows=1000, levels={"low": 1.5, "critical": 4.0})
INTERVAL = Interval("h", 125.0, 0.9, 1.0, 1.0)


def rows(count: int = 5, seed: int = 0, shift: float = 0.0) -> NDArray[np.float64]:
    """Normal rows of the two tags; `shift` adds to the vibration."""
    values = np.random.default_rng(seed).normal([60.0, 4.0], [1.0, 0.5], (count, 2))
    return np.asarray(values + np.array([0.0, shift]))


def make_series_bundle(
    path: Path, *, kind: str = "anomaly", sign_key: Ed25519PrivateKey | None = None, signed: bool = True, **changes: Any
) -> Path:
    """Write a bundle into the new folder `path` and return it; `changes` are further manifest fields."""
    path.mkdir(parents=True)
    columns = len(VIEW.columns())
    content = {"model.fp32.onnx": graph(kind, columns)}
    (path / "model.fp32.onnx").write_bytes(content["model.fp32.onnx"])
    draft = SeriesManifest(
        kind=kind,
        name="pump",
        version="1",
        created="2026-01-01T00:00:00Z",
        view=VIEW,
        view_sha256=VIEW.digest(),
        scaler=Scaler((60.0, 4.0, 0.8, 0.4), (1.0, 0.5, 0.4, 0.2)),
        variants=(Variant("fp32", "onnxruntime", "fp32", "model.fp32.onnx", 1e-3),),
        files={},
        calibration=CALIBRATION if kind == "anomaly" else None,
        interval=INTERVAL if kind == "rul" else None,
    )
    windows = np.stack([rows(VIEW.rows, seed, float(seed % 2) * 4) for seed in range(6)])
    engine = ReferenceEngine(path / "model.fp32.onnx", "fp32")
    inputs = [features.model_input(window, draft) for window in windows]
    outputs = np.stack([engine.infer(x) for x in inputs if x is not None])
    content[wire.GOLDEN] = _arrays(windows=windows, outputs=outputs)
    levels = np.linspace(0, 1, 11)
    scores = np.linspace(0, 2, 11) if kind == "anomaly" else np.empty(0)
    content[series.REFERENCE] = _arrays(levels=levels, inputs=np.tile(levels[:, None], (1, columns)), scores=scores)
    for name in (wire.GOLDEN, series.REFERENCE):
        (path / name).write_bytes(content[name])
    files = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    manifest = SeriesManifest(**{**draft.__dict__, "files": files, **changes})
    (path / wire.MANIFEST).write_text(tomli_w.dumps(manifest.to_dict()))
    if signed:
        sign_bundle(path, sign_key)
    return path


def graph(kind: str, columns: int) -> bytes:
    """One matrix over |x| (anomaly) or x (rul) of the flattened input; column c belongs to tag c mod 2."""
    inputs = 2 * columns
    node = tiny_onnx.node
    nodes = [node("Flatten", ["x"], ["flat"])]
    if kind == "anomaly":
        sums, total = np.zeros((2, inputs, 3), np.float32)
        sums[:, 0], sums[0::2, 1], sums[1::2, 2] = 1 / inputs, 1.0, 1.0
        total[:, 1:] = 1.0
        tensors = {"sums": sums, "total": total, "minus": np.full(1, -1.0, np.float32)}
        tensors["one"] = np.array([1.0, 0.0, 0.0], np.float32)
        nodes += [
            node("Relu", ["flat"], ["up"]),
            node("Mul", ["flat", "minus"], ["negative"]),
            node("Relu", ["negative"], ["down"]),
            node("Add", ["up", "down"], ["size"]),
            node("MatMul", ["size", "sums"], ["parts"]),
            node("MatMul", ["size", "total"], ["whole"]),
            node("Add", ["whole", "one"], ["divisor"]),
            node("Div", ["parts", "divisor"], ["y"]),
        ]
    else:
        tensors = {"mean": np.full((inputs, 3), -1 / inputs, np.float32), "life": np.array([10, 8, 12], np.float32)}
        nodes += [node("MatMul", ["flat", "mean"], ["sum"]), node("Add", ["sum", "life"], ["y"])]
    return tiny_onnx.model(nodes, tensors, (1, 2, columns), (1, 3))


def _arrays(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
