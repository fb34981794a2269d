"""The pipeline's data functions and the device's pre-processing on real pictures, where these are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_runtime.infer import frame_check
from edge_runtime.infer.pre import preprocess
from edge_runtime.wire.manifest import InputSpec
from tools.pipeline.data import class_names, grouped_folds, load_image, load_mask, read_labels, similar_groups

TILES = Path(__file__).resolve().parents[2] / "shared" / "data" / "magnetic_tile"
pytestmark = pytest.mark.skipif(not TILES.is_dir(), reason=f"the magnetic tiles are not at {TILES}")


def test_real_tiles_go_through_the_functions_that_training_and_device_share() -> None:
    rows = read_labels(TILES, "train")
    classes, ok = class_names(rows)
    assert (len(rows), len(classes), ok) == (371, 6, "free")
    images = [load_image(row.path) for row in rows]
    masks = [load_mask(row, image.shape) for row, image in zip(rows, images, strict=True)]
    marked = [mask is not None and bool(mask.any()) for mask in masks]
    assert sum(marked) > 200
    assert not any(m and not row.defect for row, m in zip(rows, marked, strict=True))
    limits = frame_check.calibrate(images)
    assert [frame_check.check(image, limits) for image in images] == [None] * len(images)
    x = preprocess(images[0], InputSpec(192, 192, 1, "area", "per_image"))
    assert (x.shape, round(float(x.mean()), 3), round(float(x.std()), 2)) == ((1, 1, 192, 192), 0.0, 1.0)
    groups = similar_groups(images)
    labels = np.array([classes.index(row.label) for row in rows])
    folds = grouped_folds(labels, groups, 4, np.random.default_rng(0).shuffle)
    assert 150 < len(set(groups)) < 220
    for fold in range(4):
        assert not set(groups[folds == fold]) & set(groups[folds != fold])
