"""What a bundle of remaining life holds, handed to `tools.pdm.pack`, which writes and signs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from edge_runtime.wire.series import Interval, SeriesManifest
from tools.pdm import pack as bundles
from tools.pdm.pack import Model
from tools.pdm.rul import view
from tools.pdm.rul.crossval import Whole
from tools.pdm.rul.data import Unit

FP32, INT8 = "model.fp32.onnx", "model.int8.onnx"
PRECISIONS = {FP32: "fp32", INT8: "int8"}
GOLDEN_COUNT = 24
UNIT = "cycles"
NOTES = (
    "Use it for machines of the same type that fail the same way. The interval holds for units that are exchangeable "
    "with the training units and cut as `gudgeon train rul` cuts them; it says nothing of a new way of failing or of "
    "running. Lives beyond the cap are told as the cap.",
)


@dataclass(frozen=True)
class About:
    name: str
    version: str
    created: str
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]


def pack(
    out: Path, work: Path, whole: Whole, units: Sequence[Unit], about: About, key: Ed25519PrivateKey | None = None
) -> SeriesManifest:
    """Write and sign the bundle `out` from the model files in `work`; `key` is the developer key where none is given."""
    fitted, band = whole.fitted, whole.band
    draft = SeriesManifest(
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
        members=(fitted.recipe.model,),
        training=about.training,
        metrics=about.metrics,
    )
    models = [Model(f, p, (work / f).read_bytes()) for f, p in PRECISIONS.items() if (work / f).is_file()]
    reference = bundles.quantiles(np.concatenate([fitted.inputs(unit) for unit in units]), np.empty(0))
    return bundles.pack(out, draft, models, golden_windows(units, draft), reference, key, NOTES)


def golden_windows(units: Sequence[Unit], manifest: SeriesManifest) -> NDArray[np.float64]:
    """Raw windows of different units at different ages, the oldest row repeated where a unit is shorter."""
    rows = manifest.view.rows
    windows = []
    for i in range(min(GOLDEN_COUNT, 2 * len(units))):
        raw = view.raw_rows(units[i % len(units)], manifest.view)
        raw = raw[: max(1, round(len(raw) * (i % 7 + 1) / 7))][-rows:]
        windows.append(np.concatenate([np.repeat(raw[:1], rows - len(raw), axis=0), raw]))
    return np.stack(windows)


def calibration_inputs(whole: Whole, units: Sequence[Unit], count: int, seed: int) -> NDArray[np.float32]:
    """About `count` inputs of the model, some of every unit: what INT8 takes its ranges from."""
    rng = np.random.default_rng(seed)
    tables = [whole.fitted.inputs(unit) for unit in units]
    return np.concatenate([table[rng.permutation(len(table))[: count // len(units) + 1]] for table in tables])
