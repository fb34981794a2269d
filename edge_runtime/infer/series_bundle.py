"""SeriesBundle: a bundle of time series, read and verified as a whole or refused with one line; and its golden vectors.

The golden windows are raw rows on the grid, so that checking them at install runs the features, the scaler and the
engine of this board against what training computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import BundleError
from edge_runtime.infer import bundle as bundles
from edge_runtime.infer import features
from edge_runtime.wire import manifest as wire
from edge_runtime.wire import series
from edge_runtime.wire.manifest import Variant
from edge_runtime.wire.series import SeriesManifest


@dataclass(frozen=True, eq=False)
class GoldenWindows:
    """`windows`: raw values on the grid, float64 (n, rows, tags); `outputs`: float32 (n, values)."""

    windows: NDArray[np.float64]
    outputs: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Reference:
    """Quantiles of what the model was trained on, at `levels` (0 to 1): the scaled inputs by column, and the smoothed
    calibration scores (empty for rul)."""

    levels: NDArray[np.float64]
    inputs: NDArray[np.float64]
    scores: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SeriesBundle:
    path: Path
    manifest: SeriesManifest
    digest: str
    golden: GoldenWindows
    reference: Reference | None

    @property
    def variants(self) -> tuple[Variant, ...]:
        return self.manifest.variants

    @property
    def expected(self) -> NDArray[np.float32]:
        return self.golden.outputs

    def golden_inputs(self, limit: int | None = None) -> list[NDArray[np.float32]]:
        inputs = (features.model_input(window, self.manifest) for window in self.golden.windows[:limit])
        return [x for x in inputs if x is not None]

    def decisions(self, outputs: NDArray[np.float32]) -> NDArray[np.int64]:
        """Anomaly: above the threshold or not (unsmoothed). A remaining life decides nothing by itself."""
        calibration = self.manifest.calibration
        above = outputs[:, 0] > calibration.threshold if calibration is not None else np.zeros(len(outputs))
        return np.asarray(above, np.int64)


def load(path: Path) -> SeriesBundle:
    """Read and verify a bundle of time series; BundleError says which file is wrong and what was expected."""
    data = bundles.read_manifest_bytes(path)
    try:
        manifest = series.parse(data)
    except ValueError as error:
        raise BundleError(f"bundle {path}: {wire.MANIFEST}: {error}") from error
    bundles.verify_files(path, manifest.files)
    golden = load_golden(path, manifest)
    reference = load_reference(path, manifest) if series.REFERENCE in manifest.files else None
    return SeriesBundle(path, manifest, wire.digest(data), golden, reference)


def load_golden(path: Path, manifest: SeriesManifest) -> GoldenWindows:
    view = manifest.view
    with bundles.opened_arrays(path, wire.GOLDEN) as file:
        windows, outputs = np.asarray(file["windows"], np.float64), np.asarray(file["outputs"], np.float32)
        if windows.ndim != 3 or windows.shape[1:] != (view.rows, len(view.tags)):
            raise ValueError(f"windows have shape {windows.shape}, expected (n, {view.rows}, {len(view.tags)})")
        if outputs.shape != (len(windows), manifest.values) or not 0 < len(windows) <= bundles.GOLDEN_LIMIT:
            raise ValueError(
                f"outputs have shape {outputs.shape} for {len(windows)} windows, expected "
                f"(1…{bundles.GOLDEN_LIMIT}, {manifest.values})"
            )
        if not np.isfinite(windows).all() or not np.isfinite(outputs).all():
            raise ValueError("a golden vector holds a value that is not finite")
    return GoldenWindows(windows, outputs)


def load_reference(path: Path, manifest: SeriesManifest) -> Reference:
    columns = len(manifest.view.columns())
    with bundles.opened_arrays(path, series.REFERENCE) as file:
        levels, inputs, scores = (np.asarray(file[k], np.float64) for k in ("levels", "inputs", "scores"))
        if levels.ndim != 1 or len(levels) < 2 or inputs.shape != (len(levels), columns):
            raise ValueError(f"inputs have shape {inputs.shape}, expected ({len(levels)}, {columns})")
        if scores.shape not in ((len(levels),), (0,)):
            raise ValueError(f"scores have shape {scores.shape}, expected ({len(levels)},)")
        if not all(np.isfinite(a).all() for a in (levels, inputs, scores)):
            raise ValueError("a value is not finite")
    return Reference(levels, inputs, scores)
