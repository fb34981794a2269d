"""Recordings: what is there comes out, what is missing is NaN, and what is wrong is named with its row."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import DataError
from tools.pdm.table import read, read_all

NOW_S = 1_800_000_000.0


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_dates_seconds_delimiters_and_holes(tmp_path: Path) -> None:
    a = read(
        write(tmp_path / "a.csv", "datetime;t;p;anomaly\n2020-01-01 00:00:00;1;2;0\n2020-01-01 00:00:01;;nan;1\n"),
        None,
        [],
        NOW_S,
    )
    assert a.tags == ("t", "p")
    assert np.diff(a.times_s).tolist() == [1.0]
    assert a.values[0].tolist() == [1.0, 2.0]
    assert np.isnan(a.values[1]).all()
    packed = tmp_path / "b.csv.gz"
    packed.write_bytes(gzip.compress(b"s,x\n0,1\n1,inf\n"))
    b = read(packed, "s", [], NOW_S)
    assert np.isnan(b.values[1, 0])


def test_equal_times_keep_the_last_row(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.csv", "time,x\n0,1\n1,2\n1,3\n"), None, [], NOW_S)
    assert found.values[:, 0].tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("time,x\n0,1\n", "1 rows of data, expected at least 2"),
        ("time,x\n", "0 rows of data"),
        ("", "expected a header"),
        ("time\n0\n1\n", "expected a header"),
        ("time,x,x\n0,1,1\n", "different column names"),
        ("a,b\n0,1\n1,1\n", "no time column"),
        ("time,anomaly\n0,1\n1,1\n", "no tag beside the time column"),
        ("time,x\n0,1\n1,hot\n", "row 3: x is 'hot', expected a number"),
        ("time,x\n0,1\nnoon,2\n", "row 3: 'noon' is not a time"),
        ("time,x\nnan,1\n1,2\n", "row 2: 'nan' is not a time"),
        ("time,x\n5,1\n4,2\n", "row 3: its time '4' is before the row above"),
        ("time,x\n0,1\n2500000000,2\n", "row 3: its time '2500000000' lies in the future"),
        ("time,x\n0,1\n1\n", "row 3: 1 cells, the header has 2"),
    ],
)
def test_what_is_wrong_is_named_with_its_row(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read(write(tmp_path / "a.csv", text), None, [], NOW_S)


def test_a_folder_gives_a_recording_a_file_with_the_same_tags(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "time,x,y\n0,1,2\n1,2,3\n")
    write(tmp_path / "b.csv", "time,x,y\n0,1,2\n1,2,3\n")
    assert [r.name for r in read_all(tmp_path, None, ["y"], NOW_S)] == ["a.csv", "b.csv"]
    write(tmp_path / "c.csv", "time,x,z\n0,1,2\n1,2,3\n")
    with pytest.raises(DataError, match=r"its tags differ from those of a.csv: y, z"):
        read_all(tmp_path, None, [], NOW_S)
    with pytest.raises(DataError, match="no such file or folder"):
        read_all(tmp_path / "nowhere", None, [], NOW_S)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no .csv file"):
        read_all(tmp_path / "empty", None, [], NOW_S)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00time,x\n")
    with pytest.raises(DataError, match="not a CSV text"):
        read(tmp_path / "a.csv", None, [], NOW_S)
