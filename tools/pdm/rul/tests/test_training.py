"""Training on made-up fleets: one and six ways of running, the packed bundle agrees with what was trained. Needs PyTorch and
scikit-learn: skipped in the device's environment."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from edge_runtime.errors import DataError, UsageError
from edge_runtime.infer.onnx import OnnxEngine
from edge_runtime.infer.series_bundle import load
from tools.pdm.rul import crossval, export, simulate, train_cli, trees, view
from tools.pdm.rul.data import Unit, remaining
from tools.pdm.rul.model import Recipe, fit
from tools.pdm.rul.nets import NetRecipe
from tools.pdm.rul.predict import answer, open_model
from tools.pdm.rul.simulate import Fleet
from tools.pdm.rul.trees import TreeRecipe

KEY = Ed25519PrivateKey.generate()
QUICK = Recipe(
    tree_members=1,
    trees=TreeRecipe(iterations=40, learning_rate=0.2, leaf_rows=10),
    net=NetRecipe(history_rows=24, width=8, epochs=3, batch=32),
)
SMALL = Fleet(14, shortest=60, longest=120)


def rmse(recipe: Recipe, units: list[Unit], others: list[Unit]) -> float:
    model = fit(units, recipe, 0)
    errors = [model.predict(unit)[30:] - remaining(unit, recipe.cap)[30:] for unit in others]
    return float(np.sqrt((np.concatenate(errors) ** 2).mean()))


@pytest.mark.parametrize("regimes", [1, 6])
def test_it_learns_what_is_left_whatever_the_ways_of_running(regimes: int) -> None:
    fleet = Fleet(24, regimes, shortest=60, longest=120)
    others = simulate.make_units(replace(fleet, units=8), 9)
    guess = float(np.std(np.concatenate([remaining(unit, QUICK.cap)[30:] for unit in others])))
    assert rmse(QUICK, simulate.make_units(fleet, 0), others) < 0.6 * guess


def test_the_view_finds_the_regimes_and_drops_what_stands_still() -> None:
    for regimes in (1, 3, 6):
        units = simulate.make_units(Fleet(10, regimes, 60, 90), 4)
        found = view.make_view(units, 125.0)
        assert len(found.regimes) == regimes
        assert len(found.settings) == (0 if regimes == 1 else 3 if regimes > 2 else 2)
        named = {name for name in found.tag_names if name.startswith("sensor")}
        assert named == {f"sensor_{i + 1}" for i in range(21) if i not in simulate.STILL}


def test_nothing_to_learn_from_is_told() -> None:
    flat = [Unit(i, np.column_stack([np.arange(1, 41.0), np.ones((40, 24))])) for i in range(1, 9)]
    with pytest.raises(DataError, match="no sensor has more than two"):
        view.make_view(flat, 125.0)
    with pytest.raises(DataError, match="expected at least 3"):
        fit(flat[:2], QUICK, 0)


def test_a_score_depends_on_what_was_known_then() -> None:
    units = simulate.make_units(SMALL, 0)
    model = fit(units, QUICK, 0)
    whole = model.predict(units[3])
    changed = Unit(units[3].number, units[3].rows.copy())
    changed.rows[40:, 4:] *= 1.5
    np.testing.assert_array_equal(model.predict(changed)[:40], whole[:40])
    np.testing.assert_allclose(model.predict(units[3].until(25)), whole[:25], atol=1e-6)


def test_thresholds_go_the_same_way_in_float32() -> None:
    rng = np.random.default_rng(0)
    t = rng.normal(0, 1, 1000)
    x = np.concatenate([trees.round_down(t), np.nextafter(trees.round_down(t), np.float32(9))])
    both = np.concatenate([t, t])
    np.testing.assert_array_equal(x <= np.tile(trees.round_down(t), 2), x.astype(np.float64) <= both)


@pytest.mark.parametrize("kind", ["trees", "tcn", "lstm", "blend"])
def test_the_exported_graph_gives_the_trained_numbers(tmp_path: Path, kind: str) -> None:
    units = simulate.make_units(SMALL, 0)
    recipe = replace(QUICK, model=kind)
    fitted = fit(units, recipe, 0)
    band = crossval.band_of(units, [fitted.predict(unit) for unit in units], recipe, 0)
    export.export_fp32(crossval.Whole(fitted, band), tmp_path / "m.onnx")
    engine = OnnxEngine(tmp_path / "m.onnx", "m")
    inputs = fitted.inputs(units[2])
    got = np.stack([engine.infer(np.ascontiguousarray(x[None])) for x in inputs])
    want = fitted.predict(units[2])
    np.testing.assert_allclose(got[:, 0], want, atol=2e-2)
    lower = np.clip(got[:, 1] - band.offset, 0, got[:, 0])
    np.testing.assert_allclose(lower, band.ends(want)[0], atol=0.1)


def test_train_packs_a_bundle_that_agrees_with_what_was_trained(tmp_path: Path) -> None:
    units = simulate.make_units(SMALL, 0)
    (tmp_path / "train.txt").write_text(simulate.text(units))
    (tmp_path / "val.csv").write_text("unit,cut_cycle,rul\n2,40,9\n5,31,60\n")
    more = ["--train", str(tmp_path / "train.txt"), "--validate", str(tmp_path / "val.csv"), "--inner-folds", "3"]
    args = train_cli.parse([*more, "--out", str(tmp_path / "b"), "--model", "blend"])
    summary = train_cli.train(args, units, replace(QUICK, model="blend"), None, KEY)
    assert summary["units"] == 12
    assert summary["validate"]["n"] == 2
    assert summary["validate"]["packed"]["largest_difference"] < 0.5
    assert set(summary["edge_cost"]) == {"fp32", "int8"}
    assert load(tmp_path / "b").manifest.metrics["validate_n"] == 2
    with open_model(tmp_path / "b") as model:
        left = answer(model, units[1].until(40))
        assert 0 <= left.lower <= left.remaining <= left.upper <= 125


def test_cross_validation_answers_for_every_unit(capsys: pytest.CaptureFixture[str]) -> None:
    units = simulate.make_units(SMALL, 0)
    found: dict[str, Any] = crossval.cross_validate(units, QUICK, 2, 0, 2)
    assert found["n"] == len(units) * crossval.CUTS_EACH
    assert len(found["by_fold"]) == 2
    assert found["ci95"]["rmse"][0] <= found["rmse"] <= found["ci95"]["rmse"][1]
    assert json.loads(json.dumps(found)) == found
    assert found == crossval.cross_validate(units, QUICK, 2, 0, 2)


@pytest.mark.parametrize("more", [[], ["--out", "b", "--cross-validate"], ["--cross-validate", "--interval", "1.5"]])
def test_a_command_line_that_asks_for_two_things_is_refused(more: list[str]) -> None:
    with pytest.raises(SystemExit):
        train_cli.parse(["--train", "f", *more])
    with pytest.raises(UsageError, match="unknown entry"):
        train_cli.recipe_of(train_cli.parse(["--train", "f", "--out", "b", "--set", "speed=1"]))
