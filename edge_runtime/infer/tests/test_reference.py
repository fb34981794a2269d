"""The NumPy reference against ONNX Runtime, for every operator in its table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_runtime.errors import BundleError
from edge_runtime.infer.onnx import OnnxEngine
from edge_runtime.infer.reference import OPERATORS, ReferenceEngine
from edge_runtime.infer.tests.tiny_onnx import model, node

RNG = np.random.default_rng(3)
SHAPE = (1, 4, 6, 8)
F = np.float32


def normal(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(size=shape).astype(F)


def q(values: Any, dtype: Any) -> NDArray[Any]:
    return np.array(values, dtype)


W, W_GROUP, SCALE, SCALES = normal(5, 4, 3, 3), normal(4, 1, 3, 2), q(0.03, F), q([0.01, 0.02, 0.05, 0.1], F)
Q8, Q8_ZERO = "QuantizeLinear", q(120, np.uint8)

#: name → (nodes, initialisers); the input is `x` (1, 4, 6, 8), the output `y`
CASES: dict[str, tuple[list[bytes], dict[str, NDArray[Any]]]] = {
    "Add": ([node("Add", ["x", "a"], ["y"])], {"a": normal(4, 1, 1)}),
    "Sub": ([node("Sub", ["x", "a"], ["y"])], {"a": normal(1, 4, 6, 8)}),
    "Mul": ([node("Mul", ["a", "x"], ["y"])], {"a": normal(8)}),
    "Div": ([node("Div", ["x", "a"], ["y"])], {"a": normal(1) + 3}),
    "Exp": ([node("Exp", ["x"], ["y"])], {}),
    "Relu": ([node("Relu", ["x"], ["y"])], {}),
    "Sigmoid": ([node("Sigmoid", ["x"], ["y"])], {}),
    "Identity": ([node("Identity", ["x"], ["y"])], {}),
    "Clip": ([node("Clip", ["x", "lo", "hi"], ["y"])], {"lo": q(-0.5, F), "hi": q(0.7, F)}),
    "Clip one side": ([node("Clip", ["x", "", "hi"], ["y"])], {"hi": q(0.7, F)}),
    "Clip low": ([node("Clip", ["x", "lo"], ["y"])], {"lo": q(0.0, F)}),
    "Concat": ([node("Concat", ["x", "a", "x"], ["y"], axis=1)], {"a": normal(1, 2, 6, 8)}),
    "Slice mirrored": (
        [node("Slice", ["x", "start", "end", "axis", "step"], ["y"])],
        {"start": q([-1], np.int64), "end": q([-(2**63) + 1], np.int64), "axis": q([3], np.int64), "step": q([-1], np.int64)},
    ),
    "Slice two axes": (
        [node("Slice", ["x", "start", "end", "axis"], ["y"])],
        {"start": q([1, -5], np.int64), "end": q([3, 2**62], np.int64), "axis": q([1, 2], np.int64)},
    ),
    "Slice from the first axis": (
        [node("Slice", ["x", "start", "end"], ["y"])],
        {"start": q([0, 1], np.int64), "end": q([1, 4], np.int64)},
    ),
    "Constant": ([node("Constant", [], ["c"], value=normal(4, 1, 1)), node("Add", ["x", "c"], ["y"])], {}),
    "Conv": ([node("Conv", ["x", "w"], ["y"])], {"w": W}),
    "Conv padded": (
        [node("Conv", ["x", "w", "b"], ["y"], pads=[1, 0, 2, 1], strides=[2, 1], kernel_shape=[3, 3])],
        {"w": W, "b": normal(5)},
    ),
    "Conv dilated": ([node("Conv", ["x", "w"], ["y"], dilations=[2, 2], pads=[2, 2, 2, 2])], {"w": W}),
    "Conv depthwise": ([node("Conv", ["x", "w"], ["y"], group=4)], {"w": W_GROUP}),
    "Conv groups": ([node("Conv", ["x", "w"], ["y"], group=2, auto_pad="VALID")], {"w": normal(6, 2, 1, 3)}),
    "MaxPool": ([node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])], {}),
    "MaxPool padded": ([node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])], {}),
    "AveragePool": ([node("AveragePool", ["x"], ["y"], kernel_shape=[3, 2], pads=[1, 1, 1, 1])], {}),
    "AveragePool with pad": (
        [node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)],
        {},
    ),
    "GlobalAveragePool": ([node("GlobalAveragePool", ["x"], ["y"])], {}),
    "GlobalMaxPool": ([node("GlobalMaxPool", ["x"], ["y"])], {}),
    "Flatten": ([node("Flatten", ["x"], ["y"])], {}),
    "Flatten axis": ([node("Flatten", ["x"], ["y"], axis=-1)], {}),
    "Flatten all": ([node("Flatten", ["x"], ["y"], axis=0)], {}),
    "Reshape": ([node("Reshape", ["x", "s"], ["y"])], {"s": q([0, -1, 8], np.int64)}),
    "Transpose": ([node("Transpose", ["x"], ["y"], perm=[0, 2, 3, 1])], {}),
    "Transpose default": ([node("Transpose", ["x"], ["z"]), node("Flatten", ["z"], ["y"], axis=0)], {}),
    "Squeeze": ([node("GlobalMaxPool", ["x"], ["z"]), node("Squeeze", ["z", "a"], ["y"])], {"a": q([2, 3], np.int64)}),
    "Unsqueeze": ([node("Unsqueeze", ["x", "a"], ["y"])], {"a": q([1, 5], np.int64)}),
    "Softmax": ([node("Softmax", ["x"], ["y"])], {}),
    "Softmax axis": ([node("Softmax", ["x"], ["y"], axis=1)], {}),
    "ReduceMean": ([node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)], {}),
    "ReduceMax": ([node("ReduceMax", ["x"], ["y"], axes=[1])], {}),
    "ReduceSum": ([node("ReduceSum", ["x", "a"], ["y"], keepdims=0)], {"a": q([-1], np.int64)}),
    "ReduceSum all": (
        [node("ReduceSum", ["x"], ["z"]), node("Reshape", ["z", "s"], ["y"])], {"s": q([1, 1], np.int64)},
    ),
    "Max": ([node("Max", ["x", "c"], ["y"])], {"c": normal(4, 1, 1)}),
    "Sqrt": ([node("Relu", ["x"], ["z"]), node("Sqrt", ["z"], ["y"])], {}),
    "MatMul": ([node("MatMul", ["x", "a"], ["y"])], {"a": normal(8, 3)}),
    "Gemm": ([node("Flatten", ["x"], ["z"]), node("Gemm", ["z", "a", "b"], ["y"], transB=1, alpha=0.5, beta=2.0)],
             {"a": normal(3, 192), "b": normal(3)}),
    "Gemm plain": ([node("Flatten", ["x"], ["z"]), node("Gemm", ["z", "a"], ["y"])], {"a": normal(192, 2)}),
    "QuantizeLinear": (
        [node(Q8, ["x", "s", "z"], ["v"]), node("DequantizeLinear", ["v", "s", "z"], ["y"])],
        {"s": SCALE, "z": Q8_ZERO},
    ),
    "QuantizeLinear int8": (
        [node(Q8, ["x", "s", "z"], ["v"]), node("DequantizeLinear", ["v", "s", "z"], ["y"])],
        {"s": SCALE, "z": q(-7, np.int8)},
    ),
    "QuantizeLinear no zero": (
        [node(Q8, ["x", "s"], ["v"]), node("DequantizeLinear", ["v", "s"], ["y"])], {"s": SCALE},
    ),
    "DequantizeLinear": (
        [node(Q8, ["x", "s", "z"], ["v"], axis=1), node("DequantizeLinear", ["v", "s", "z"], ["y"], axis=1)],
        {"s": SCALES, "z": q([0, 10, 100, 250], np.uint8)},
    ),
    "DequantizeLinear int32": (
        [node("DequantizeLinear", ["b", "s"], ["c"], axis=0), node("Reshape", ["c", "t"], ["d"]),
         node("Add", ["x", "d"], ["y"])],
        {"b": q([1, -2, 30000, -70000], np.int32), "s": SCALES, "t": q([4, 1, 1], np.int64)},
    ),
}  # fmt: skip


def engines(tmp_path: Path, content: bytes) -> tuple[OnnxEngine, ReferenceEngine]:
    file = tmp_path / "m.onnx"
    file.write_bytes(content)
    return OnnxEngine(file, "v"), ReferenceEngine(file, "v")


@pytest.mark.parametrize("packing", ["raw", "typed", "loose"])
@pytest.mark.parametrize("case", CASES)
def test_an_operator_agrees_with_onnx_runtime(tmp_path: Path, case: str, packing: str) -> None:
    nodes, initialisers = CASES[case]
    fast, plain = engines(tmp_path, model(nodes, initialisers, SHAPE, packing=packing, opset=13))
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=SHAPE, scale=2.0).astype(F)
        want, got = fast.infer(x), plain.infer(x)
        assert got.shape == want.shape
        assert got.dtype == want.dtype == F
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_every_operator_is_tested() -> None:
    assert {case.split()[0] for case in CASES} == set(OPERATORS)


def test_an_unknown_operator_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(model([node("Erf", ["x"], ["y"])], {}, SHAPE))
    with pytest.raises(BundleError, match="no operator Erf"):
        ReferenceEngine(tmp_path / "m.onnx", "v")


@pytest.mark.parametrize(
    "nodes",
    [
        [node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 3], ceil_mode=1)],
        [node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER")],
        [node("Conv", ["x", "absent"], ["y"])],
    ],
)
def test_what_it_cannot_do_it_refuses_and_never_guesses(tmp_path: Path, nodes: list[bytes]) -> None:
    (tmp_path / "m.onnx").write_bytes(model(nodes, {"w": W}, SHAPE))
    with pytest.raises(BundleError):
        ReferenceEngine(tmp_path / "m.onnx", "v").infer(normal(*SHAPE))
