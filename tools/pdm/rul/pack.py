"""From a fitted model to a signed bundle of kind `rul`; the folder is built beside its place and moved there when complete."""

from __future__ import annotations

import hashlib
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
from edge_runtime.infer import features
from edge_runtime.infer.onnx import OnnxEngine
from edge_runtime.update.sign import sign_bundle
from edge_runtime.wire import manifest as wire
from edge_runtime.wire import series
from edge_runtime.wire.manifest import Variant
from edge_runtime.wire.series import Interval, SeriesManifest
from tools.pdm.rul import view
from tools.pdm.rul.crossval import Whole
from tools.pdm.rul.data import Unit
from tools.pipeline.pack import CARD, FP32, INT8, check_place

GOLDEN_COUNT = 24
LEVELS = 21
UNIT = "cycles"
# What another processor's rounding may change, in cycles: one threshold of one tree may go the other way.
FLOOR = {"fp32": 0.5, "int8": 1.0}


@dataclass(frozen=True)
class About:
    name: str
    version: str
    created: str
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]


def draft_manifest(whole: Whole, about: About) -> SeriesManifest:
    """Everything but variants and files."""
    fitted, band = whole.fitted, whole.band
    return SeriesManifest(
        kind="rul",
        name=about.name,
        version=about.version,
        created=about.created,
        view=fitted.view,
        view_sha256=fitted.view.digest(),
        scaler=fitted.scaler,
        variants=(),
        files={},
        interval=Interval(UNIT, band.cap, band.coverage, band.offset, band.offset),
        contributions="none",
        training=about.training,
        metrics=about.metrics,
    )


def pack(
    out: Path, work: Path, whole: Whole, units: Sequence[Unit], about: About, key: Ed25519PrivateKey | None = None
) -> SeriesManifest:
    """Write and sign the bundle `out` from the model files in `work`; `key` is the developer key where none is given."""
    check_place(out)
    draft = draft_manifest(whole, about)
    building = out.with_name(f".{out.name}.building")
    with disk_errors(out):
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        files = [file for file in (FP32, INT8) if (work / file).is_file()]
        for file in files:
            shutil.copyfile(work / file, building / file)
        windows = golden_windows(units, draft)
        outputs = {file: _answers(building / file, windows, draft) for file in files}
        np.savez_compressed(building / wire.GOLDEN, windows=windows, outputs=outputs[FP32])
        _write_reference(building / series.REFERENCE, whole, units)
        variants = tuple(_variant(file, outputs[file], outputs[FP32]) for file in files)
        (building / CARD).write_text(card(draft), encoding="utf-8")
        digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(building.iterdir())}
        manifest = replace(draft, variants=variants, files=digests)
        (building / wire.MANIFEST).write_bytes(tomli_w.dumps(manifest.to_dict()).encode())
        sign_bundle(building, key)
        shutil.rmtree(out, ignore_errors=True)
        building.rename(out)
    return manifest


def golden_windows(units: Sequence[Unit], manifest: SeriesManifest) -> NDArray[np.float64]:
    """Raw windows of different units at different ages, the oldest row repeated where a unit is shorter."""
    rows = manifest.view.rows
    windows = []
    for i in range(min(GOLDEN_COUNT, 2 * len(units))):
        raw = view.raw_rows(units[i % len(units)], manifest.view)
        raw = raw[: max(1, round(len(raw) * (i % 7 + 1) / 7))][-rows:]
        windows.append(np.concatenate([np.repeat(raw[:1], rows - len(raw), axis=0), raw]))
    return np.stack(windows)


def _answers(path: Path, windows: NDArray[np.float64], manifest: SeriesManifest) -> NDArray[np.float32]:
    engine = OnnxEngine(path, path.name)
    inputs = (features.model_input(window, manifest) for window in windows)
    answers = np.stack([engine.infer(x) for x in inputs if x is not None])
    engine.close()
    return answers


def _variant(file: str, outputs: NDArray[np.float32], fp32: NDArray[np.float32]) -> Variant:
    precision = "int8" if file == INT8 else "fp32"
    tolerance = round(2.0 * float(np.abs(outputs - fp32).max()) + FLOOR[precision], 4)
    return Variant(f"onnxruntime-{precision}", "onnxruntime", precision, file, tolerance)


def _write_reference(path: Path, whole: Whole, units: Sequence[Unit]) -> None:
    """Quantiles of the scaled columns over the training units: what drift is measured against."""
    found = np.concatenate([view.columns(unit, whole.fitted.view) for unit in units])
    levels = np.linspace(0.0, 1.0, LEVELS)
    inputs = np.quantile(features.scale(found, whole.fitted.scaler).astype(np.float64), levels, axis=0)
    np.savez_compressed(path, levels=levels, inputs=inputs, scores=np.empty(0))


def card(manifest: SeriesManifest) -> str:
    """CARD.md: what a person should know before trusting this bundle."""
    training = {k: v for k, v in manifest.training.items() if k != "recipe"}
    interval = manifest.interval
    assert interval is not None
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        f"Says how many {interval.unit} a machine has left, up to {interval.cap:g}, with a band that holds "
        f"{interval.coverage:.0%} of unseen machines like those it was trained on.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key.replace('_', ' ')} | {value} |" for key, value in training.items()),
        f"| sensors | {', '.join(name for name in manifest.view.tag_names if name.startswith('sensor'))} |",
        f"| ways of running | {len(manifest.view.regimes)} |",
        "",
        "Held-out figures (each unit answered by a model that was trained without it, cut as `gudgeon train rul` says):",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in manifest.metrics.items() if not isinstance(value, (dict, list))),
        "",
        "Use it for machines of the same type that fail the same way. The band holds for units that are exchangeable "
        "with the training units; it says nothing of a new way of failing or of running.",
        "",
    ]
    return "\n".join(lines)
