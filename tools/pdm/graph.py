"""An anomaly model's ONNX graph, written operator by operator: members side by side, one score, one share a tag.

    input x (n, history, columns), scaled
    member m  →  error (n, 1) and error by column (n, columns)
    score     =  mean over members of error / unit        unit: the member's own median on held-out normal rows
    share     =  each member's errors by column over their sum, mean over members, added up by tag

Every operator works row by row, so that a batch gives the numbers of single windows; the device runs n = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
ML_OPSET = 3
IR_VERSION = 9
FLOOR = 1e-6
DENSE, CONV = "dense", "conv"  # prefixes of the nodes that are worth quantising


class Builder:
    """Nodes and constants of one graph; each method adds one operator and returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self._count = 0

    def constant(self, value: Any, kind: Any = np.float32) -> str:
        array = np.asarray(value, kind)
        name = f"c{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def add(self, op: str, inputs: Sequence[str], prefix: str = "n", domain: str = "", **attributes: Any) -> str:
        self._count += 1
        name = f"{prefix}{self._count}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def dense(self, x: str, weight: NDArray[Any], bias: NDArray[Any], prefix: str = "n") -> str:
        """x @ weight + bias, weight (inputs, outputs)."""
        product = self.add("MatMul", [x, self.constant(weight)], prefix)
        return self.add("Add", [product, self.constant(bias)], prefix)

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        return self.add("Reshape", [x, self.constant(shape, np.int64)])

    def square(self, x: str) -> str:
        return self.add("Mul", [x, x])

    def root_of_mean(self, squares: str, count: int) -> str:
        """(n, 1): √(sum of (n, columns) / count)."""
        return self.add("Sqrt", [self.add("Mul", [self.row_sum(squares), self.constant([[1.0 / count]])])])

    def row_sum(self, x: str) -> str:
        """(n, 1) sums of (n, columns)."""
        return self.add("ReduceSum", [x, self.constant([1], np.int64)], keepdims=1)

    def last_row(self, x: str, history: int, columns: int) -> str:
        """(n, columns): the newest row of the history."""
        if history == 1:
            return self.reshape(x, (-1, columns))
        index = [self.constant([v], np.int64) for v in (history - 1, history, 1)]
        newest = self.add("Slice", [x, index[0], index[1], index[2]])
        return self.reshape(newest, (-1, columns))

    def model(self, history: int, columns: int, output: str, values: int) -> bytes:
        """The finished file; checked by onnx."""
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", history, columns])
        y = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", values])
        graph = helper.make_graph(self.nodes, "anomaly", [x], [y], list(self.constants.values()))
        opsets = [helper.make_opsetid("", OPSET)]
        if any(node.domain for node in self.nodes):
            opsets.append(helper.make_opsetid("ai.onnx.ml", ML_OPSET))
        model = helper.make_model(graph, opset_imports=opsets, producer_name="gudgeon", ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())


def finish(
    b: Builder, members: Sequence[tuple[str, str]], units: Sequence[float], tags_of_columns: NDArray[np.float32]
) -> str:
    """[score, shares] of members' (error, error by column); `tags_of_columns` (columns, tags), each row's sum 1."""
    scores, shares = [], []
    for (error, by_column), unit in zip(members, units, strict=True):
        scores.append(b.add("Mul", [error, b.constant([[1.0 / max(unit, FLOOR)]])]))
        whole = b.add("Add", [b.row_sum(by_column), b.constant([[FLOOR]])])
        shares.append(b.add("Div", [by_column, whole]))
    by_tag = b.add("MatMul", [_mean(b, shares), b.constant(tags_of_columns)])
    total = b.add("Add", [b.row_sum(by_tag), b.constant([[FLOOR]])])
    return b.add("Concat", [_mean(b, scores), b.add("Div", [by_tag, total])], axis=1)


def _mean(b: Builder, names: Sequence[str]) -> str:
    total = names[0]
    for name in names[1:]:
        total = b.add("Add", [total, name])
    return total if len(names) == 1 else b.add("Mul", [total, b.constant([[1.0 / len(names)]])])
