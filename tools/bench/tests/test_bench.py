"""`gudgeon bench` measures what it says: shapes and relations of its results, never times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_runtime.errors import UsageError
from edge_runtime.tests.bundles import make_bundle
from tools.bench import figures, main
from tools.chaos.shim import compiler


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GUDGEON_HOME", str(tmp_path / "home"))
    return make_bundle(tmp_path / "bundle")


def test_ratio_is_median_over_median() -> None:
    row = figures.row("x", [20_000, 40_000, 10**9], [10_000, 20_000, 20_000], per=2)
    assert row["ratio_p50"] == 1.0
    assert row["us"]["p50"] == 20.0


@pytest.mark.parametrize("what", ["loop", "infer", "outbox"])
def test_every_bench_gives_json_and_a_table(
    what: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [what, "--bundle", str(bundle), "--count", "5", "--folder", str(tmp_path), "--no-memory"]
    assert main.main([*args, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["bench"] == what
    assert result["rows"][0]["ratio_p50"] == 1.0
    assert all(0 < r["us"]["p50"] <= r["us"]["max"] for r in result["rows"])
    assert main.main(args) == 0
    assert result["rows"][1]["name"].split()[0] in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(compiler() is None, reason="no C compiler")
def test_a_slower_disk_is_slower_for_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["outbox", "--count", "3", "--folder", str(tmp_path), "--json", "--flush-ms"]
    assert main.main([*args, "2"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["flush_ms"] == 2
    assert all(r["us"]["p50"] >= 2000 for r in result["rows"])
    assert result["producers"]["per_s"]["persist-queue SQLiteAckQueue"] < 500


@pytest.mark.slow
@pytest.mark.train
def test_the_bench_of_anomaly_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_runtime.errors import MissingExtraError
    from tools.bench import pdm
    from tools.pipeline import launch

    try:
        launch.train_python()
    except MissingExtraError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("GUDGEON_HOME", str(tmp_path / "home"))
    result = pdm.run(tmp_path, 20, ("distance", "dense"))
    distance, dense = result["rows"]
    assert distance["int8_error"] is None
    assert 0 < dense["int8_error"] < 0.2
    assert dense["us"]["p50"] > dense["bare_us_p50"] > 0
    assert set(dense["bytes"]) == {"fp32", "int8"}
    assert "dense" in pdm.table(result)


def test_a_number_out_of_bounds_is_refused_before_anything_is_measured() -> None:
    for option in ("--flush-ms=-1", "--count=0", "--rows=-1", "--parts-per-s=nan"):
        with pytest.raises(UsageError, match=f"{option.partition('=')[0]} .*: expected"):
            main.main(["outbox", option])
