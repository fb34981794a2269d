"""Where a run is kept is looked at before the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.errors import ResourceError, UsageError
from tools.keep import check_keep


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
