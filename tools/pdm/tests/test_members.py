"""Each model's graph against the library that trained it; INT8 within its bound. Needs the training environment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.pdm import fit, members
from tools.pdm.fit import Settings
from tools.pdm.graph import Builder
from tools.pdm.members import Inputs, Recipe
from tools.pdm.tests import made

CWRU = Path(__file__).resolve().parents[4] / "shared" / "data" / "cwru"
RECIPE = Recipe(epochs=40)


def inputs(history: int, count: int = 400, columns: int = 6) -> Inputs:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(count + history, 3)) @ rng.normal(size=(3, columns)) + 0.3 * rng.normal(
        size=(count + history, columns)
    )
    for i in range(1, len(base)):
        base[i] += 0.8 * base[i - 1]
    return np.lib.stride_tricks.sliding_window_view(base.astype(np.float32), history, axis=0).transpose(0, 2, 1)[:count]


def errors_of(member: members.Member, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """(error, error by column) as the graph computes them."""
    b = Builder()
    history, columns = x.shape[1:]
    error, by_column = member.write(b, "x", b.last_row("x", history, columns))
    both = b.add("Concat", [error, by_column], axis=1)
    found = fit.run(b.model(history, columns, both, 1 + columns), x)
    return found[:, 0], found[:, 1:]


def test_distance_and_pca_by_hand() -> None:
    x = inputs(1)
    error, by_column = errors_of(members.fit_distance(x, RECIPE, 0), x)
    np.testing.assert_allclose(error, np.sqrt((x[:, -1] ** 2).mean(1)), rtol=1e-5)
    np.testing.assert_allclose(by_column, x[:, -1] ** 2, rtol=1e-5)
    pca = members.fit_pca(x, RECIPE, 0)
    assert isinstance(pca, members.Pca)
    error, _ = errors_of(pca, x)
    centred = x[:, -1] - pca.mean
    inside = centred @ pca.axes
    t2 = (inside**2 / pca.variance).sum(1) / pca.t2_unit
    q = ((centred - inside @ pca.axes.T) ** 2).sum(1) / pca.q_unit
    np.testing.assert_allclose(error, np.sqrt(np.maximum(t2, q)), rtol=1e-3)


def test_the_forest_scores_as_scikit_learn_does() -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    x = inputs(1)
    wild = np.concatenate([x, x[:100] * 5, np.full((1, 1, 6), 20, np.float32)])
    forest = ensemble.IsolationForest(n_estimators=50, max_samples=100, random_state=3).fit(x[:, 0])
    error, _ = errors_of(members.forest_of(forest), wild)
    np.testing.assert_allclose(error, -forest.score_samples(wild[:, 0]), atol=1e-5)


def test_the_forest_scores_alike_at_its_own_thresholds() -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    x = np.round(inputs(1), 1)  # many equal values, so that thresholds are met exactly
    forest = ensemble.IsolationForest(n_estimators=50, random_state=1).fit(x[:, 0])
    at = np.concatenate([t["threshold"][t["feature"] >= 0] for t in members.forest_of(forest).trees])[:300]
    edges = np.repeat(at[:, None, None], 6, axis=2).astype(np.float32)
    np.testing.assert_allclose(
        errors_of(members.forest_of(forest), edges)[0], -forest.score_samples(edges[:, 0]), atol=1e-5
    )


@pytest.mark.parametrize("name", ["dense", "conv"])
def test_an_autoencoder_gives_in_the_graph_what_it_gives_in_pytorch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from tools.pdm import networks

    kept: list[Any] = []
    train = networks._train

    def trained(net: Any, *rest: Any) -> None:
        kept.append(net)
        train(net, *rest)

    monkeypatch.setattr(networks, "_train", trained)
    x = inputs(24 if name == "conv" else 1)
    error, by_column = errors_of(members.MEMBERS[name](x, RECIPE, 0), x)
    given = torch.from_numpy((x.transpose(0, 2, 1)[:, :, None] if name == "conv" else x[:, -1]).copy())
    with torch.no_grad():
        squares = ((kept[0](given) - given) ** 2).numpy()
    np.testing.assert_allclose(error, np.sqrt(squares.reshape(len(x), -1).mean(1)), rtol=1e-3, atol=1e-4)
    assert by_column.shape == (len(x), 6)
    assert error.mean() < 0.9 * np.sqrt((x**2).mean())  # it has learned something
    again, _ = errors_of(members.MEMBERS[name](x, RECIPE, 0), x)
    np.testing.assert_array_equal(error, again)  # the seed decides everything


def test_int8_is_near_and_only_the_autoencoders_change() -> None:
    pytest.importorskip("torch")
    from tools.pdm import quantise

    settings = Settings(members=("distance", "dense"), rate=0.02, recipe=replace(RECIPE, epochs=30))
    fitted = fit.fit([made.rows(800)], made.view(), settings)
    small = quantise.quantised(fitted.onnx, fitted.inputs)
    assert small is not None
    single, coarse = (fit.run(g, fitted.inputs)[:, 0] for g in (fitted.onnx, small))
    assert 0 < np.abs(single - coarse).max() < 0.1 * fitted.calibration.threshold
    plain = fit.fit([made.rows(800)], made.view(), replace(settings, members=("distance",)))
    assert quantise.quantised(plain.onnx, plain.inputs) is None


@pytest.mark.train
def test_bearings_by_features(tmp_path: Path) -> None:
    """Three made bearings: sound, a knocking one, an unbalanced one."""
    pytest.importorskip("sklearn")
    from tools.pdm import cwru

    rng, t = np.random.default_rng(0), np.arange(40_000) / cwru.RATE_HZ
    noise = [rng.normal(size=len(t)) for _ in range(3)]
    knocks = np.exp(-((t * 97) % 1.0) * 20) * np.sin(2 * np.pi * 3000 * t) * 4
    np.savez(
        tmp_path / "b.npz", sound=noise[0], knocking=noise[1] + knocks, unbalanced=noise[2] + np.sin(60 * np.pi * t)
    )
    result = cwru.evaluate(tmp_path)
    assert result["accuracy"] == 1.0
    assert result["onnx_error"] < 1e-5


@pytest.mark.slow
@pytest.mark.skipif(not CWRU.is_dir(), reason=f"no CWRU at {CWRU}")
def test_real_bearings_by_features() -> None:
    pytest.importorskip("sklearn")
    from tools.pdm import cwru

    assert cwru.evaluate(CWRU)["accuracy"] >= 0.99
