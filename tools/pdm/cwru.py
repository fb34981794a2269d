"""`gudgeon evaluate cwru`: bearing faults from vibration, a smoke check of the spectral features and of the way to ONNX.

Each recording is cut into windows of 2048 samples: those of its first 70 % train, those of its last 30 % test, without a
sample in both. A linear classifier on the device's features, exported to ONNX, answers through the device's engine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import DataError, exit_code
from edge_runtime.infer import features
from edge_runtime.infer.onnx import OnnxEngine
from edge_runtime.wire.series import Feature, FeatureView, TagView
from tools.pdm.graph import Builder

Floats = NDArray[np.float64]
RATE_HZ = 12_000.0
WINDOW, STEP = 2048, 1024
TRAIN_SHARE = 0.7
BAND_HZ, ENVELOPE_HZ = 500, 50
SHAPE = ("rms", "kurtosis", "skew", "crest")


def view() -> FeatureView:
    """Shape of the wave, energy in bands of 500 Hz, and of the envelope in bands of 50 Hz up to 500 Hz."""
    bands = [Feature("log_energy", low_hz=low, high_hz=low + BAND_HZ) for low in range(0, int(RATE_HZ / 2), BAND_HZ)]
    knocks = [Feature("envelope", low_hz=low, high_hz=low + ENVELOPE_HZ) for low in range(0, BAND_HZ, ENVELOPE_HZ)]
    kinds = [Feature(kind) for kind in SHAPE]
    return FeatureView(
        "bearing", "1", (TagView("vibration", hold_s=0.0),), (*kinds, *bands, *knocks), 1 / RATE_HZ, WINDOW
    )


def read(folder: Path) -> dict[str, Floats]:
    """Name → samples of each recording of the folder's `.npz` file."""
    files = sorted(folder.glob("*.npz")) if folder.is_dir() else []
    if len(files) != 1:
        raise DataError(f"{folder}: {len(files)} .npz files, expected one with a recording a class")
    try:
        with np.load(files[0], allow_pickle=False) as arrays:
            found = {name: np.asarray(arrays[name], np.float64).ravel() for name in arrays.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{files[0]}: {error}") from error
    found = {name: samples for name, samples in found.items() if len(samples) >= 10 * WINDOW}
    if len(found) < 2:
        raise DataError(f"{files[0]}: {len(found)} recordings of {10 * WINDOW} samples or more, expected at least 2")
    if bad := [name for name, samples in found.items() if not np.isfinite(samples).all()]:
        raise DataError(f"{files[0]}: {bad[0]}: a sample is missing or not finite")
    return found


def windows(samples: Floats) -> Floats:
    """Columns of every window (n, columns)."""
    chosen = view()
    starts = range(0, len(samples) - WINDOW + 1, STEP)
    return np.concatenate([features.columns(samples[i : i + WINDOW, None], chosen) for i in starts])


def evaluate(folder: Path) -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression

    started = time.perf_counter()
    recordings = read(folder)
    train, test = [], []
    for samples in recordings.values():
        cut = int(len(samples) * TRAIN_SHARE)
        train.append(windows(samples[:cut]))
        test.append(windows(samples[cut:]))
    x, y = np.concatenate(train), np.repeat(np.arange(len(train)), [len(t) for t in train])
    center, scale = x.mean(0), np.maximum(x.std(0), 1e-9)
    model = LogisticRegression(C=1.0, max_iter=2000).fit((x - center) / scale, y)
    xt, yt = np.concatenate(test), np.repeat(np.arange(len(test)), [len(t) for t in test])
    scaled = ((xt - center) / scale).astype(np.float32)
    answers = through_engine(model.coef_, model.intercept_, scaled)
    expected = model.predict_proba(scaled)
    right = answers.argmax(1) == yt
    return {
        "accuracy": round(float(right.mean()), 4),
        "windows": len(yt),
        "wrong": int((~right).sum()),
        "columns": len(view().columns()),
        "per_class": {name: round(float(right[yt == i].mean()), 4) for i, name in enumerate(recordings)},
        "onnx_error": float(np.abs(answers - expected).max()),
        "duration_s": round(time.perf_counter() - started, 1),
    }


def through_engine(weights: Floats, bias: Floats, scaled: NDArray[np.float32]) -> NDArray[np.float32]:
    """Class probabilities by ONNX Runtime behind the device's seam, one window at a time."""
    b = Builder()
    columns = weights.shape[1]
    output = b.add("Softmax", [b.dense(b.last_row("x", 1, columns), weights.T, bias)], axis=1)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        path.write_bytes(b.model(1, columns, output, len(bias)))
        engine = OnnxEngine(path, "fp32")
        answers = np.stack([engine.infer(row[None, None]) for row in scaled])
        engine.close()
    return answers


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="gudgeon evaluate cwru", description="Bearing faults, a smoke check.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a folder with one .npz of recordings")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    args = parser.parse_args(argv)
    result = evaluate(args.data)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"accuracy {result['accuracy']:.4f} on {result['windows']} windows, {result['wrong']} wrong")
        print(f"ONNX differs by {result['onnx_error']:.2g}; {result['duration_s']} s")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code("gudgeon evaluate cwru", lambda: main(sys.argv[1:])))
