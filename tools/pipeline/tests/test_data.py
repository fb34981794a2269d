"""labels.csv and images: both layouts, and one clear line for what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_runtime.errors import DataError
from tools.pipeline import data

HEADER = "split,class,file,defect\n"


def _image(path: Path, value: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 24), value, np.uint8)).save(path)


@pytest.mark.parametrize("layout", ["train/free", "free"])
def test_both_layouts_are_found(tmp_path: Path, layout: str) -> None:
    _image(tmp_path / layout / "a.png")
    (tmp_path / "labels.csv").write_text(HEADER + "train,free,a.png,0\n")
    (row,) = data.read_labels(tmp_path, "train")
    assert (row.label, row.defect, row.path) == ("free", False, tmp_path / layout / "a.png")


def test_any_split_name_works_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    _image(tmp_path / "free/a.png")
    (tmp_path / "labels.csv").write_text(HEADER + "night_shift,free,a.png,0\n")
    assert len(data.read_labels(tmp_path, "night_shift")) == 1
    with pytest.raises(DataError, match="no row has split 'test'; found night_shift"):
        data.read_labels(tmp_path, "test")


def _missing_table(folder: Path) -> None:
    (folder / "labels.csv").unlink()


def _missing_column(folder: Path) -> None:
    (folder / "labels.csv").write_text("split,class,file\ntrain,free,a.png\n")


def _wrong_flag(folder: Path) -> None:
    (folder / "labels.csv").write_text(HEADER + "train,free,a.png,yes\n")


def _missing_image(folder: Path) -> None:
    (folder / "free/a.png").unlink()


def _outside(folder: Path) -> None:
    _image(folder.parent / "b.png")
    (folder / "labels.csv").write_text(HEADER + "train,free,../../b.png,0\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_missing_table, "no such file"),
        (_missing_column, "column 'defect' is missing"),
        (_wrong_flag, "defect is 'yes'"),
        (_missing_image, "image a.png is neither in train/free nor in free"),
        (_outside, "is neither in"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    folder = tmp_path / "data"
    _image(folder / "free/a.png")
    (folder / "labels.csv").write_text(HEADER + "train,free,a.png,0\n")
    damage(folder)
    with pytest.raises(DataError, match=message) as error:
        data.read_labels(folder)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match="not a readable image"):
        data.load_image(tmp_path / "a.png")


def _row(label: str, defect: bool) -> data.Row:
    return data.Row("train", label, Path("x.png"), defect)


def test_the_sound_class_comes_first() -> None:
    assert data.class_names([_row("crack", True), _row("good", False)]) == (("good", "crack"), "good")


@pytest.mark.parametrize(
    "rows",
    [
        [_row("crack", True)],
        [_row("a", False), _row("b", False), _row("c", True)],
        [_row("a", False)],
        [_row("a", False), _row("a", True)],
    ],
)
def test_classes_that_do_not_add_up_are_refused(rows: list[data.Row]) -> None:
    with pytest.raises(DataError):
        data.class_names(rows)


def test_exposures_of_one_part_are_one_group_and_folds_keep_groups_whole() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.integers(30, 160, (40, 40)).astype(np.uint8) for _ in range(8)]
    images = [np.clip(part * gain, 0, 255).astype(np.uint8) for part in parts for gain in (0.7, 1.0, 1.4)]
    groups = data.similar_groups(images)
    assert [len(set(groups[i : i + 3].tolist())) for i in range(0, 24, 3)] == [1] * 8
    assert len(set(groups.tolist())) == 8
    folds = data.grouped_folds(np.repeat(np.arange(8) % 2, 3), groups, 4, rng.shuffle)
    assert all(len(set(folds[groups == g].tolist())) == 1 for g in range(8))
    assert set(folds.tolist()) == {0, 1, 2, 3}
