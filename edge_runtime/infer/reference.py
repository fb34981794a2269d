"""The plain NumPy reference: interprets a bundle's `.onnx` file, one short function an operator.

Slow on purpose: it is the oracle that the fast engines are checked against, and the last resort on a board where none
installs. The operators follow the ONNX operator specification (opset 13 and later), batch and 2-D images only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edge_runtime.errors import BundleError
from edge_runtime.infer import onnx_file

Array = NDArray[Any]
Attributes = dict[str, Any]


class ReferenceEngine:
    name = "reference"

    def __init__(self, path: Path, variant: str) -> None:
        self._graph = onnx_file.read(path)
        self.variant = variant
        if unknown := sorted({n.op for n in self._graph.nodes} - set(OPERATORS)):
            raise BundleError(f"{path}: the reference engine has no operator {unknown[0]}")

    def infer(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        shape = self._graph.input_shape
        if shape is not None and (
            len(shape) != x.ndim or any(want not in (None, got) for want, got in zip(shape, x.shape, strict=True))
        ):
            raise BundleError(f"variant {self.variant}: input {x.shape}, expected {shape}")
        values: dict[str, Array] = {"": np.empty(0), **self._graph.initialisers, self._graph.input: x}
        try:
            for node in self._graph.nodes:
                inputs = [values[name] if name else None for name in node.inputs]
                values[node.outputs[0]] = OPERATORS[node.op](inputs, node.attributes)
        except (ValueError, IndexError, KeyError) as error:
            raise BundleError(f"variant {self.variant}: input {x.shape} does not fit the graph: {error}") from error
        return np.asarray(values[self._graph.output][0], dtype=np.float32)

    def close(self) -> None:
        pass


def _pads(attributes: Attributes) -> tuple[tuple[int, int], tuple[int, int]]:
    if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise ValueError(f"auto_pad {attributes['auto_pad']} is not supported")
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    return (top, bottom), (left, right)


def _windows(x: Array, kernel: tuple[int, ...], attributes: Attributes, fill: float) -> Array:
    """(n, c, out_h, out_w, kernel_h, kernel_w) view of the padded input."""
    if attributes.get("ceil_mode", 0):
        raise ValueError("ceil_mode is not supported")
    padded = np.pad(x, ((0, 0), (0, 0), *_pads(attributes)), constant_values=fill)
    step_h, step_w = attributes.get("strides", [1, 1])
    spread_h, spread_w = attributes.get("dilations", [1, 1])
    full = (spread_h * (kernel[0] - 1) + 1, spread_w * (kernel[1] - 1) + 1)
    view = sliding_window_view(padded, full, axis=(2, 3))
    return view[:, :, ::step_h, ::step_w, ::spread_h, ::spread_w]


def _conv(inputs: list[Any], attributes: Attributes) -> Array:
    x, weight, bias = inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None
    group = attributes.get("group", 1)
    outputs, per_group = weight.shape[:2]
    windows = _windows(x, weight.shape[2:], attributes, 0)
    n, _, height, width = windows.shape[:4]
    out = np.empty((n, outputs, height, width), np.float32)
    share = outputs // group
    for g in range(group):
        part = windows[:, g * per_group : (g + 1) * per_group].transpose(0, 2, 3, 1, 4, 5)
        flat = np.ascontiguousarray(part).reshape(n * height * width, -1)
        result = flat @ weight[g * share : (g + 1) * share].reshape(share, -1).T
        out[:, g * share : (g + 1) * share] = result.reshape(n, height, width, share).transpose(0, 3, 1, 2)
    return out if bias is None else out + bias.reshape(1, -1, 1, 1)


def _max_pool(inputs: list[Any], attributes: Attributes) -> Array:
    return np.asarray(_windows(inputs[0], attributes["kernel_shape"], attributes, -np.inf).max(axis=(4, 5)))


def _average_pool(inputs: list[Any], attributes: Attributes) -> Array:
    kernel = attributes["kernel_shape"]
    total = _windows(inputs[0], kernel, attributes, 0).sum(axis=(4, 5))
    if attributes.get("count_include_pad", 0):
        return np.asarray(total / (kernel[0] * kernel[1]))
    return np.asarray(total / _windows(np.ones_like(inputs[0]), kernel, attributes, 0).sum(axis=(4, 5)))


def _axes(inputs: list[Any], attributes: Attributes) -> tuple[int, ...] | None:
    axes = inputs[1].tolist() if len(inputs) > 1 and inputs[1] is not None else attributes.get("axes")
    return None if axes is None else tuple(axes)


def _reduce(function: Callable[..., Array]) -> Callable[[list[Any], Attributes], Array]:
    def run(inputs: list[Any], attributes: Attributes) -> Array:
        keep = bool(attributes.get("keepdims", 1))
        return np.asarray(function(inputs[0], axis=_axes(inputs, attributes), keepdims=keep))

    return run


def _gemm(inputs: list[Any], attributes: Attributes) -> Array:
    a = inputs[0].T if attributes.get("transA") else inputs[0]
    b = inputs[1].T if attributes.get("transB") else inputs[1]
    out = attributes.get("alpha", 1.0) * (a @ b)
    if len(inputs) > 2 and inputs[2] is not None:
        out = out + attributes.get("beta", 1.0) * inputs[2]
    return np.asarray(out, np.float32)


def _per_axis(value: Array, rank: int, axis: int) -> Array:
    if value.ndim == 0 or value.size == 1:
        return value.reshape(())
    return value.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def _quantize(inputs: list[Any], attributes: Attributes) -> Array:
    x, scale = inputs[0], inputs[1]
    zero = inputs[2] if len(inputs) > 2 and inputs[2] is not None else np.uint8(0)
    axis = attributes.get("axis", 1)
    info = np.iinfo(zero.dtype)
    shifted = np.rint(x / _per_axis(scale, x.ndim, axis)) + _per_axis(np.asarray(zero), x.ndim, axis).astype(np.float32)
    return np.asarray(np.clip(shifted, info.min, info.max).astype(zero.dtype))


def _dequantize(inputs: list[Any], attributes: Attributes) -> Array:
    x, scale = inputs[0], inputs[1]
    axis = attributes.get("axis", 1)
    out = x.astype(np.float32)
    if len(inputs) > 2 and inputs[2] is not None:
        out = out - _per_axis(np.asarray(inputs[2]), x.ndim, axis).astype(np.float32)
    return np.asarray(out * _per_axis(scale, x.ndim, axis), np.float32)


def _clip(inputs: list[Any], _: Attributes) -> Array:
    low = inputs[1] if len(inputs) > 1 else None
    high = inputs[2] if len(inputs) > 2 else None
    return np.asarray(np.clip(inputs[0], low, high))


def _reshape(inputs: list[Any], _: Attributes) -> Array:
    shape = [inputs[0].shape[i] if s == 0 else int(s) for i, s in enumerate(inputs[1].tolist())]
    return np.asarray(inputs[0].reshape(shape))


def _slice(inputs: list[Any], _: Attributes) -> Array:
    x, starts, ends = inputs[:3]
    axes = inputs[3].tolist() if len(inputs) > 3 and inputs[3] is not None else list(range(len(starts)))
    steps = inputs[4].tolist() if len(inputs) > 4 and inputs[4] is not None else [1] * len(axes)
    cut = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts.tolist(), ends.tolist(), steps, strict=True):
        beyond = (
            step < 0 and end < -x.shape[axis]
        )  # numpy counts a negative end from the back: None is "to the very first"
        cut[axis] = slice(start, None if beyond else end, step)
    return np.asarray(x[tuple(cut)])


def _flatten(inputs: list[Any], attributes: Attributes) -> Array:
    axis = attributes.get("axis", 1)
    return np.asarray(inputs[0].reshape(int(np.prod(inputs[0].shape[:axis])), -1))


def _softmax(inputs: list[Any], attributes: Attributes) -> Array:
    axis = attributes.get("axis", -1)
    e = np.exp(inputs[0] - inputs[0].max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))


def _squeeze(inputs: list[Any], attributes: Attributes) -> Array:
    return np.asarray(np.squeeze(inputs[0], axis=_axes(inputs, attributes)))


def _unsqueeze(inputs: list[Any], attributes: Attributes) -> Array:
    return np.asarray(np.expand_dims(inputs[0], axis=_axes(inputs, attributes) or ()))


OPERATORS: dict[str, Callable[[list[Any], Attributes], Array]] = {
    "Add": lambda i, _: i[0] + i[1],
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Concat": lambda i, a: np.concatenate(i, axis=a["axis"]),
    "Constant": lambda _, a: np.asarray(a["value"]),
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Div": lambda i, _: i[0] / i[1],
    "Exp": lambda i, _: np.exp(i[0]),
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda i, _: i[0].mean(axis=(2, 3), keepdims=True),
    "GlobalMaxPool": lambda i, _: i[0].max(axis=(2, 3), keepdims=True),
    "Identity": lambda i, _: i[0],
    "MatMul": lambda i, _: i[0] @ i[1],
    "Max": lambda i, _: reduce(np.maximum, i),
    "MaxPool": _max_pool,
    "Mul": lambda i, _: i[0] * i[1],
    "QuantizeLinear": _quantize,
    "ReduceMax": _reduce(np.max),
    "ReduceMean": _reduce(np.mean),
    "ReduceSum": _reduce(np.sum),
    "Relu": lambda i, _: np.maximum(i[0], 0),
    "Reshape": _reshape,
    "Sigmoid": lambda i, _: 1.0 / (1.0 + np.exp(-i[0])),
    "Slice": _slice,
    "Softmax": _softmax,
    "Sqrt": lambda i, _: np.sqrt(i[0]),
    "Squeeze": _squeeze,
    "Sub": lambda i, _: i[0] - i[1],
    "Transpose": lambda i, a: np.transpose(i[0], a.get("perm")),
    "Unsqueeze": _unsqueeze,
}
