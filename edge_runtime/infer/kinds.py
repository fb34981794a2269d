"""Whichever kind of bundle a folder holds, loaded and verified: `kind` in its manifest decides; none is a vision bundle."""

from __future__ import annotations

from pathlib import Path

from edge_runtime.errors import BundleError
from edge_runtime.infer import bundle as bundles
from edge_runtime.infer import series_bundle
from edge_runtime.infer.bundle import Bundle
from edge_runtime.infer.series_bundle import SeriesBundle
from edge_runtime.wire import manifest as wire


def kind_of(path: Path) -> str:
    """``vision``, ``anomaly`` or ``rul``; BundleError where the folder has no readable manifest."""
    try:
        return str(wire.read_toml(bundles.read_manifest_bytes(path)).get("kind", "vision"))
    except ValueError as error:
        raise BundleError(f"bundle {path}: {wire.MANIFEST}: {error}") from error


def load(path: Path) -> Bundle | SeriesBundle:
    """Read and verify a bundle folder of any kind; BundleError says which file is wrong and what was expected."""
    return bundles.load(path) if kind_of(path) == "vision" else series_bundle.load(path)
