"""Rendered parts: decided by the seed, masks where the picture differs, the folder as the pipeline reads it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from firmware_sim import images_cli
from firmware_sim.render import CLASSES, DEFECTS, _surface, render


@pytest.mark.parametrize("label", CLASSES)
def test_equal_seeds_give_equal_pictures(label: str) -> None:
    first, mask = render(np.random.default_rng(3), label)
    again, _ = render(np.random.default_rng(3), label)
    other, _ = render(np.random.default_rng(4), label)
    assert first.dtype == np.uint8
    assert first.shape == (320, 280)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (mask is None) == (label == "free")


@pytest.mark.parametrize("label", CLASSES[1:])
@pytest.mark.parametrize("seed", range(8))
def test_the_mask_is_where_the_surface_differs(label: str, seed: int) -> None:
    surface = _surface(np.random.default_rng(seed), 320, 280)
    changed, mask = DEFECTS[label](np.random.default_rng(seed + 100), surface)
    assert mask.shape == surface.shape
    assert mask.any()
    assert not mask.all()
    difference = np.abs(changed - surface)
    assert difference[mask].mean() > 0.05
    assert difference[mask].mean() > 3 * difference[~mask].mean()


def test_light_moves_the_mean() -> None:
    means = [render(np.random.default_rng(1), "free", light=light)[0].mean() for light in (-1.0, 0.0, 1.0)]
    assert means[0] < 0.8 * means[1] < 0.8 * means[2]


def test_size_is_an_argument() -> None:
    for label in CLASSES:
        assert render(np.random.default_rng(0), label, 128, 200)[0].shape == (128, 200)


@pytest.mark.parametrize(("label", "light"), [("rust", 0.0), ("free", 2.0)])
def test_wrong_arguments_are_refused(label: str, light: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        render(np.random.default_rng(0), label, light=light)


def test_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "parts"
    assert images_cli.main(["--out", str(out), "--n", "30", "--seed", "5"]) == 0
    rows = list(csv.DictReader((out / "labels.csv").open()))
    assert len(rows) == 30
    for row in rows:
        path = out / row["split"] / row["class"] / row["file"]
        assert (row["defect"] == "0") == (row["class"] == "free")
        assert path.with_name(f"{path.stem}_mask.png").is_file() == (row["defect"] == "1")
        assert Image.open(path).mode == "L"


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert images_cli.main(["--out", str(tmp_path), "--n", "1"]) == 8
    assert "is not empty" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_wrong_numbers_are_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        images_cli.main(["--out", str(tmp_path), "--n", "0"])
    assert stop.value.code == 2
