from __future__ import annotations

import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from firmware_sim import source
from firmware_sim.config import SourceSection
from firmware_sim.errors import DataError
from firmware_sim.tests.folders import write_folder


@pytest.mark.parametrize("split_folders", [True, False])
def test_a_round_shows_every_image_once(tmp_path: Path, split_folders: bool) -> None:
    images = source.folder(write_folder(tmp_path, split_folders=split_folders), "test", seed=3)
    shown = [int(images.part(n)[0][0, 0]) for n in range(60)]
    for start in range(0, 60, 6):
        assert sorted(shown[start : start + 6]) == [10, 11, 12, 13, 14, 15]
    assert all(a != b for a, b in itertools.pairwise(shown))
    assert len({tuple(shown[s : s + 6]) for s in range(0, 60, 6)}) > 1
    again = source.folder(tmp_path, "test", seed=3)
    assert [int(again.part(n)[0][0, 0]) for n in range(60)] == shown


def test_truth_goes_with_the_picture(tmp_path: Path) -> None:
    images = source.folder(write_folder(tmp_path), "test", seed=1)
    for n in range(6):
        pixels, truth = images.part(n)
        assert truth.defect == (pixels[0, 0] >= 14)
        assert truth.class_name == ("crack" if truth.defect else "free")
    assert source.class_counts(images) == {"free": 4, "crack": 2}


def test_depths_and_colours_are_decoded(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 5), 257 * 9, np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGBA", (5, 4), (1, 2, 3, 255)).save(tmp_path / "colour.png")
    assert np.array_equal(source.decode(tmp_path / "deep.png"), np.full((4, 5), 9, np.uint8))
    assert source.decode(tmp_path / "colour.png").shape == (4, 5, 3)


def break_labels(root: Path, text: str) -> None:
    (root / "labels.csv").write_text(text)


@pytest.mark.parametrize(
    ("spoil", "split", "expected"),
    [
        (lambda r: None, "tset", "did you mean 'test'"),
        (lambda r: break_labels(r, "a,b\n1,2\n"), "test", "columns are"),
        (lambda r: break_labels(r, ""), "test", "columns are None"),
        (lambda r: break_labels(r, "split,class,file,defect\ntest,free,0.png,yes\n"), "test", "expected 0 or 1"),
        (lambda r: break_labels(r, "split,class,file,defect\ntest,free,none.png,0\n"), "test", "is neither at"),
        (lambda r: (r / "labels.csv").unlink(), "test", "has no labels.csv"),
        (lambda r: (r / "labels.csv").write_bytes(b"\xff\xfe\x00"), "test", "cannot be read"),
    ],
)
def test_mistakes_in_a_folder_are_named(tmp_path: Path, spoil: object, split: str, expected: str) -> None:
    write_folder(tmp_path)
    spoil(tmp_path)  # type: ignore[operator]
    with pytest.raises(DataError, match=expected):
        source.folder(tmp_path, split, 1)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    (write_folder(tmp_path) / "test" / "free" / "0.png").write_bytes(b"not a picture")
    images = source.folder(tmp_path, "test", 1)
    with pytest.raises(DataError, match=r"0\.png: cannot be decoded"):
        images.preload(0)


def test_drawn_parts_depend_on_seed_and_number_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def render(rng: np.random.Generator, name: str, height: int, width: int, light: float) -> tuple[object, None]:
        return rng.integers(0, 255, (height, width), np.uint8), None

    fake = SimpleNamespace(CLASSES=("free", "crack", "fray"), render=render)
    monkeypatch.setitem(sys.modules, "firmware_sim.render", fake)
    section = SourceSection(pool=40, height=16, width=20, defect_share=0.5)
    one, other = source.rendered(section, 7, 0), source.rendered(section, 7, 15)
    one.preload(10)
    assert len(other.pictures) == 15
    for n in range(15):
        (a, truth), (b, same) = one.part(n), other.part(n)
        assert np.array_equal(a, b)
        assert truth == same
        assert truth.defect == (truth.class_name != "free")
    assert np.array_equal(one.part(40)[0], one.part(0)[0])
    assert 8 < sum(p.truth.defect for p in one.pictures) < 32


def test_the_renderer_that_ships_fits(tmp_path: Path) -> None:
    drawn = source.rendered(SourceSection(defect_share=1.0, height=64, width=56, light_drift=1.0), 1, 4)
    for n in range(4):
        pixels, truth = drawn.part(n)
        assert pixels.shape == (64, 56)
        assert pixels.dtype == np.uint8
        assert truth.defect
