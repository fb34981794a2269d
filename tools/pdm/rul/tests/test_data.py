"""C-MAPSS files: what is read, and which line is named when it is not as documented."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import DataError
from tools.pdm.rul import data, simulate
from tools.pdm.rul.simulate import Fleet


def row(unit: float, cycle: float, *more: str) -> str:
    return " ".join([f"{unit:g}", f"{cycle:g}", *(more or ("1.5",) * 24)])


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_plain_and_gzip_give_the_units_that_were_written(tmp_path: Path) -> None:
    units = simulate.make_units(Fleet(3, shortest=20, longest=30), 0)
    plain = written(tmp_path / "a.txt", simulate.text(units))
    packed = tmp_path / "a.txt.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for path in (plain, packed):
        found = data.read_units(path)
        assert [unit.number for unit in found] == [1, 2, 3]
        for unit, was in zip(found, units, strict=True):
            np.testing.assert_allclose(unit.rows, was.rows, atol=1e-4)


def test_remaining_life_ends_at_zero_and_is_capped(tmp_path: Path) -> None:
    (unit,) = data.read_units(written(tmp_path / "a", *(row(7, i) for i in range(1, 6))))
    assert data.remaining(unit, 3.0).tolist() == [3.0, 3.0, 2.0, 1.0, 0.0]
    assert len(unit.until(2)) == 2


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], "holds no rows"),
        ([row(1, 1), "1 2 3"], "line 2: 3 columns, expected 26"),
        ([row(1, 1), row(1, 2) + " 4"], "line 2: 27 columns"),
        ([row(1, 1, *["nan"] * 24)], "setting_1: 'nan' is not finite"),
        ([row(1, 1, *["inf"] * 24)], "not finite"),
        ([row(1, 1, *["x"] * 24)], "'x' is not a number"),
        ([row(1, 1), row(1, 3)], "line 2: cycle 3 of unit 1 follows cycle 1; expected 2"),
        ([row(1, 2), row(1, 1)], "follows cycle 2"),
        ([row(1, 1), row(2, 1), row(1, 2)], "rows of unit 1 do not stand together"),
        ([row(1.5, 1)], "unit is 1.5, expected a whole number"),
        ([row(1, 0)], "cycle is 0"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(tmp_path: Path, lines: list[str], told: str) -> None:
    with pytest.raises(DataError, match=told):
        data.read_units(written(tmp_path / "a", *lines))


def test_what_is_no_text_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        data.read_units(tmp_path / "nothing")
    (tmp_path / "b").write_bytes(b"\x1f\x8b broken")
    with pytest.raises(DataError, match="cannot be read"):
        data.read_units(tmp_path / "b")
    (tmp_path / "c").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="is not text"):
        data.read_units(tmp_path / "c")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["unit,cut_cycle"], "no column 'rul'"),
        (["unit,cut_cycle,rul", "9,1,1"], "unit 9 is not in the training file"),
        (["unit,cut_cycle,rul", "1,99,1"], "unit 1 has 4 cycles"),
        (["unit,cut_cycle,rul", "1,2,x"], "rul: 'x' is not a number"),
        (["unit,cut_cycle,rul", "1,2,2", "2,2,2"], "names every unit"),
    ],
)
def test_a_validation_file_must_fit_the_training_file(tmp_path: Path, lines: list[str], told: str) -> None:
    units = data.read_units(written(tmp_path / "t", *(row(u, c) for u in (1, 2) for c in range(1, 5))))
    with pytest.raises(DataError, match=told):
        data.read_cuts(written(tmp_path / "v.csv", *lines), units)


def test_truth_is_a_number_a_line_or_a_csv(tmp_path: Path) -> None:
    assert data.read_truth(written(tmp_path / "a", "112 ", "98", "")).tolist() == [112.0, 98.0]
    path = written(tmp_path / "b", "unit,cut_cycle,rul", "81,224,16")
    assert data.read_truth(path).tolist() == [16.0]
    assert data.truth_units(path) == [81]
    assert data.truth_units(tmp_path / "a") is None
    for lines, told in (([""], "holds no numbers"), (["-1"], "expected 0 or more"), (["x"], "not a number")):
        with pytest.raises(DataError, match=told):
            data.read_truth(written(tmp_path / "c", *lines))
