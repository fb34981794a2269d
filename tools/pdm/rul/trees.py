"""Gradient-boosted trees (scikit-learn) and the same trees as one ONNX operator, with the same answers.

A threshold of training is a float64; the device compares float32. Each is rounded down to float32, so that every float32
input goes the same way at every node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TreeRecipe:
    iterations: int = 150
    learning_rate: float = 0.08
    leaves: int = 15
    leaf_rows: int = 40
    l2: float = 1.0
    column_share: float = 0.3
    bins: int = 63


def fit(x: NDArray[np.float32], y: Floats, recipe: TreeRecipe, seed: int) -> HistGradientBoostingRegressor:
    model = HistGradientBoostingRegressor(
        max_iter=recipe.iterations,
        learning_rate=recipe.learning_rate,
        max_leaf_nodes=recipe.leaves,
        min_samples_leaf=min(recipe.leaf_rows, max(1, len(x) // 20)),
        l2_regularization=recipe.l2,
        max_features=recipe.column_share,
        max_bins=recipe.bins,
        early_stopping=False,
        random_state=seed,
    )
    return model.fit(x, y)


def round_down(thresholds: Floats) -> NDArray[np.float32]:
    """The largest float32 at or below each: x ≤ t for a float32 x is then x ≤ round_down(t)."""
    near = thresholds.astype(np.float32)
    return np.asarray(np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near), np.float32)


def attributes(models: list[HistGradientBoostingRegressor], share: float) -> dict[str, Any]:
    """The attributes of ONNX's TreeEnsembleRegressor: the sum over `models`, each leaf times `share`."""
    out: dict[str, list[Any]] = {
        name: [] for name in (*NODE_FIELDS, "target_treeids", "target_nodeids", "target_weights")
    }
    tree = 0
    for model in models:
        for (predictor,) in model._predictors:
            _add_tree(out, predictor.nodes, tree, share)
            tree += 1
    base = share * sum(float(np.ravel(model._baseline_prediction)[0]) for model in models)
    return {
        **out,
        "target_ids": [0] * len(out["target_weights"]),
        "n_targets": 1,
        "base_values": [base],
        "aggregate_function": "SUM",
    }


NODE_FIELDS = (
    "nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_values", "nodes_modes", "nodes_truenodeids",
    "nodes_falsenodeids", "nodes_missing_value_tracks_true",
)  # fmt: skip


def _add_tree(out: dict[str, list[Any]], nodes: Any, tree: int, share: float) -> None:
    leaf = nodes["is_leaf"].astype(bool)
    count = len(nodes)
    rows: dict[str, list[Any]] = {
        "nodes_treeids": [tree] * count,
        "nodes_nodeids": list(range(count)),
        "nodes_featureids": np.where(leaf, 0, nodes["feature_idx"]).tolist(),
        "nodes_values": np.where(leaf, 0.0, round_down(nodes["num_threshold"])).tolist(),
        "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_truenodeids": np.where(leaf, 0, nodes["left"]).tolist(),
        "nodes_falsenodeids": np.where(leaf, 0, nodes["right"]).tolist(),
        "nodes_missing_value_tracks_true": [0] * count,
        "target_treeids": [tree] * int(leaf.sum()),
        "target_nodeids": np.flatnonzero(leaf).tolist(),
        "target_weights": (share * nodes["value"][leaf]).tolist(),
    }
    for name, values in rows.items():
        out[name].extend(values)
