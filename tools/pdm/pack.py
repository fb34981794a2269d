"""From a fitted model of time series to a bundle folder: variants with tolerances, golden windows, reference, card, signed.

Shared by `gudgeon train pdm` and `gudgeon train rul`. The folder is built beside its place and moved there when complete.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from edge_runtime.durable import disk_errors
from edge_runtime.errors import DataError
from edge_runtime.infer import features
from edge_runtime.infer.onnx import OnnxEngine
from edge_runtime.update.sign import sign_bundle
from edge_runtime.wire import manifest as wire
from edge_runtime.wire import series
from edge_runtime.wire.manifest import Variant
from edge_runtime.wire.series import SeriesManifest
from tools.pipeline.pack import CARD, check_place

Floats = NDArray[np.float64]
QUANTILES = np.linspace(0.0, 1.0, 51)
TOLERANCE_FLOOR = {"fp32": 1e-3, "int8": 0.02}


@dataclass(frozen=True)
class Model:
    """One way to run it: `file` in the bundle, `precision` of it, its `content`; ONNX Runtime runs all of them."""

    file: str
    precision: str
    content: bytes


def pack(
    out: Path,
    draft: SeriesManifest,
    models: Sequence[Model],
    windows: Floats,
    reference: Mapping[str, Floats] | None = None,
    key: Ed25519PrivateKey | None = None,
    notes: Sequence[str] = (),
) -> SeriesManifest:
    """Write and sign the bundle `out`. `draft` has no variants and files yet; the first of `models` gives the golden
    outputs of the raw `windows` (n, rows, tags). `key` is the developer key where none is given."""
    check_place(out)
    building = out.with_name(f".{out.name}.building")
    with disk_errors(out):
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        for model in models:
            (building / model.file).write_bytes(model.content)
        inputs = _inputs(windows, draft)
        outputs = [_answers(building, model, inputs) for model in models]
        (building / wire.GOLDEN).write_bytes(_arrays(windows=windows, outputs=outputs[0]))
        if reference is not None:
            (building / series.REFERENCE).write_bytes(_arrays(**reference))
        variants = tuple(_variant(m, got, outputs[0]) for m, got in zip(models, outputs, strict=True))
        draft = replace(draft, variants=variants)
        (building / CARD).write_text(card(draft, notes), encoding="utf-8")
        files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(building.iterdir())}
        manifest = replace(draft, files=files)
        (building / wire.MANIFEST).write_bytes(tomli_w.dumps(manifest.to_dict()).encode())
        sign_bundle(building, key)
        shutil.rmtree(out, ignore_errors=True)
        building.rename(out)
    return manifest


def quantiles(inputs: NDArray[np.float32], scores: Floats) -> dict[str, Floats]:
    """What `reference.npz` holds: of scaled inputs (n, history, columns) their newest rows, and of smoothed scores."""
    newest = inputs[:, -1].astype(np.float64)
    of_scores = np.quantile(scores, QUANTILES) if len(scores) else np.empty(0)
    return {"levels": QUANTILES, "inputs": np.quantile(newest, QUANTILES, axis=0), "scores": of_scores}


def golden_windows(runs: Sequence[Floats], rows: int, count: int, rng: np.random.Generator) -> Floats:
    """`count` whole windows without a hole, spread over the recordings: raw values (count, rows, tags)."""
    places = [
        (i, end) for i, run in enumerate(runs) for end in range(rows, len(run) + 1, max(1, len(run) // (4 * count)))
    ]
    found = []
    for place in rng.permutation(len(places)):
        i, end = places[place]
        window = runs[i][end - rows : end]
        if np.isfinite(window).all():
            found.append(window)
        if len(found) == count:
            break
    if not found:
        raise DataError(f"no whole window of {rows} rows without a hole in the recordings; fill them or record longer")
    return np.stack(found)


def _inputs(windows: Floats, draft: SeriesManifest) -> list[NDArray[np.float32]]:
    inputs = [features.model_input(window, draft) for window in windows]
    if any(x is None for x in inputs):
        raise DataError("a golden window has a hole")
    return [x for x in inputs if x is not None]


def _answers(folder: Path, model: Model, inputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    engine = OnnxEngine(folder / model.file, model.file)
    try:
        return np.stack([engine.infer(x) for x in inputs]).astype(np.float32)
    finally:
        engine.close()


def _variant(model: Model, got: NDArray[np.float32], golden: NDArray[np.float32]) -> Variant:
    """The tolerance is what was measured here, doubled, plus what another processor's rounding may add."""
    size = max(1.0, float(np.abs(golden).max()))
    tolerance = 2.0 * float(np.abs(got - golden).max()) + TOLERANCE_FLOOR[model.precision] * size
    agreement = 1.0 if model.precision == "fp32" else 0.85
    name = f"onnxruntime-{model.precision}"
    return Variant(name, "onnxruntime", model.precision, model.file, round(tolerance, 5), agreement)


def _arrays(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def card(manifest: SeriesManifest, notes: Sequence[str]) -> str:
    """CARD.md: what a person should know before trusting this bundle."""
    view = manifest.view
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        {"anomaly": "Says when the tags behave as they never did in the training rows, and which tags.",
         "rul": "Says how long the machine has left, with an interval."}[manifest.kind],
        "",
        "| | |",
        "|---|---|",
        f"| tags | {', '.join(view.tag_names)} |",
        f"| grid | a row each {view.grid_s:g} s, {view.rows} rows a window |",
        f"| view | {view.name} {view.version}, {view.digest()[:12]} |",
        *([f"| models | {', '.join(manifest.members)} |"] if manifest.members else []),
        *(f"| {k.replace('_', ' ')} | {_shown(v)} |" for k, v in manifest.training.items() if not isinstance(v, Mapping)),
        *(f"| {k.replace('_', ' ')} | {_shown(v)} |" for k, v in manifest.metrics.items() if not isinstance(v, Mapping)),
    ]  # fmt: skip
    if manifest.calibration is not None:
        c = manifest.calibration
        lines += [
            f"| threshold | {c.threshold:.4g}, by {c.method}, stated false alarms {c.false_alarm_rate:g} of normal rows |",
            f"| measured | {c.measured_rate:.3g} (95 %: {c.measured_low:.3g} – {c.measured_high:.3g}) of {c.rows} rows |",
        ]
    if manifest.interval is not None:
        lines.append(f"| interval | {manifest.interval.coverage:.0%}, in {manifest.interval.unit} |")
    return "\n".join([*lines, "", *notes, ""])


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
