"""Numbers, and where a run is kept, are looked at before the run."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pytest

from edge_runtime.errors import ResourceError, UsageError
from tools.arguments import MANY, check_bounds, check_keep


def test_a_new_or_empty_folder_is_taken(tmp_path: Path) -> None:
    for _ in range(2):
        check_keep(tmp_path / "new" / "run")
    check_keep(None)
    with pytest.raises(UsageError, match="not empty"):
        check_keep(tmp_path)


def test_what_cannot_be_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ResourceError, match=str(path)):
            check_keep(path)


@pytest.mark.parametrize("value", [0.4, 61, math.nan, math.inf])
def test_a_number_outside_of_its_bounds_is_told(value: float) -> None:
    with pytest.raises(UsageError, match=r"--every-s \S+: expected 0.5 to 60"):
        check_bounds(argparse.Namespace(every_s=value), {"every_s": (0.5, 60)})
    check_bounds(argparse.Namespace(every_s=60, n=1), {"every_s": (0.5, 60), "n": (1, MANY)})
    with pytest.raises(UsageError, match="--n 0: expected 1 or more"):
        check_bounds(argparse.Namespace(n=0), {"n": (1, MANY)})
