"""`gudgeon bench delta`: each row is what the deltas really weigh, and all of them were undone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from edge_runtime.delta.tests.artifacts import files, packed
from edge_runtime.doctor import default_bundle
from edge_runtime.errors import MissingExtraError, UsageError
from tools.bench import delta, main
from tools.pipeline import launch


def test_a_row_and_its_table(tmp_path: Path) -> None:
    old, new = packed(files()), packed(files(moved=1e-3, version="2"))
    row = delta._row(tmp_path / "0", delta.Case("weights that moved", old, new))
    assert (row["whole"], row["chosen"]) == (len(new), "tensor")
    assert row["tensor"] == (tmp_path / "0" / "tensor").stat().st_size < row["patch"]
    assert row["part_of_zstd"] == round(row["tensor"] / row["zstd"], 4)
    assert row["undo_ms"] > 0
    console = Console(record=True, width=150)
    console.print(delta.table({"rows": [row]}))
    assert f"{row['tensor']:,}" in console.export_text()


def test_two_commits_give_two_runtimes(tmp_path: Path) -> None:
    try:
        cases = list(delta.runtimes(tmp_path, None))
    except UsageError as error:
        pytest.skip(str(error))
    if not cases:
        pytest.skip("this copy of the repository has one commit")
    assert all(case.old != case.new for case in cases)


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.train
@pytest.mark.timeout(600)
def test_the_whole_bench(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta, "PICTURES", 40)
    monkeypatch.setattr(delta, "WIDE", 2)
    try:
        launch.train_python()
    except MissingExtraError as error:
        pytest.skip(str(error))
    assert default_bundle() is not None
    assert main.main(["delta", "--steps", "5", "--folder", str(tmp_path), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    head, full, int8 = (rows[n] for n in ("head-only fine-tune", "full fine-tune", "int8 of the full fine-tune"))
    assert head["part_of_zstd"] < 0.02 < full["part_of_zstd"] < 0.8
    assert full["chosen"] == "tensor"
    assert int8["part_of_zstd"] < full["part_of_zstd"]
