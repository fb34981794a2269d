"""The anomaly models: each is fitted to scaled normal inputs (n, history, columns) and writes itself into a graph.

    distance   root mean square of the newest scaled columns. With the drift-aware scaler: how far from normal, in units of
               what normal does by itself.
    pca        T² and Q of the newest columns (principal components of `PCA_VARIANCE` of the variance), the root of the
               larger of both in units of their own median: the honest baseline
    forest     isolation forest (Liu et al. 2008) of scikit-learn on the newest columns, as a tree ensemble. A forest does
               not say which column it is: the squares of the scaled columns stand in for that.
    dense      autoencoder of the newest columns (`networks.Dense`)
    conv       1-D convolutional autoencoder of the whole history (`networks.Conv`)

`MEMBERS` is the table; `fit` takes everything random from `seed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tools.pdm.graph import FLOOR, Builder

Inputs = NDArray[np.float32]
PCA_VARIANCE = 0.8
TREES, TREE_SAMPLES = 64, 128


@dataclass(frozen=True)
class Recipe:
    """What the networks are trained with; the other members have nothing to choose."""

    epochs: int = 60
    steps_max: int = 6000  # with very many rows, fewer passes
    learning_rate: float = 3e-3
    batch: int = 128
    noise: float = 0.1
    bottleneck: int = 0  # of dense: 0 takes a third of the columns, at least 2
    channels: int = 16  # of conv


class Member(Protocol):
    def write(self, b: Builder, x: str, newest: str) -> tuple[str, str]:
        """(error (n, 1), error by column (n, columns)) for the inputs `x` and their newest rows."""


@dataclass(frozen=True)
class Distance:
    columns: int

    def write(self, b: Builder, x: str, newest: str) -> tuple[str, str]:
        squares = b.square(newest)
        return b.root_of_mean(squares, self.columns), squares


def fit_distance(inputs: Inputs, recipe: Recipe, seed: int) -> Member:
    return Distance(inputs.shape[2])


@dataclass(frozen=True, eq=False)
class Pca:
    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    variance: NDArray[np.float64]
    t2_unit: float
    q_unit: float

    def write(self, b: Builder, x: str, newest: str) -> tuple[str, str]:
        centred = b.add("Sub", [newest, b.constant(self.mean)])
        scores = b.add("MatMul", [centred, b.constant(self.axes)])
        t2 = b.row_sum(b.add("Mul", [b.square(scores), b.constant(1.0 / (self.variance * self.t2_unit))]))
        back = b.add("MatMul", [scores, b.constant(self.axes.T)])
        residual = b.square(b.add("Sub", [centred, back]))
        q = b.add("Mul", [b.row_sum(residual), b.constant([[1.0 / self.q_unit]])])
        kept = b.add("Mul", [b.square(back), b.constant(1.0 / (self.variance.mean() * self.t2_unit))])
        by_column = b.add("Add", [kept, b.add("Mul", [residual, b.constant([[1.0 / self.q_unit]])])])
        return b.add("Sqrt", [b.add("Max", [t2, q])]), by_column


def fit_pca(inputs: Inputs, recipe: Recipe, seed: int) -> Member:
    newest = inputs[:, -1].astype(np.float64)
    mean = newest.mean(0)
    _, sizes, axes = np.linalg.svd(newest - mean, full_matrices=False)
    variance = sizes**2 / len(newest)
    kept = int(np.searchsorted(np.cumsum(variance) / max(variance.sum(), FLOOR), PCA_VARIANCE)) + 1
    kept = max(1, min(kept, newest.shape[1] - 1)) if newest.shape[1] > 1 else 1
    chosen, scale = axes[:kept].T, np.maximum(variance[:kept], FLOOR)
    scores = (newest - mean) @ chosen
    residual = ((newest - mean - scores @ chosen.T) ** 2).sum(1)
    t2_unit = max(float(np.median((scores**2 / scale).sum(1))), FLOOR)
    return Pca(mean, chosen, scale, t2_unit, max(float(np.median(residual)), 1e-3))


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees as arrays: for every node its feature (−1: a leaf), threshold, children and path length."""

    trees: tuple[dict[str, NDArray[Any]], ...]
    normal_depth: float

    def write(self, b: Builder, x: str, newest: str) -> tuple[str, str]:
        attributes: dict[str, list[Any]] = {f"nodes_{k}": [] for k in NODE_FIELDS}
        targets: dict[str, list[Any]] = {f"target_{k}": [] for k in ("treeids", "nodeids", "ids", "weights")}
        for number, tree in enumerate(self.trees):
            leaf = tree["feature"] < 0
            count = len(leaf)
            columns = {
                "treeids": [number] * count,
                "nodeids": list(range(count)),
                "featureids": np.where(leaf, 0, tree["feature"]).tolist(),
                "values": np.where(leaf, 0.0, tree["threshold"]).astype(np.float32).tolist(),
                "modes": ["LEAF" if is_leaf else "BRANCH_LEQ" for is_leaf in leaf],
                "truenodeids": np.where(leaf, 0, tree["left"]).tolist(),
                "falsenodeids": np.where(leaf, 0, tree["right"]).tolist(),
            }
            for key in NODE_FIELDS:
                attributes[f"nodes_{key}"] += columns[key]
            leaves = np.flatnonzero(leaf).tolist()
            targets["target_treeids"] += [number] * len(leaves)
            targets["target_nodeids"] += leaves
            targets["target_ids"] += [0] * len(leaves)
            targets["target_weights"] += (-tree["path"][leaves] / len(self.trees) / self.normal_depth).tolist()
        values: dict[str, Any] = {**attributes, **targets, "n_targets": 1, "aggregate_function": "SUM"}
        depth = b.add("TreeEnsembleRegressor", [newest], domain="ai.onnx.ml", **values)
        return b.add("Exp", [b.add("Mul", [depth, b.constant([[np.log(2.0)]])])]), b.square(newest)


NODE_FIELDS = ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")


def fit_forest(inputs: Inputs, recipe: Recipe, seed: int) -> Member:
    from sklearn.ensemble import IsolationForest

    newest = np.ascontiguousarray(inputs[:, -1])
    samples = min(TREE_SAMPLES, len(newest))
    forest = IsolationForest(n_estimators=TREES, max_samples=samples, random_state=seed, n_jobs=1).fit(newest)
    return forest_of(forest)


def forest_of(forest: Any) -> Forest:
    """A fitted scikit-learn IsolationForest as arrays; its error is −score_samples (2 ^ −depth / normal depth)."""
    trees = []
    for estimator, features in zip(forest.estimators_, forest.estimators_features_, strict=True):
        tree = estimator.tree_
        leaf = tree.children_left < 0
        # A float32 input is <= the double threshold exactly where it is <= the largest float32 not above it.
        single = tree.threshold.astype(np.float32)
        single = np.where(single.astype(np.float64) > tree.threshold, np.nextafter(single, np.float32(-np.inf)), single)
        path = _depths(tree.children_left, tree.children_right) + _average_path(tree.n_node_samples)
        feature = np.where(leaf, -1, features[np.where(leaf, 0, tree.feature)])
        trees.append(
            {"feature": feature, "threshold": single, "left": tree.children_left, "right": tree.children_right,
             "path": path}
        )  # fmt: skip
    return Forest(tuple(trees), float(_average_path(np.array([forest.max_samples_]))[0]))


def _depths(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float64]:
    depth = np.zeros(len(left))
    for node in range(len(left)):  # parents come before their children
        if left[node] >= 0:
            depth[[left[node], right[node]]] = depth[node] + 1
    return depth


def _average_path(samples: NDArray[Any]) -> NDArray[np.float64]:
    """Average path of an unsuccessful search in a binary tree of so many samples."""
    n = np.maximum(samples.astype(np.float64), 2.0)
    long = 2.0 * (np.log(np.maximum(n - 1, 1)) + np.euler_gamma) - 2.0 * (n - 1) / n
    return np.asarray(np.select([samples <= 1, samples == 2], [0.0, 1.0], long))


def fit_dense(inputs: Inputs, recipe: Recipe, seed: int) -> Member:
    from tools.pdm import networks

    return networks.fit_dense(inputs, recipe, seed)


def fit_conv(inputs: Inputs, recipe: Recipe, seed: int) -> Member:
    from tools.pdm import networks

    return networks.fit_conv(inputs, recipe, seed)


Fit = Callable[[Inputs, Recipe, int], Member]
MEMBERS: dict[str, Fit] = {
    "distance": fit_distance,
    "pca": fit_pca,
    "forest": fit_forest,
    "dense": fit_dense,
    "conv": fit_conv,
}
HISTORY_ROWS = {"conv": 24}
